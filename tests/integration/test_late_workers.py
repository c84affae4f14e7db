"""A worker acts too late: it was frozen and considered dead, and its job now runs elsewhere or is deleted."""

from threading import Event

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from image_analysis_common import keys
from image_analysis_worker.jobs.batching import Job
from image_analysis_worker.jobs.records import Records
from image_analysis_worker.outage import Outage
from image_analysis_worker.rq.batch_worker import BatchWorker
from image_analysis_worker.rq.maintenance import Maintenance
from support.announcements import make_announcement
from support.direct import QUEUE, Client, read, registries, take
from support.interruptions import InterruptedRedis
from support.replies import raw
from support.steps import RESULT

ANNOUNCEMENT = make_announcement()


@pytest.fixture
def other(redis: Redis) -> BatchWorker:
    """The worker that takes over from the late `batch_worker`."""
    return BatchWorker("m", redis, Records("m", cache_ttl_s=60))


def consider_dead(redis: Redis, other: BatchWorker) -> None:
    """Let all executions expire, and let another worker clean them up."""
    for entry in redis.zrange(f"rq:wip:{QUEUE}", 0, -1):
        redis.zadd(f"rq:wip:{QUEUE}", {raw(entry): 1})
    redis.delete(keys.sweep(QUEUE))
    Maintenance(other, ANNOUNCEMENT).sweep()


def run(batch_worker: BatchWorker) -> None:
    [job] = take(batch_worker)
    job.end(RESULT)
    batch_worker.finish([job])


def traces(redis: Redis, job_id: str) -> list[str]:
    """Return the keys that mention a job, without those about the state of a worker."""
    return sorted(key.decode() for key in redis.scan_iter(f"*{job_id}*"))


def test_end_of_a_deleted_job_restores_nothing(
    redis: Redis, batch_worker: BatchWorker, other: BatchWorker, client: Client
) -> None:
    maintenance = Maintenance(batch_worker, ANNOUNCEMENT)
    maintenance.open()
    job_id = client.submit()
    [job] = take(batch_worker)
    consider_dead(redis, other)
    run(other)
    client.cancel(job_id)

    maintenance.beat()
    job.end(RESULT)
    batch_worker.finish([job])

    assert (traces(redis, job_id), registries(redis)) == ([], {})


@pytest.mark.parametrize("outcome", [RESULT, RuntimeError("a fault")])
def test_second_end_of_a_job_is_neither_written_nor_logged(
    redis: Redis, batch_worker: BatchWorker, other: BatchWorker, client: Client, outcome: object
) -> None:
    job_id = client.submit()
    [job] = take(batch_worker)
    consider_dead(redis, other)
    run(other)
    ended = redis.hgetall(keys.job(job_id)), redis.hgetall(f"rq:job:{job_id}"), registries(redis)

    job.end(outcome)  # type: ignore[arg-type]
    with capture_logs() as lines:
        batch_worker.finish([job])

    assert (redis.hgetall(keys.job(job_id)), redis.hgetall(f"rq:job:{job_id}"), registries(redis)) == ended
    assert [line["event"] for line in lines] == ["end_discarded"]


def test_end_by_a_late_worker_leaves_the_job_to_the_worker_that_runs_it(
    redis: Redis, batch_worker: BatchWorker, other: BatchWorker, client: Client
) -> None:
    job_id = client.submit()
    [job] = take(batch_worker)
    consider_dead(redis, other)
    [again] = take(other)

    job.end(RuntimeError("a fault"))
    batch_worker.finish([job])
    meanwhile = read(redis, job_id), set(registries(redis))
    again.end(RESULT)
    other.finish([again])

    assert meanwhile == (["PROCESSING"], {"wip"})
    assert (read(redis, job_id), registries(redis)) == (["COMPLETED"], {"finished": [job_id]})


def test_job_that_is_given_back_too_late_is_not_queued_again(
    redis: Redis, batch_worker: BatchWorker, other: BatchWorker, client: Client
) -> None:
    job_id = client.submit()
    [job] = take(batch_worker)
    consider_dead(redis, other)
    run(other)
    client.cancel(job_id)

    batch_worker.give_back([job])

    assert (traces(redis, job_id), registries(redis)) == ([], {})


