"""The API's check of queued runs, on the unit tests' fake Redis and on a real one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID, uuid4

import pytest
from fakeredis import FakeRedis as SyncFakeRedis
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis
from prometheus_client import REGISTRY
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.job import JobStatus as RqStatus
from structlog.testing import capture_logs

from image_analysis_api.jobs.cancellation import Cancellation
from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.jobs.records import JobRecords
from image_analysis_api.jobs.sweep import Sweep
from image_analysis_api.store.client import connect
from image_analysis_common import keys, tasks
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from support.direct import DirectQueue
from support.replies import decoded
from support.steps import Steps
from support.waiting import eventually

pytestmark = pytest.mark.anyio

QUEUE = "rq:queue:analysis-m"
URL = "https://receiver.test/hooks"


class Stage:
    """One Redis, fake or real, with the API's, the worker's and RQ's clients."""

    def __init__(self, client: Redis, rq: SyncRedis) -> None:
        self.client = client
        self.rq = rq
        self.steps = Steps(rq, "m")
        self.queue = Queue("analysis-m", connection=rq, serializer=tasks.SERIALIZER)
        self.sweeps = [Sweep(client, check_s=0, confirm_s=0) for _ in range(2)]
        self._cancellation = Cancellation(client)

    async def submit(self, image: str = "1", *, waiting_s: float = 60, url: str | None = URL) -> str:
        record = JobRecord(status=JobStatus.PENDING, image_hash=image * 64, webhook_url=url)
        queue = DirectQueue(self.client, "m", waiting_s=waiting_s)
        await queue.enqueue(NewJob(job_id := uuid4(), b"image", record, request_id="r"))
        return str(job_id)

    async def sweep(self, steps: int = 1) -> None:
        """Let two API processes take this number of steps in total, each after the other's pause."""
        for number in range(steps):
            await eventually(self._has_paused, "the pause ends")
            await self.sweeps[number % 2].step()

    async def cancel(self, job_id: str) -> None:
        await self._cancellation.cancel(UUID(job_id), None)

    async def find(self, job_id: str) -> tuple[str, str | None]:
        record = await JobRecords(self.client, "m").find_record(UUID(job_id))
        assert record
        return record.status.value, record.error.code if record.error else None

    async def queued(self) -> list[str]:
        return [decoded(job_id) for job_id in await self.client.lrange(QUEUE, 0, -1)]

    async def deliveries(self) -> list[str]:
        return sorted(decoded(job_id) for job_id in await self.client.zrange(keys.DELIVERIES, 0, -1))

    def fetch(self, job_id: str) -> Job:
        return Job.fetch(job_id, connection=self.rq, serializer=tasks.SERIALIZER)

    def start(self, job_id: str, ttl_s: int = 60) -> None:
        """Start a job as a worker does. A negative `ttl_s` means a dead worker, except -1: RQ takes it as no expiry."""
        job = self.fetch(job_id)
        with self.rq.pipeline() as pipeline:
            Execution.create(job, ttl_s, pipeline, worker_name="w")
            job.prepare_for_execution("w", pipeline)
            pipeline.execute()
        self.steps.begin(job_id)

    async def _has_paused(self) -> bool:
        return not await self.client.exists(keys.RUNS_PAUSE)


@pytest.fixture(params=["fake", "real"])
async def stage(request: pytest.FixtureRequest, redis: SyncRedis, redis_url: str) -> AsyncIterator[Stage]:
    server = FakeServer(version=(7,))
    rq = SyncFakeRedis(server=server) if request.param == "fake" else redis
    async with FakeRedis(server=server) if request.param == "fake" else connect(redis_url) as client:
        yield Stage(client, rq)


PLACES: dict[str, Callable[[Stage, str], object]] = {
    "queue": lambda stage, job_id: stage.queue.push_job_id(job_id),
    "intermediate": lambda stage, job_id: stage.rq.rpush(stage.queue.intermediate_queue_key, job_id),
    "started": lambda stage, job_id: stage.start(job_id),
    "started, of a dead worker": lambda stage, job_id: stage.start(job_id, -2),
    "scheduled": lambda stage, job_id: stage.queue.scheduled_job_registry.add(stage.fetch(job_id), 60),
    "deferred": lambda stage, job_id: stage.queue.deferred_job_registry.add(stage.fetch(job_id), 60),
    "ready": lambda stage, job_id: stage.queue.ready_job_registry.add(stage.fetch(job_id), 60),
}


