"""Thousands of submissions of one image: how many may follow its run, and how all of them end."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from fakeredis import FakeRedis as SyncFakeRedis
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from image_analysis_api.jobs.cancellation import Cancellation, Outcome
from image_analysis_api.jobs.queue import FOLLOWERS_PER_PLACE, NewJob
from image_analysis_api.jobs.sweep import Sweep
from image_analysis_api.outbound.webhook_urls import MAX_DELIVERIES
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from image_analysis_common.errors import QueueFull, TooManyDeliveries
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts.runs import FOLLOWERS_AT_ONCE
from image_analysis_worker.jobs.records import Records
from support.direct import DirectQueue
from support.replies import decoded
from support.steps import RESULT, Steps
from support.waiting import eventually

pytestmark = pytest.mark.anyio

IMAGE_HASH = "1" * 64
URL = "https://receiver.test/hooks"
MANY = 2 * FOLLOWERS_AT_ONCE + 200


class Stage:
    """Submissions of one image, and the run that answers them."""

    def __init__(self, client: Redis, worker: SyncRedis) -> None:
        self.client = client
        self.worker = worker
        self.steps = Steps(worker, "m")
        self.cancellation = Cancellation(client)

    async def submit(self, *, max_depth: int = 1000, url: str | None = None, image_hash: str = IMAGE_HASH) -> str:
        record = JobRecord(status=JobStatus.PENDING, image_hash=image_hash, webhook_url=url)
        queue = DirectQueue(self.client, "m", max_depth=max_depth)
        await queue.enqueue(NewJob(job_id := uuid4(), b"image", record, request_id="r"))
        return str(job_id)

    async def submit_many(self, count: int = MANY) -> tuple[str, list[str]]:
        """Submit a leader and its followers, all with webhooks."""
        leader, followers = await self.submit(url=URL), list[str]()
        while len(followers) < count:
            # Redis must answer each within 0.8 s, also on a busy machine.
            followers += await asyncio.gather(*(self.submit(url=URL) for _ in range(min(5, count - len(followers)))))
        return leader, followers

    async def sweep(self, *, once: bool = False) -> None:
        """Sweep until nothing is left to do, like a newly started process."""
        sweep = Sweep(self.client)

        async def is_done() -> bool:
            return not await self.client.exists(keys.RUNS_PAUSE) and (not await sweep.step() or once)

        await eventually(is_done, "the sweep is done")

    def records(self, jobs: list[str]) -> list[JobRecord]:
        with self.worker.pipeline(transaction=False) as pipeline:
            for job_id in jobs:
                pipeline.hgetall(keys.job(job_id))
            return [JobRecord.from_hash(fields) for fields in pipeline.execute()]

    def statuses(self, jobs: list[str]) -> Counter[str]:
        return Counter(record.status.value for record in self.records(jobs))

    def end(self, jobs: list[str]) -> JobRecord:
        """Return the record, which is the same for all these jobs."""
        first, *others = self.records(jobs)
        assert [record for record in others if record != first] == []
        return first

    async def deliveries(self) -> set[str]:
        return {decoded(job_id) for job_id in await self.client.zrange(keys.DELIVERIES, 0, -1)}


@pytest.fixture(params=["fake", "real"])
async def stage(request: pytest.FixtureRequest, redis: SyncRedis, redis_url: str) -> AsyncIterator[Stage]:
    server = FakeServer(version=(7,))
    worker = SyncFakeRedis(server=server) if request.param == "fake" else redis
    async with FakeRedis(server=server) if request.param == "fake" else connect(redis_url) as client:
        yield Stage(client, worker)


@pytest.fixture
async def real(redis: SyncRedis, redis_url: str) -> AsyncIterator[Stage]:
    async with connect(redis_url) as client:
        yield Stage(client, redis)


async def test_followers_are_bounded_and_the_refusal_says_when_to_try_again(stage: Stage) -> None:
    await stage.submit(max_depth=1)
    followers = [await stage.submit(max_depth=1) for _ in range(FOLLOWERS_PER_PLACE)]

    with pytest.raises(QueueFull, match=r"10 jobs wait for images that others sent, .* try again in 30 s") as full:
        await stage.submit(max_depth=1)
    await stage.cancellation.cancel(UUID(followers[0]), None)

    assert full.value.retry_after_s == 30
    assert await stage.submit(max_depth=1)
    assert len(await stage.client.keys(keys.job("*"))) == 1 + FOLLOWERS_PER_PLACE + 1
    assert await stage.client.llen("rq:queue:analysis-m") == 1


async def test_ended_followers_make_room(stage: Stage) -> None:
    leader = await stage.submit(max_depth=1)
    for _ in range(FOLLOWERS_PER_PLACE):
        await stage.submit(max_depth=1)

    stage.steps.complete(leader)

    assert not await stage.client.exists(keys.following("m"))


async def test_webhooks_are_bounded_from_the_submission_on(stage: Stage) -> None:
    stage.worker.zadd(keys.DELIVERIES, {str(number): 1e10 for number in range(MAX_DELIVERIES - 2)})
    stage.worker.expire(keys.DELIVERIES, 60)

    leader, follower = await stage.submit(url=URL), await stage.submit(url=URL)
    for image_hash in (IMAGE_HASH, "2" * 64):
        with pytest.raises(TooManyDeliveries):
            await stage.submit(url=URL, image_hash=image_hash)
    await stage.submit()
    stage.steps.complete(leader)
    pending = await stage.client.zcard(keys.DELIVERIES)
    await stage.cancellation.cancel(UUID(follower), None)

    assert (pending, await stage.client.exists(keys.PROMISES)) == (MAX_DELIVERIES, 0)
    assert await stage.submit(url=URL)


async def test_followers_end_in_steps_all_with_the_same_result_and_webhook(real: Stage) -> None:
    leader, followers = await real.submit_many()

    real.steps.begin(leader)
    begun = real.statuses(followers)
    real.steps.complete(leader)
    first = real.statuses(followers)
    await real.sweep()

    assert begun == {"PROCESSING": FOLLOWERS_AT_ONCE, "PENDING": MANY - FOLLOWERS_AT_ONCE}
    assert first["COMPLETED"] == FOLLOWERS_AT_ONCE
    end = real.end([leader, *followers])
    assert (end.status, end.result) == (JobStatus.COMPLETED, RESULT)
    assert await real.deliveries() == {leader, *followers}
    assert await real.client.get(keys.answered(IMAGE_HASH)) == str(1 + MANY).encode()
    left = (keys.followers(leader), keys.followers_end(leader), keys.following("m"), keys.PROMISES)
    assert not await real.client.exists(*left)
    assert max(real.worker.ttl(keys.job(job_id)) for job_id in followers) <= keys.ENDED_JOB_TTL_S


async def test_no_script_ends_more_than_some_followers(real: Stage) -> None:
    leader, followers = await real.submit_many()
    steps = []

    real.steps.complete(leader)
    while real.statuses(followers)["PENDING"]:
        steps.append(real.statuses(followers)["COMPLETED"])
        await real.sweep(once=True)

    assert steps == [FOLLOWERS_AT_ONCE, 2 * FOLLOWERS_AT_ONCE]


async def test_runs_that_end_in_one_call_share_its_followers(real: Stage) -> None:
    hashes, records = ("2" * 64, "3" * 64), Records("m", cache_ttl_s=60)
    runs = {await real.submit(image_hash=digest): digest for digest in hashes}
    count = FOLLOWERS_AT_ONCE // 2 + 10
    followers = [await real.submit(image_hash=digest) for digest in hashes for _ in range(count)]

    with real.worker.pipeline() as pipeline:
        ends = [
            records.complete(run, JobRecord(status=JobStatus.PROCESSING, image_hash=digest), RESULT, 12.5)
            for run, digest in runs.items()
        ]
        records.write(pipeline, ends)
        pipeline.execute()
    first = real.statuses(followers)
    await real.sweep()

    assert first == {"COMPLETED": FOLLOWERS_AT_ONCE, "PENDING": 20}
    assert real.statuses([*runs, *followers]) == {"COMPLETED": 2 * count + 2}
    assert await real.client.get(keys.answered("3" * 64)) == str(count + 1).encode()


async def test_all_followers_fail_even_if_the_run_later_ends_differently(real: Stage) -> None:
    leader, followers = await real.submit_many()
    real.steps.fail(leader)

    real.steps.begin(leader)
    real.steps.complete(leader)
    await real.sweep()

    assert real.statuses(followers) == {"FAILED": MANY}
    assert await real.deliveries() == {leader, *followers}


async def test_followers_end_although_the_leader_is_deleted_meanwhile(real: Stage) -> None:
    leader, followers = await real.submit_many()
    real.steps.complete(leader)

    forgotten = await real.cancellation.cancel(UUID(leader), None)
    await real.sweep()

    assert forgotten is Outcome.FORGOTTEN
    assert real.statuses(followers) == {"COMPLETED": MANY}
    assert await real.deliveries() == set(followers)


async def test_cancelled_leader_and_follower_stay_cancelled_and_the_others_end(real: Stage) -> None:
    leader, followers = await real.submit_many()
    await real.cancellation.cancel(UUID(leader), None)
    real.steps.complete(leader)
    waiting = [job_id for job_id in followers if real.statuses([job_id])["PENDING"]]

    await real.cancellation.cancel(UUID(waiting[0]), None)
    await real.sweep()

    assert real.statuses([leader, waiting[0]]) == {"CANCELLED": 2}
    assert real.statuses(followers) == {"COMPLETED": MANY - 1, "CANCELLED": 1}


async def test_lost_run_with_many_followers_ends_in_steps_too(real: Stage) -> None:
    leader, followers = await real.submit_many()
    await real.client.delete(f"rq:job:{leader}", "rq:queue:analysis-m")
    sweep = Sweep(real.client, check_s=0, confirm_s=0)

    async def have_ended() -> bool:
        await sweep.step()
        return not await real.client.exists(keys.RUNS)

    await eventually(have_ended, "the run is over")

    end = real.end([leader, *followers])
    assert end.error
    assert end.error.code == "job_lost"
    assert await real.deliveries() == {leader, *followers}
