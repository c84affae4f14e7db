"""Waiting clients are notified, even if their shared connection to Redis fails."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.jobs.records import JobRecords
from image_analysis_api.store.client import connect
from image_analysis_api.waiting.room import Waiter, WaitingRoom
from image_analysis_api.waiting.subscription import SILENCE_S, Subscription
from image_analysis_common import keys
from image_analysis_common.errors import JobNotFound, UnreadableRecord
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from support.direct import DirectQueue
from support.steps import Steps
from support.waiting import eventually

pytestmark = pytest.mark.anyio

Submit = Callable[[], Awaitable[UUID]]


@pytest.fixture
async def client(redis: SyncRedis, redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as client:
        yield client


@pytest.fixture
def submit(client: Redis) -> Submit:
    async def submit() -> UUID:
        job_id, record = uuid4(), JobRecord(status=JobStatus.PENDING, image_hash=uuid4().hex * 2)
        await DirectQueue(client, "m").enqueue(NewJob(job_id, b"image", record, request_id="r"))
        return job_id

    return submit


@pytest.fixture
async def room(client: Redis) -> AsyncIterator[WaitingRoom]:
    room = WaitingRoom(client, JobRecords(client, "m"), max_waiters=10, max_per_client=10)
    yield room
    await room.aclose()


@pytest.fixture
def steps(redis: SyncRedis) -> Steps:
    return Steps(redis, "m")


async def wait_for_end(room: WaitingRoom, job_id: UUID) -> list[JobStatus]:
    async with room.enter(job_id, None, "client") as waiter:
        await waiter.wait_for_end(30)
        return list(waiter.progress.history)


async def subscribers(client: Redis) -> int:
    return int((await client.pubsub_numsub(keys.CHANGES))[0][1])


async def is_heard(client: Redis) -> bool:
    return await subscribers(client) == 1


ENDED = [JobStatus.PENDING, JobStatus.PROCESSING, JobStatus.COMPLETED]


async def test_all_waiters_share_one_subscription(
    room: WaitingRoom, client: Redis, submit: Submit, steps: Steps
) -> None:
    jobs = [await submit() for _ in range(5)]
    waits = [asyncio.create_task(wait_for_end(room, job_id)) for job_id in [*jobs, *jobs]]
    await eventually(lambda: is_heard(client), "the room listens")

    for job_id in jobs:
        steps.begin(str(job_id))
        steps.complete(str(job_id))

    assert await asyncio.gather(*waits) == [ENDED] * 10
    assert await subscribers(client) == 1
    assert len(room) == 0


async def test_steps_of_a_cut_subscription_are_not_missed(
    room: WaitingRoom, client: Redis, redis: SyncRedis, submit: Submit, steps: Steps
) -> None:
    job_id = await submit()
    wait = asyncio.create_task(wait_for_end(room, job_id))
    await eventually(lambda: is_heard(client), "the room listens")

    with redis.pipeline() as pipeline:
        pipeline.client_kill_filter(_type="pubsub")
        pipeline.execute()
    steps.begin(str(job_id))
    steps.complete(str(job_id))

    assert await wait == ENDED


async def test_no_wait_hangs_after_an_outage_of_redis(
    room: WaitingRoom, client: Redis, redis: SyncRedis, submit: Submit, steps: Steps
) -> None:
    job_id, server = await submit(), redis.info("server")["process_id"]
    wait = asyncio.create_task(wait_for_end(room, job_id))
    await eventually(lambda: is_heard(client), "the room listens")

    os.kill(server, signal.SIGSTOP)
    await asyncio.wait([wait], timeout=2 * SILENCE_S + 1)
    os.kill(server, signal.SIGCONT)
    steps.begin(str(job_id))
    steps.complete(str(job_id))

    assert await wait == ENDED


@pytest.mark.parametrize("kept", ["PENDING", "PENDING PROCESSING PENDING"])
async def test_end_is_not_missed_after_a_failover_that_undid_steps(
    room: WaitingRoom, redis: SyncRedis, submit: Submit, steps: Steps, kept: str
) -> None:
    job_id, seen = await submit(), list[JobStatus]()
    for step in (steps.begin, steps.retry, steps.begin):
        step(str(job_id))

    async def follow(waiter: Waiter) -> None:
        async for step in waiter.steps():
            assert step is not None
            seen.append(waiter.progress.history[step])

    async def has_seen_all() -> bool:
        return len(seen) == 4

    async with room.enter(job_id, None, "client") as waiter:
        following = asyncio.create_task(follow(waiter))
        await eventually(has_seen_all, "the client has every step so far")
        redis.hset(keys.job(str(job_id)), mapping={"status": "PENDING", "history": kept})
        redis.publish(keys.CHANGES, str(job_id))
        if kept == "PENDING":
            steps.begin(str(job_id))
        steps.fail(str(job_id))
        await asyncio.wait_for(asyncio.gather(following, waiter.wait_for_end(5)), 5)

    assert seen == [*map(JobStatus, ("PENDING", "PROCESSING", "PENDING", "PROCESSING", "FAILED"))]


async def test_wait_for_an_ended_job_returns_at_once(room: WaitingRoom, submit: Submit, steps: Steps) -> None:
    job_id = await submit()
    steps.begin(str(job_id))
    steps.complete(str(job_id))

    assert await asyncio.wait_for(wait_for_end(room, job_id), 1) == ENDED


async def test_job_that_is_lost_with_redis_is_not_waited_for(
    room: WaitingRoom, client: Redis, redis: SyncRedis, submit: Submit
) -> None:
    wait = asyncio.create_task(wait_for_end(room, await submit()))
    await eventually(lambda: is_heard(client), "the room listens")

    redis.flushall()
    redis.client_kill_filter(_type="pubsub")

    with pytest.raises(JobNotFound):
        await wait


async def test_stream_shows_signs_of_life_and_ends_at_its_age(room: WaitingRoom, submit: Submit) -> None:
    async with room.enter(await submit(), None, "client") as waiter:
        steps = list[int | None]()
        async for step in waiter.steps(keep_alive_s=0.02):
            steps.append(step)
            if len(steps) == 3:
                break
        later = [step async for step in waiter.steps(1, keep_alive_s=0.02, max_age_s=0.05)]

    assert steps == [0, None, None]
    assert {*later} <= {None}
    assert not waiter.has_ended


async def test_subscription_ends_without_waiters(client: Redis) -> None:
    changes = Subscription(client, lambda _: None, idle_s=0)
    await changes.listen()
    heard = await subscribers(client)
    changes.rest()

    async def is_over() -> bool:
        return await subscribers(client) == 0

    await eventually(is_over, "the subscription ends")
    await changes.listen()
    assert (heard, await subscribers(client)) == (1, 1)
    await changes.aclose()


async def test_unknown_message_ends_no_present_or_later_wait(
    room: WaitingRoom, client: Redis, redis: SyncRedis, submit: Submit, steps: Steps
) -> None:
    first, second = await submit(), await submit()
    wait = asyncio.create_task(wait_for_end(room, first))
    await eventually(lambda: is_heard(client), "the room listens")

    for message in (b"\xff\xfe", b"", b"x" * 100_000, b"{}"):
        redis.publish(keys.CHANGES, message)
    steps.begin(str(first))
    steps.complete(str(first))
    ends = [await asyncio.wait_for(wait, 10)]
    steps.begin(str(second))
    steps.complete(str(second))
    ends.append(await wait_for_end(room, second))

    assert ends == [ENDED, ENDED]


async def test_unexpected_error_does_not_end_the_subscription(client: Redis, redis: SyncRedis) -> None:
    noted: list[str | None] = []

    def note(job_id: str | None) -> None:
        noted.append(job_id)
        if job_id == "first":
            raise RuntimeError("nobody has foreseen this")

    async def is_noted() -> bool:
        redis.publish(keys.CHANGES, "second")
        return "second" in noted

    changes = Subscription(client, note)
    await changes.listen()

    redis.publish(keys.CHANGES, "first")

    await eventually(is_noted, "it listens again")
    await changes.listen()
    await changes.aclose()


async def test_unreadable_record_does_not_affect_waits_for_other_jobs(
    room: WaitingRoom, client: Redis, redis: SyncRedis, submit: Submit, steps: Steps
) -> None:
    jobs = [await submit() for _ in range(9)]
    waits = [asyncio.create_task(wait_for_end(room, job_id)) for job_id in jobs]

    async def all_wait() -> bool:
        return len(room) == len(jobs) and await is_heard(client)

    await eventually(all_wait, "all wait")
    redis.hset(keys.job(str(jobs[4])), "status", "PAUSED")
    with redis.pipeline() as pipeline:  # at nearly the same time, so that they are read together
        for job_id in jobs:
            pipeline.publish(keys.CHANGES, str(job_id))
        pipeline.execute()
    for job_id in jobs[:4] + jobs[5:]:
        steps.begin(str(job_id))
        steps.complete(str(job_id))
    ends = await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 10)

    assert [type(end) for end in ends if not isinstance(end, list)] == [UnreadableRecord]
    assert ends[:4] + ends[5:] == [ENDED] * 8
