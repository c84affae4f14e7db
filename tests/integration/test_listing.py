"""A list of the jobs with one status costs Redis little for the others."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from image_analysis_api.jobs.listing import Listing
from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from support.direct import DirectQueue
from support.replies import decoded

pytestmark = pytest.mark.anyio

JOBS = 50


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[AsyncRedis]:
    async with connect(redis_url) as client:
        yield client


def add_job(redis: Redis, number: int, status: JobStatus) -> str:
    job_id = f"00000000-0000-4000-8000-{number:012}"
    record = JobRecord(status=status, image_hash="0" * 64, owner="ann")
    redis.hset(keys.job(job_id), mapping=record.to_hash())
    redis.expire(keys.job(job_id), 60)
    redis.zadd(keys.jobs_of("ann"), {job_id: number})
    return job_id


async def test_expired_jobs_are_removed_while_their_owner_submits(redis: Redis, client: AsyncRedis) -> None:
    redis.zadd(keys.jobs_of("ann"), {f"expired-{number}": 2e12 for number in range(JOBS)})
    queue = DirectQueue(client, "m")
    jobs = [uuid4() for _ in range(JOBS)]

    for number, job_id in enumerate(jobs):
        record = JobRecord(status=JobStatus.PENDING, image_hash=f"{number:064x}", owner="ann")
        await queue.enqueue(NewJob(job_id, b"image", record, request_id="r"))

    left = {decoded(job_id) for job_id in redis.zrange(keys.jobs_of("ann"), 0, -1)}
    assert left >= set(map(str, jobs))
    assert len(left) < 1.5 * JOBS


async def test_only_records_with_the_status_are_read_in_full(redis: Redis, client: AsyncRedis) -> None:
    for number in range(JOBS):
        add_job(redis, number, JobStatus.PENDING)
    wanted = add_job(redis, JOBS, JobStatus.FAILED)
    redis.zadd(keys.jobs_of("ann"), {"00000000-0000-4000-8000-expired00000": 1})
    redis.expire(keys.jobs_of("ann"), 60)
    redis.config_resetstat()

    page, cursor = await Listing(client).page("ann", limit=20, status=JobStatus.FAILED)

    assert ([str(job.job_id) for job in page], cursor) == ([wanted], None)
    assert redis.info("commandstats")["cmdstat_hgetall"]["calls"] == 1
    assert redis.zcard(keys.jobs_of("ann")) == JOBS + 1