@pytest.mark.parametrize("place", PLACES)
async def test_run_that_rq_knows_is_not_ended_and_can_be_followed(stage: Stage, place: str) -> None:
    job_id = await stage.submit()
    stage.rq.lrem(QUEUE, 0, job_id)
    PLACES[place](stage, job_id)
    status = await stage.find(job_id)

    await stage.sweep(3)
    follower = await stage.submit()

    assert await stage.find(job_id) == status
    assert stage.rq.smembers(keys.followers(job_id)) == {keys.job(follower).encode()}
    assert await stage.queued() == ([job_id] if place == "queue" else [])
    stage.rq.delete(*stage.rq.keys("rq:*"))  # RQ's own registries would not expire


def ends(outcome: str, code: str) -> float:
    return REGISTRY.get_sample_value("image_analysis_jobs_total", {"outcome": outcome, "code": code}) or 0


async def test_lost_run_fails_with_its_followers_and_their_webhooks_are_due(stage: Stage) -> None:
    jobs = [await stage.submit() for _ in range(3)]
    stage.fetch(jobs[0]).delete()
    counted = ends("failed", "job_lost")

    with capture_logs() as lines:
        await stage.sweep(4)

    assert [await stage.find(job_id) for job_id in jobs] == [("FAILED", "job_lost")] * 3
    assert await stage.deliveries() == sorted(jobs)
    assert [(line["event"], line["job_id"], line["code"]) for line in lines] == [("job_failed", jobs[0], "job_lost")]
    assert ends("failed", "job_lost") == counted + 1
    assert not await stage.client.exists(keys.image(jobs[0]), keys.leader("m", "1" * 64), keys.RUNS)
    assert await stage.client.get(keys.image_bytes("m")) == b"0"


async def test_run_that_reappears_after_one_check_continues(stage: Stage) -> None:
    job_id = await stage.submit()
    stage.rq.rename(QUEUE, "compacting")
    await stage.sweep()
    stage.rq.rename("compacting", QUEUE)

    await stage.sweep(2)

    assert (await stage.find(job_id), await stage.queued()) == (("PENDING", None), [job_id])


async def test_lost_queue_is_restored(stage: Stage) -> None:
    leader, follower = await stage.submit(), await stage.submit()
    stage.rq.delete(QUEUE)
    counted = ends("failed", "job_lost")

    with capture_logs() as lines:
        await stage.sweep(3)

    assert [await stage.find(job_id) for job_id in (leader, follower)] == [("PENDING", None)] * 2
    assert await stage.queued() == [leader]
    assert [line["event"] for line in lines] == ["job_requeued"]
    assert ends("failed", "job_lost") == counted


async def test_run_that_rq_has_ended_by_itself_fails(stage: Stage) -> None:
    job_id = await stage.submit()
    stage.rq.lrem(QUEUE, 0, job_id)
    stage.start(job_id)
    job = stage.fetch(job_id)
    job.set_status(RqStatus.FAILED)
    stage.queue.started_job_registry.remove_executions(job)

    await stage.sweep(2)

    assert await stage.find(job_id) == ("FAILED", "job_lost")


async def test_lost_run_of_a_cancelled_leader_ends_for_its_followers(stage: Stage) -> None:
    leader, follower = await stage.submit(), await stage.submit()
    await stage.cancel(leader)
    stage.fetch(leader).delete()
    counted = ends("cancelled", "")

    with capture_logs() as lines:
        await stage.sweep(3)

    assert ends("cancelled", "") == counted + 1
    assert [await stage.find(job_id) for job_id in (leader, follower)] == [("CANCELLED", None), ("FAILED", "job_lost")]
    assert [(line["event"], line["code"]) for line in lines] == [("job_cancelled", "job_lost")]
    assert await stage.client.ttl(keys.job(leader)) <= keys.ENDED_JOB_TTL_S


async def test_lost_running_job_is_cancelled_at_once(stage: Stage) -> None:
    job_id = await stage.submit()
    stage.rq.lrem(QUEUE, 0, job_id)
    stage.start(job_id)
    stage.fetch(job_id).delete()

    await stage.cancel(job_id)

    assert await stage.find(job_id) == ("CANCELLED", None)


