"""What a worker does with cancelled jobs, and the state of their RQ jobs at the end."""

from collections.abc import Callable

import pytest
from redis import Redis
from rq.job import Job as RqJob
from rq.job import JobStatus as RqStatus
from structlog.testing import capture_logs

from image_analysis_common import keys, tasks
from image_analysis_worker.rq.batch_worker import BatchWorker
from support.direct import QUEUE, Client, read, registries, take
from support.interruptions import InterruptedRedis
from support.steps import RESULT


def check_canceled(redis: Redis, job_id: str) -> None:
    assert registries(redis) == {"canceled": [job_id]}
    job = RqJob.fetch(job_id, connection=redis, serializer=tasks.SERIALIZER)
    assert (job.get_status(), job.return_value()) == (RqStatus.CANCELED, None)
    assert 0 < redis.ttl(job.key) <= keys.ENDED_JOB_TTL_S
    assert not redis.exists(keys.image(job_id))


@pytest.mark.parametrize("outcome", [RESULT, RuntimeError("a fault")])
def test_run_that_was_cancelled_is_canceled_in_rqs_books(
    redis: Redis, batch_worker: BatchWorker, client: Client, outcome: object
) -> None:
    job_id = client.submit()
    [job] = take(batch_worker)
    client.cancel(job_id)
    job.attempts_left = 1
    job.end(outcome)  # type: ignore[arg-type]

    batch_worker.finish([job])

    assert read(redis, job_id) == ["CANCELLED"]
    assert not redis.exists(keys.result("1" * 64))
    check_canceled(redis, job_id)


def test_requeued_cancelled_job_is_not_run(redis: Redis, batch_worker: BatchWorker, client: Client) -> None:
    job_id = client.submit()
    [job] = take(batch_worker)
    client.cancel(job_id)
    batch_worker.give_back([job])

    assert take(batch_worker) == []
    assert read(redis, job_id) == ["CANCELLED"]
    check_canceled(redis, job_id)


def test_kept_run_of_a_cancelled_leader_answers_its_followers(
    redis: Redis, batch_worker: BatchWorker, client: Client
) -> None:
    leader, follower = client.submit(), client.submit()
    client.cancel(leader)
    [job] = take(batch_worker)
    job.end(RESULT)

    batch_worker.finish([job])

    assert read(redis, leader, follower) == ["CANCELLED", "COMPLETED"]
    assert redis.exists(keys.result("1" * 64))
    check_canceled(redis, leader)


def test_kept_run_whose_followers_left_between_pop_and_start_is_dropped(
    redis: Redis, batch_worker: BatchWorker, client: Client
) -> None:
    leader, follower = client.submit(), client.submit()
    client.cancel(leader)
    [job] = take(batch_worker)
    client.cancel(follower)
    job.end(RESULT)

    batch_worker.finish([job])

    assert read(redis, leader, follower) == ["CANCELLED", "CANCELLED"]
    assert not redis.exists(keys.result("1" * 64))


def test_kept_run_is_tried_again_when_its_worker_dies(redis: Redis, batch_worker: BatchWorker, client: Client) -> None:
    leader, follower = client.submit(), client.submit()
    client.cancel(leader)
    [job] = take(batch_worker)
    batch_worker.give_back([job])

    [again] = take(batch_worker)
    again.end(RESULT)
    batch_worker.finish([again])

    assert read(redis, leader, follower) == ["CANCELLED", "COMPLETED"]


def test_follower_that_joins_while_its_cancelled_leader_starts_is_answered(
    redis: Redis, batch_worker: BatchWorker, connection: InterruptedRedis, client: Client
) -> None:
    leader, followers = client.submit(), list[str]()
    # It was cancelled after a worker had popped it; that worker died before the start.
    redis.lmove(f"rq:queue:{QUEUE}", f"rq:queue:{QUEUE}:intermediate")
    client.cancel(leader)
    redis.lmove(f"rq:queue:{QUEUE}:intermediate", f"rq:queue:{QUEUE}")
    connection.before_write = lambda: followers.append(client.submit())

    [job] = take(batch_worker)
    job.end(RESULT)
    batch_worker.finish([job])

    assert read(redis, leader, *followers) == ["CANCELLED", "COMPLETED"]
    check_canceled(redis, leader)


@pytest.mark.parametrize("give_up", [BatchWorker.give_back, BatchWorker.finish])
def test_follower_that_joins_while_its_cancelled_leader_is_given_up_is_answered_later(
    redis: Redis, batch_worker: BatchWorker, connection: InterruptedRedis, client: Client, give_up: Callable[..., None]
) -> None:
    leader, followers = client.submit(), list[str]()
    [job] = take(batch_worker)
    client.cancel(leader)
    connection.before_write = lambda: followers.append(client.submit())
    job.end(RuntimeError("a fault"))
    give_up(batch_worker, [job])

    [again] = take(batch_worker)
    again.end(RESULT)
    batch_worker.finish([again])

    assert read(redis, leader, *followers) == ["CANCELLED", "COMPLETED"]
    check_canceled(redis, leader)


def test_job_that_is_cancelled_while_it_begins_is_not_run(
    redis: Redis, batch_worker: BatchWorker, connection: InterruptedRedis, client: Client
) -> None:
    job_id = client.submit()
    connection.before_write = lambda: client.cancel(job_id)

    with capture_logs() as lines:
        assert take(batch_worker) == []

    assert read(redis, job_id) == ["CANCELLED"]
    check_canceled(redis, job_id)
    assert [(line["event"], line["job_id"]) for line in lines] == [("job_cancelled", job_id)]
    assert redis.hget(batch_worker.key, "state") == b"idle"


def test_kept_run_is_dropped_if_its_last_follower_is_cancelled_during_the_start(
    redis: Redis, batch_worker: BatchWorker, connection: InterruptedRedis, client: Client
) -> None:
    leader, follower = client.submit(), client.submit()
    client.cancel(leader)
    connection.before_write = lambda: client.cancel(follower)

    assert take(batch_worker) == []
    assert read(redis, leader, follower) == ["CANCELLED", "CANCELLED"]
    check_canceled(redis, leader)
