"""A job's position in the queue, on the unit tests' fake Redis and on a real one."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from fakeredis.aioredis import FakeRedis
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from image_analysis_api.jobs.position import Positions
from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.responses import NO_POSITION, Position
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from support.direct import DirectQueue

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["fake", "real"])
async def client(request: pytest.FixtureRequest, redis: SyncRedis, redis_url: str) -> AsyncIterator[Redis]:
    async with FakeRedis() if request.param == "fake" else connect(redis_url) as client:
        yield client


def pending(image: str) -> JobRecord:
    return JobRecord(status=JobStatus.PENDING, image_hash=image * 64)


async def submit(client: Redis, *images: str) -> list[UUID]:
    jobs = [uuid4() for _ in images]
    for job_id, image in zip(jobs, images, strict=True):
        await DirectQueue(client, "m").enqueue(NewJob(job_id, b"image", pending(image), request_id="r"))
    return jobs


async def place(client: Redis, job_id: UUID) -> Position:
    found = await Positions(client).find(job_id)
    assert found is not None
    return found[1]


async def end(client: Redis, ages_s: list[int], registry: str = "finished") -> None:
    """Add jobs to an RQ registry that ended this long ago."""
    now_s, _ = await client.time()
    ttl_s = {"finished": keys.FINISHED_JOB_TTL_S, "failed": keys.ENDED_JOB_TTL_S}[registry]
    ended = {f"{registry} {n}": now_s + ttl_s - age_s for n, age_s in enumerate(ages_s)}
    await client.zadd(f"rq:{registry}:analysis-m", ended)


async def test_position_1_is_the_next_job(client: Redis) -> None:
    jobs = await submit(client, "1", "2", "1", "3")

    assert [(await place(client, job_id)).queue_position for job_id in jobs] == [1, 2, 1, 3]
    assert await Positions(client).find(jobs[0]) == (pending("1"), Position(1))


async def test_job_that_does_not_wait_has_no_position(client: Redis) -> None:
    popped, begun = await submit(client, "1", "2")
    await client.lpop("rq:queue:analysis-m")
    await client.hset(keys.job(str(begun)), "status", JobStatus.PROCESSING)

    assert [await place(client, job_id) for job_id in (popped, begun)] == [NO_POSITION, NO_POSITION]


async def test_unknown_job_is_not_found(client: Redis) -> None:
    assert await Positions(client).find(uuid4()) is None


@pytest.mark.parametrize(
    ("finished", "failed", "estimates_ms"),
    [
        ([3, 2, 1, 0], [0], {1600, 2000}),  # five in four seconds, or in five if a second has passed
        ([40, 2, 0], [], {3000, 4000}),  # jobs that ended more than ten seconds ago do not count
        ([58, 30], [45], {39_334, 40_000}),  # three in the last minute
        ([], [], {None}),
        ([61], [], {None}),
    ],
)
async def test_estimate_follows_the_recent_pace(
    client: Redis, finished: list[int], failed: list[int], estimates_ms: set[int | None]
) -> None:
    _, last = await submit(client, "1", "2")
    if finished:
        await end(client, finished)
    if failed:
        await end(client, failed, "failed")

    assert (await place(client, last)).estimated_wait_ms in estimates_ms