async def test_job_that_waited_too_long_fails_with_its_followers_and_their_webhooks_are_due(stage: Stage) -> None:
    young = await stage.submit("2")
    leader, follower = await stage.submit(), await stage.submit()
    await stage.client.hset(keys.job(leader), "waits_until_s", "0")  # its time is over
    counted = ends("failed", "image_expired")

    async def has_ended() -> bool:
        await stage.sweep()
        return await stage.find(leader) != ("PENDING", None)

    await eventually(has_ended, "the time is over")
    await stage.sweep()

    assert [await stage.find(job_id) for job_id in (leader, follower)] == [("FAILED", "image_expired")] * 2
    assert ends("failed", "image_expired") == counted + 1
    assert await stage.deliveries() == sorted([leader, follower])
    assert (await stage.find(young), await stage.queued()) == (("PENDING", None), [young])
    assert not await stage.client.exists(keys.image(leader), keys.leader("m", "1" * 64))
    assert await stage.client.get(keys.image_bytes("m")) == str(len(b"image")).encode()
    for job_id in (leader, follower):
        assert keys.ENDED_JOB_TTL_S - 60 < await stage.client.ttl(keys.job(job_id)) <= keys.ENDED_JOB_TTL_S
    assert stage.queue.failed_job_registry.get_job_ids() == [leader]
    assert stage.fetch(leader).get_status() is RqStatus.FAILED


async def test_record_and_image_of_a_job_outlive_its_time_to_wait(stage: Stage) -> None:
    leader, follower = await stage.submit(), await stage.submit()

    lasting = (keys.job(leader), keys.job(follower), keys.image(leader), f"rq:job:{leader}", keys.followers(leader))
    lifetimes_s = [await stage.client.ttl(key) for key in (*lasting, keys.RUNS, keys.PROMISES)]

    assert min(lifetimes_s) > keys.WAITING_JOB_TTL_S + 12 * 3600


async def test_job_that_waited_too_long_is_not_followed_any_more(stage: Stage) -> None:
    await stage.submit(waiting_s=0)

    again = await stage.submit()

    assert (await stage.queued())[-1] == again
    assert await stage.client.hget(keys.job(again), "follows") is None


@pytest.mark.parametrize(("ttl_s", "end"), [(60, ("PROCESSING", None)), (-2, ("FAILED", "image_expired"))])
async def test_started_job_that_waited_too_long_fails_only_if_its_worker_is_dead(
    stage: Stage, ttl_s: int, end: tuple[str, str | None]
) -> None:
    job_id = await stage.submit(waiting_s=0)
    stage.rq.lrem(QUEUE, 0, job_id)
    stage.start(job_id, ttl_s)

    await stage.sweep(3)

    assert await stage.find(job_id) == end
    assert stage.queue.started_job_registry.get_job_count(cleanup=False) == (1 if ttl_s > 0 else 0)
    stage.rq.delete(*stage.rq.keys("rq:*"))


async def test_job_that_was_just_popped_when_its_time_was_over_is_run(stage: Stage) -> None:
    job_id = await stage.submit(waiting_s=0)
    stage.rq.lmove(QUEUE, stage.queue.intermediate_queue_key)
    await stage.sweep()

    stage.rq.delete(stage.queue.intermediate_queue_key)
    stage.start(job_id)
    await stage.sweep(2)
    stage.steps.complete(job_id)

    assert await stage.find(job_id) == ("COMPLETED", None)
    stage.rq.delete(*stage.rq.keys("rq:*"))


async def test_ended_run_is_not_checked_again(stage: Stage) -> None:
    job_id = await stage.submit()
    stage.steps.complete(job_id)

    await stage.sweep()

    assert not await stage.client.exists(keys.RUNS)


async def test_processes_share_the_sweep(stage: Stage) -> None:
    await stage.submit(waiting_s=0)

    with capture_logs() as lines:
        await asyncio.gather(*(sweep.step() for sweep in stage.sweeps for _ in range(3)))

    assert [line["event"] for line in lines] == ["job_failed"]


async def test_sweep_goes_on_after_an_outage() -> None:
    server = FakeServer(version=(7,))
    async with FakeRedis(server=server) as client:
        stage = Stage(client, SyncFakeRedis(server=server))
        job_id = await stage.submit(waiting_s=0)
        server.connected = False
        with capture_logs() as lines:
            sweeping = asyncio.create_task(Sweep(client, check_s=0).run())

            async def has_noticed() -> bool:
                return [line["event"] for line in lines] == ["sweep_interrupted"]

            async def has_ended() -> bool:
                return await stage.find(job_id) == ("FAILED", "image_expired")

            await eventually(has_noticed, "the sweep notices")
            server.connected = True
            await eventually(has_ended, "the sweep goes on")
            sweeping.cancel()
