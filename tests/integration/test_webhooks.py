"""Webhooks on a real Redis: every end of a job is delivered at least once, and rarely twice."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from structlog.testing import capture_logs

from image_analysis_api.deliverer.outbox import Outbox
from image_analysis_api.deliverer.rounds import Rounds
from image_analysis_api.jobs.cancellation import Cancellation, Outcome
from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.jobs.records import JobRecords
from image_analysis_api.responses import AnalysisStatus
from image_analysis_api.store.client import connect, run_script
from image_analysis_common import keys
from image_analysis_common.models import CachedResult, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts import jobs
from image_analysis_common.scripts.deliveries import MAX_SCANNED
from support.direct import DirectQueue
from support.receivers import Receivers, read
from support.replies import decoded
from support.steps import RESULT, Steps
from support.waiting import eventually

pytestmark = pytest.mark.anyio

URL = "https://receiver.test/hooks"
SOON_S = 0.05


class Stage:
    """Jobs in one Redis, with the API's and the worker's clients."""

    def __init__(self, client: Redis, worker: SyncRedis) -> None:
        self.client = client
        self.steps = Steps(worker, "m")
        self._queue = DirectQueue(client, "m")
        self._cancellation = Cancellation(client)

    async def submit(self, *, image: str = "1", url: str | None = URL, owner: str | None = None) -> str:
        record = JobRecord(status=JobStatus.PENDING, image_hash=image * 64, webhook_url=url, owner=owner)
        await self._queue.enqueue(NewJob(job_id := uuid4(), b"image", record, request_id="r"))
        return str(job_id)

    async def add_ended(self, count: int, *, url: str = URL) -> list[str]:
        """Add jobs that were answered with a cached result."""
        record = JobRecord(status=JobStatus.PENDING, image_hash="1" * 64, webhook_url=url)
        ended = record.completed_from(CachedResult(result=RESULT, processing_time_ms=12.5))
        job_ids = [uuid4() for _ in range(count)]
        for job_id in job_ids:
            await run_script(self.client, jobs.add_ended(str(job_id), ended))
        return list(map(str, job_ids))

    async def cancel(self, job_id: str) -> Outcome:
        return await self._cancellation.cancel(UUID(job_id), None)

    async def pending(self) -> set[str]:
        return {decoded(job_id) for job_id in await self.client.zrange(keys.DELIVERIES, 0, -1)}

    async def is_empty(self) -> bool:
        return not await self.client.exists(keys.DELIVERIES) and not await self.client.keys("analysis_delivery:*")

    async def status(self, job_id: str) -> bytes:
        """The answer of GET /analysis-status."""
        record = await JobRecords(self.client, "m").find_record(UUID(job_id))
        assert record
        return AnalysisStatus.of(UUID(job_id), record).model_dump_json().encode()

    @asynccontextmanager
    async def delivering(self, receivers: Receivers, *, grace_s: float = 5, **courier: Any) -> AsyncIterator[Rounds]:
        rounds = Rounds(
            Outbox(self.client, "host"),
            receivers.courier(**courier),
            max_concurrent=8,
            grace_s=grace_s,
            choose_delay_s=lambda attempts, retry_after: SOON_S,
        )
        running = asyncio.create_task(rounds.run())
        try:
            yield rounds
        finally:
            rounds.stop()
            await running


@pytest.fixture
async def stage(redis: SyncRedis, redis_url: str) -> AsyncIterator[Stage]:
    async with connect(redis_url) as client:
        yield Stage(client, redis)


async def complete(stage: Stage) -> str:
    job_id = await stage.submit()
    stage.steps.begin(job_id)
    stage.steps.complete(job_id)
    return job_id


async def fail(stage: Stage) -> str:
    job_id = await stage.submit()
    stage.steps.fail(job_id)
    return job_id


async def cancel_waiting(stage: Stage) -> str:
    job_id = await stage.submit()
    await stage.cancel(job_id)
    return job_id


async def cancel_running(stage: Stage) -> str:
    job_id = await stage.submit()
    await stage.client.lmove("rq:queue:analysis-m", "rq:queue:analysis-m:intermediate")
    stage.steps.begin(job_id)
    await stage.cancel(job_id)
    stage.steps.complete(job_id)
    return job_id


async def cancel_follower(stage: Stage) -> str:
    await stage.submit(url=None)
    return await cancel_waiting(stage)


async def cancel_leader(stage: Stage) -> str:
    leader = await stage.submit()
    await stage.submit(url=None)
    await stage.cancel(leader)
    stage.steps.complete(leader)
    return leader


async def follow(stage: Stage) -> str:
    leader, follower = await stage.submit(url=None), await stage.submit()
    stage.steps.complete(leader)
    return follower


async def answer_from_cache(stage: Stage) -> str:
    [job_id] = await stage.add_ended(1)
    return job_id


ENDS: dict[Callable[[Stage], Awaitable[str]], str] = {
    complete: "COMPLETED",
    fail: "FAILED",
    cancel_waiting: "CANCELLED",
    cancel_running: "CANCELLED",
    cancel_follower: "CANCELLED",
    cancel_leader: "CANCELLED",
    follow: "COMPLETED",
    answer_from_cache: "COMPLETED",
}


@pytest.mark.parametrize("end", ENDS)
async def test_every_end_is_delivered_once_with_the_body_of_the_status(
    stage: Stage, end: Callable[[Stage], Awaitable[str]]
) -> None:
    receivers = Receivers()

    job_id = await end(stage)
    assert await stage.pending() == {job_id}
    async with stage.delivering(receivers):
        await eventually(stage.is_empty, "the webhook is delivered")

    [request] = receivers.requests
    assert request.content == await stage.status(job_id)
    assert read(request)["status"] == ENDS[end]
    assert request.headers["webhook-id"] == f"msg_{job_id}"


async def test_delivery_lasts_longer_than_the_record_but_at_most_a_day(stage: Stage) -> None:
    job_id = await complete(stage)

    for key in (keys.delivery(job_id), keys.DELIVERIES):
        assert keys.DELIVERY_PERIOD_S < await stage.client.ttl(key) <= keys.DELIVERY_TTL_S
    assert await stage.client.ttl(keys.job(job_id)) <= keys.ENDED_JOB_TTL_S


async def test_job_without_a_webhook_leaves_no_delivery(stage: Stage) -> None:
    job_id = await stage.submit(url=None)

    stage.steps.complete(job_id)

    assert await stage.is_empty()


async def test_list_of_deliveries_stays_short_without_a_deliverer(stage: Stage) -> None:
    await stage.client.zadd(keys.DELIVERIES, {"long ago": 1})

    job_id = await complete(stage)

    assert await stage.pending() == {job_id}


async def test_deleted_job_is_not_delivered(stage: Stage) -> None:
    job_id = await complete(stage)

    assert await stage.cancel(job_id) is Outcome.FORGOTTEN

    assert await stage.is_empty()


async def test_job_forgotten_between_two_attempts_stays_forgotten(stage: Stage) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def handler(request: httpx.Request) -> httpx.Response:
        asked.set()
        await go_on.wait()
        return httpx.Response(503)

    job_id = await complete(stage)
    async with stage.delivering(receivers := Receivers(handler)) as rounds:
        await asked.wait()
        await stage.cancel(job_id)
        go_on.set()
        rounds.stop()

    assert await stage.is_empty()
    assert receivers.received == [job_id]


async def test_failed_delivery_is_retried_with_the_same_id(stage: Stage) -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    answers = [broken, *(lambda request, status=status: httpx.Response(status) for status in (500, 503, 429, 200))]
    receivers = Receivers(lambda request: answers.pop(0)(request))

    job_id = await complete(stage)
    with capture_logs() as lines:
        async with stage.delivering(receivers):
            await eventually(stage.is_empty, "the webhook is delivered")

    assert receivers.received == [job_id] * 5
    causes = [(line["event"], line["cause"]) for line in lines if "cause" in line]
    assert causes == [("webhook_retried", cause) for cause in ("ConnectError", "500", "503", "429")] + [
        ("webhook_delivered", "200")
    ]
    assert "hooks" not in str(lines)


@pytest.mark.parametrize("status", [301, 302, 400, 401, 404, 410, 422])
async def test_receiver_that_rejects_a_webhook_gets_no_second_attempt(stage: Stage, status: int) -> None:
    receivers = Receivers(lambda request: httpx.Response(status, headers={"location": "https://elsewhere.test/"}))

    await complete(stage)
    async with stage.delivering(receivers):
        await eventually(stage.is_empty, "it is given up")

    assert len(receivers.requests) == 1


async def test_receiver_at_a_private_address_is_never_called(stage: Stage) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["10.0.0.1"]

    await complete(stage)
    with capture_logs() as lines:
        async with stage.delivering(receivers := Receivers(), resolve=resolve):
            await eventually(stage.is_empty, "it is given up")

    assert receivers.requests == []
    assert [line["outcome"] for line in lines if line["event"] == "webhook_given_up"] == ["refused"]


@pytest.mark.parametrize("fault", [socket.EAI_NONAME, socket.EAI_AGAIN])
async def test_name_that_is_not_found_is_looked_up_again(stage: Stage, fault: int) -> None:
    answers: list[OSError | list[str]] = [socket.gaierror(fault, "no such name"), ["198.51.100.1"]]

    async def resolve(host: str, port: int) -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    job_id = await complete(stage)
    async with stage.delivering(receivers := Receivers(), resolve=resolve):
        await eventually(stage.is_empty, "the webhook is delivered")

    assert (receivers.received, answers) == ([job_id], [])


async def test_delivery_is_given_up_after_a_day(stage: Stage) -> None:
    job_id = await complete(stage)
    now_s, _ = await stage.client.time()
    await stage.client.hset(keys.delivery(job_id), "ended_s", now_s - keys.DELIVERY_PERIOD_S)

    with capture_logs() as lines:
        async with stage.delivering(receivers := Receivers(lambda request: httpx.Response(500))):
            await eventually(stage.is_empty, "it is given up")

    assert receivers.received == [job_id]
    assert [line["outcome"] for line in lines if line["event"] == "webhook_given_up"] == ["expired"]


async def test_two_deliverers_share_the_work_without_duplicates(stage: Stage) -> None:
    first, second = Receivers(), Receivers()

    job_ids = await stage.add_ended(200)
    async with stage.delivering(first), stage.delivering(second):
        await eventually(stage.is_empty, "all are delivered")

    assert Counter(first.received + second.received) == Counter(job_ids)
    assert first.received
    assert second.received


async def test_slow_receiver_does_not_delay_others(stage: Stage) -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        if request.headers["host"] == "slow.test":
            await asyncio.Event().wait()
        return httpx.Response(200)

    receivers = Receivers(handler)
    await stage.add_ended(2 * MAX_SCANNED, url="https://slow.test/")
    quick = await stage.add_ended(20)

    async def is_delivered() -> bool:
        return set(quick) <= set(receivers.received)

    async with stage.delivering(receivers, grace_s=0, timeout_s=60):
        await eventually(is_delivered, "the quick one is delivered")
        asked = Counter(request.headers["host"] for request in receivers.requests)

    assert asked["slow.test"] <= 4  # half of eight at a time


async def test_deliveries_of_a_dead_deliverer_are_taken_over(stage: Stage) -> None:
    job_id = await complete(stage)
    dead = Outbox(stage.client, "dead", lease_s=0.3)
    [taken], _ = await dead.claim(1, {})

    async with stage.delivering(receivers := Receivers()):
        await eventually(stage.is_empty, "the lease runs out")

    await dead.retry(taken, 0)  # the first deliverer was only slow, so its delivery counts
    assert receivers.received == [job_id]
    assert await stage.is_empty()


async def test_deliverer_without_its_lease_changes_nothing(stage: Stage) -> None:
    await complete(stage)
    outbox = Outbox(stage.client, "host", lease_s=-1)
    [lost], _ = await outbox.claim(1, {})
    [held], _ = await Outbox(stage.client, "other").claim(1, {})

    await outbox.retry(lost, 0)

    assert (lost.attempts, held.attempts) == (1, 2)
    assert (await outbox.claim(1, {}))[0] == []


async def test_stopped_deliverer_returns_unfinished_deliveries(stage: Stage) -> None:
    asked = asyncio.Event()

    async def handler(request: httpx.Request) -> httpx.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    job_id = await complete(stage)
    async with stage.delivering(Receivers(handler), grace_s=0.05):
        await asked.wait()
    async with stage.delivering(receivers := Receivers()):
        await eventually(stage.is_empty, "the next deliverer tells it")

    assert receivers.received == [job_id]


async def test_deliverer_survives_a_redis_that_refuses_commands(stage: Stage, redis: SyncRedis) -> None:
    with capture_logs() as lines:
        async with stage.delivering(receivers := Receivers()):
            redis.config_set("min-replicas-to-write", 1)

            async def has_noticed() -> bool:
                return any(line["event"] == "store_unavailable" for line in lines)

            await eventually(has_noticed, "the deliverer notices")
            redis.config_set("min-replicas-to-write", 0)
            job_id = await complete(stage)
            await eventually(stage.is_empty, "the webhook is delivered")

    assert receivers.received == [job_id]
    assert [line["event"] for line in lines if line["event"].startswith("store_")] == [
        "store_unavailable",
        "store_available",
    ]
