"""A worker leaves jobs of another release in the queue for other workers, and takes the rest."""

import asyncio
from uuid import uuid4

import pytest
from redis import Redis

from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.jobs.records import Records
from image_analysis_worker.rq.batch_worker import BatchWorker
from image_analysis_worker.rq.maintenance import Maintenance
from support.announcements import make_announcement
from support.direct import QUEUE, DirectQueue
from support.waiting import wait_until

QUEUE_KEY = f"rq:queue:{QUEUE}"


def submit(redis_url: str, count: int) -> list[str]:
    async def submit() -> list[str]:
        job_ids = [uuid4() for _ in range(count)]
        async with connect(redis_url) as redis:
            for n, job_id in enumerate(job_ids):
                record = JobRecord(status=JobStatus.PENDING, image_hash=f"{n}" * 64)
                await DirectQueue(redis, "m").enqueue(NewJob(job_id, b"image", record, request_id="r"))
        return list(map(str, job_ids))

    return asyncio.run(submit())


@pytest.fixture
def batch_worker(redis: Redis) -> BatchWorker:
    return BatchWorker("m", redis, Records("m", cache_ttl_s=60))


def test_unreadable_job_stays_in_the_queue_and_the_others_are_taken(
    redis: Redis, redis_url: str, batch_worker: BatchWorker
) -> None:
    first, unreadable, foreign, last = submit(redis_url, 4)
    redis.hset(keys.job(unreadable), "status", "PAUSED")
    redis.hset(f"rq:job:{foreign}", "retries_left", "another form")

    jobs, _ = batch_worker.take(8, wait_s=1, is_alone=True)
    batch_worker.give_back(jobs)
    jobs, _ = batch_worker.take(8, wait_s=1, is_alone=True)

    def is_back() -> bool:
        Maintenance(batch_worker, make_announcement()).sweep()
        return redis.llen(QUEUE_KEY) == 2

    wait_until(is_back, "it is in the queue again")
    assert [job.job_id for job in jobs] == [first, last]
    assert set(redis.lrange(QUEUE_KEY, 0, -1)) == {unreadable.encode(), foreign.encode()}
    assert redis.hget(keys.job(foreign), "status") == b"PENDING"
    assert redis.exists(keys.image(unreadable), keys.image(foreign)) == 2
