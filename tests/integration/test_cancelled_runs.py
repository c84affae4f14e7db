"""What a worker does with jobs that were taken back, and what RQ's books say of them in the end."""

import asyncio
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from redis import Redis
from rq.job import Job
from rq.job import JobStatus as RqStatus

from image_analysis_api.cancellation import Cancellation
from image_analysis_api.queue import JobQueue
from image_analysis_api.store import connect
from image_analysis_common import keys, tasks
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.books.ledger import Books
from image_analysis_worker.hand import Work
from image_analysis_worker.records import Records
from steps import RESULT

QUEUE = "analysis-m"


@pytest.fixture
def books(redis: Redis) -> Books:
    return Books("m", redis, Records("m", cache_ttl_s=60))


class Client:
    """Submits and cancels as the API does."""

    def __init__(self, redis_url: str) -> None:
        self._runner = asyncio.Runner()
        self._redis = connect(redis_url)

    def submit(self) -> str:
        job_id, record = uuid4(), JobRecord(status=JobStatus.PENDING, image_hash="1" * 64)
        self._runner.run(JobQueue(self._redis, "m").enqueue(job_id, b"image", record, request_id="r"))
        return str(job_id)

    def cancel(self, job_id: str) -> None:
        self._runner.run(Cancellation(self._redis).cancel(UUID(job_id), None))

    def close(self) -> None:
        self._runner.run(self._redis.aclose())
        self._runner.close()


@pytest.fixture
def client(redis: Redis, redis_url: str) -> Iterator[Client]:
    client = Client(redis_url)
    yield client
    client.close()


def take(books: Books) -> list[Work]:
    return books.take(1, wait_s=1, is_alone=True)[0]


def read(redis: Redis, *jobs: str) -> list[str]:
    return [bytes(redis.hget(keys.job(job_id), "status")).decode() for job_id in jobs]


def registries(redis: Redis) -> dict[str, list[str]]:
    """Name what RQ's books hold, but for what is empty."""
    found = {
        "waiting": redis.lrange(f"rq:queue:{QUEUE}", 0, -1),
        "between": redis.lrange(f"rq:queue:{QUEUE}:intermediate", 0, -1),
        **{name: redis.zrange(f"rq:{name}:{QUEUE}", 0, -1) for name in ("wip", "finished", "failed", "canceled")},
    }
    return {name: [job.decode() for job in jobs] for name, jobs in found.items() if jobs}


def check_canceled(redis: Redis, job_id: str) -> None:
    assert registries(redis) == {"canceled": [job_id]}
    job = Job.fetch(job_id, connection=redis, serializer=tasks.SERIALIZER)
    assert (job.get_status(), job.return_value()) == (RqStatus.CANCELED, None)
    assert 0 < redis.ttl(job.key) <= keys.ENDED_JOB_TTL_S
    assert not redis.exists(keys.image(job_id))


@pytest.mark.parametrize("outcome", [RESULT, RuntimeError("a fault")])
def test_run_that_was_cancelled_is_canceled_in_rqs_books(
    redis: Redis, books: Books, client: Client, outcome: object
) -> None:
    job_id = client.submit()
    [work] = take(books)
    client.cancel(job_id)
    work.attempts_left = 1
    work.end(outcome)  # type: ignore[arg-type]

    books.finish([work])

    assert read(redis, job_id) == ["CANCELLED"]
    assert not redis.exists(keys.result("1" * 64))
    check_canceled(redis, job_id)


def test_cancelled_job_that_comes_back_is_not_run(redis: Redis, books: Books, client: Client) -> None:
    job_id = client.submit()
    [work] = take(books)
    client.cancel(job_id)
    books.give_back([work])

    assert take(books) == []
    assert read(redis, job_id) == ["CANCELLED"]
    check_canceled(redis, job_id)


def test_kept_run_of_a_cancelled_leader_answers_its_followers(redis: Redis, books: Books, client: Client) -> None:
    leader, follower = client.submit(), client.submit()
    client.cancel(leader)
    [work] = take(books)
    work.end(RESULT)

    books.finish([work])

    assert read(redis, leader, follower) == ["CANCELLED", "COMPLETED"]
    assert redis.exists(keys.result("1" * 64))
    check_canceled(redis, leader)


def test_kept_run_whose_followers_left_between_pop_and_start_is_dropped(
    redis: Redis, books: Books, client: Client
) -> None:
    leader, follower = client.submit(), client.submit()
    client.cancel(leader)
    [work] = take(books)
    client.cancel(follower)
    work.end(RESULT)

    books.finish([work])

    assert read(redis, leader, follower) == ["CANCELLED", "CANCELLED"]
    assert not redis.exists(keys.result("1" * 64))


def test_kept_run_is_tried_again_when_its_worker_dies(redis: Redis, books: Books, client: Client) -> None:
    leader, follower = client.submit(), client.submit()
    client.cancel(leader)
    [work] = take(books)
    books.give_back([work])

    [again] = take(books)
    again.end(RESULT)
    books.finish([again])

    assert read(redis, leader, follower) == ["CANCELLED", "COMPLETED"]