def test_popped_job_that_another_has_run_meanwhile_is_not_begun(
    redis: Redis, batch_worker: BatchWorker, other: BatchWorker, connection: InterruptedRedis, client: Client
) -> None:
    job_id = client.submit()

    def meanwhile() -> None:
        redis.lmove(f"rq:queue:{QUEUE}:intermediate", f"rq:queue:{QUEUE}", "LEFT", "LEFT")
        run(other)
        client.cancel(job_id)

    connection.before_write = meanwhile

    assert batch_worker.take(1, wait_s=1, is_alone=True) == ([], False)
    assert (traces(redis, job_id), registries(redis), batch_worker.executions) == ([], {}, {})


def test_popped_job_that_another_has_begun_meanwhile_is_not_begun_twice(
    redis: Redis, batch_worker: BatchWorker, other: BatchWorker, connection: InterruptedRedis, client: Client
) -> None:
    job_id, begun = client.submit(), list[Job]()

    def meanwhile() -> None:
        redis.lmove(f"rq:queue:{QUEUE}:intermediate", f"rq:queue:{QUEUE}", "LEFT", "LEFT")
        begun.extend(take(other))

    connection.before_write = meanwhile

    assert batch_worker.take(1, wait_s=1, is_alone=True) == ([], False)
    begun[0].end(RESULT)
    other.finish(begun)
    assert (read(redis, job_id), registries(redis)) == (["COMPLETED"], {"finished": [job_id]})


def test_sweep_of_a_deleted_job_restores_nothing(
    redis: Redis, batch_worker: BatchWorker, other: BatchWorker, connection: InterruptedRedis, client: Client
) -> None:
    job_id = client.submit()
    [job] = take(other)

    def meanwhile() -> None:
        job.end(RESULT)
        other.finish([job])
        client.cancel(job_id)

    connection.before_write = meanwhile
    consider_dead(redis, batch_worker)

    assert (traces(redis, job_id), registries(redis)) == ([], {})


def test_cancelled_job_of_a_dead_worker_is_not_run_again(
    redis: Redis, batch_worker: BatchWorker, other: BatchWorker, client: Client
) -> None:
    job_id = client.submit()
    take(batch_worker)
    client.cancel(job_id)

    consider_dead(redis, other)

    assert other.take(1, wait_s=1, is_alone=True)[0] == []
    assert (read(redis, job_id), registries(redis)) == (["CANCELLED"], {"canceled": [job_id]})


@pytest.mark.parametrize("outcome", [RESULT, RuntimeError("a fault")])
def test_end_whose_answer_is_lost_is_written_and_noted_once(
    redis: Redis, batch_worker: BatchWorker, connection: InterruptedRedis, client: Client, outcome: object
) -> None:
    job_id = client.submit()
    [job] = take(batch_worker)
    job.attempts_left = 1
    job.end(outcome)  # type: ignore[arg-type]

    connection.loses_answer = True
    with capture_logs() as lines:
        with pytest.raises(RedisConnectionError):
            batch_worker.finish([job])
        written = redis.hgetall(keys.job(job_id))
        batch_worker.finish([job])

    assert redis.hgetall(keys.job(job_id)) == written
    assert [line["event"] for line in lines] == ["job_completed" if outcome is RESULT else "job_failed"]


def test_run_of_a_job_that_was_deleted_from_rqs_books_still_answers(
    redis: Redis, batch_worker: BatchWorker, client: Client
) -> None:
    leader, follower = client.submit(), client.submit()
    [job] = take(batch_worker)
    redis.delete(f"rq:job:{leader}", f"rq:wip:{QUEUE}")

    job.end(RESULT)
    batch_worker.finish([job])

    assert read(redis, leader, follower) == ["COMPLETED", "COMPLETED"]
    assert (registries(redis), redis.exists(f"rq:job:{leader}")) == ({}, 0)


def test_worker_whose_registration_is_interrupted_registers_again(
    redis: Redis, connection: InterruptedRedis, batch_worker: BatchWorker
) -> None:
    connection.loses_answer = True
    Outage(Event()).retry(Maintenance(batch_worker, ANNOUNCEMENT).open)

    assert not connection.loses_answer
    assert redis.smembers(f"rq:workers:{QUEUE}") == {batch_worker.key.encode()}
    assert 0 < redis.ttl(batch_worker.key) <= keys.WORKER_TTL_S
