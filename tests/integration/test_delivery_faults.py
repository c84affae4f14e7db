"""A delivery with an unexpected error is retried with delays for a day, and does not delay others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from structlog.testing import capture_logs

from image_analysis_api.deliverer.backoff import choose_delay_s
from image_analysis_api.deliverer.outbox import LEASE_S, Outbox
from image_analysis_api.deliverer.rounds import Rounds
from image_analysis_api.outbound.urls import WebUrl
from image_analysis_api.store.client import connect, run_script
from image_analysis_common import keys
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts import jobs
from support.receivers import Handler, Receivers
from support.waiting import eventually

pytestmark = pytest.mark.anyio

AddEnded = Callable[[], Awaitable[str]]


@pytest.fixture
async def client(redis: SyncRedis, redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as client:
        yield client


@pytest.fixture
def add_ended(client: Redis) -> AddEnded:
    """Add a job that has ended and whose webhook is due."""

    async def add_ended() -> str:
        job_id, record = uuid4(), JobRecord(status=JobStatus.CANCELLED, image_hash="1" * 64, webhook_url=URL)
        await run_script(client, jobs.add_ended(str(job_id), record))
        return str(job_id)

    return add_ended


URL = "https://receiver.test/hooks"


@asynccontextmanager
async def delivering(
    client: Redis, receivers: Receivers, *, timeout_s: float = 5, **rounds: Any
) -> AsyncIterator[None]:
    running = Rounds(Outbox(client, "host"), receivers.courier(timeout_s=timeout_s), max_concurrent=8, **rounds)
    task = asyncio.create_task(running.run())
    try:
        yield
    finally:
        running.stop()
        await task


async def due_in_s(client: Redis, job_id: str) -> float:
    due_s = await client.zscore(keys.DELIVERIES, job_id)
    assert due_s is not None
    return float(due_s) - float((await client.time())[0])


def crash(_request: httpx.Request) -> httpx.Response:
    raise RuntimeError("nobody has foreseen this")


def ask_for_the_end_of_time(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(503, headers={"Retry-After": "Wed, 21 Jan 99999999999999999999 07:28:00 GMT"})


@pytest.mark.parametrize("handler", [crash, ask_for_the_end_of_time])
async def test_unexpected_error_is_retried_with_delays(client: Redis, add_ended: AddEnded, handler: Handler) -> None:
    job_id = await add_ended()
    await client.hset(keys.delivery(job_id), "attempts", 3)

    with capture_logs() as lines:
        async with delivering(client, Receivers(handler)):

            async def is_put_off() -> bool:
                return any(line["event"] == "webhook_retried" for line in lines)

            await eventually(is_put_off, "the delivery is put off")

    assert await due_in_s(client, job_id) > LEASE_S + 5  # the fourth delay is at least 51 s
    assert [line["job_id"] for line in lines if line["event"] == "webhook_retried"] == [job_id]


async def test_unexpected_error_is_given_up_after_a_day(client: Redis, add_ended: AddEnded) -> None:
    job_id = await add_ended()
    now_s, _ = await client.time()
    await client.hset(keys.delivery(job_id), "ended_s", now_s - keys.DELIVERY_PERIOD_S)

    async def is_gone() -> bool:
        return not await client.exists(keys.delivery(job_id), keys.DELIVERIES)

    with capture_logs() as lines:
        async with delivering(client, Receivers(crash)):
            await eventually(is_gone, "it is given up")

    assert [line["outcome"] for line in lines if line["event"] == "webhook_given_up"] == ["expired"]


async def test_error_in_choosing_the_delay_is_retried_with_delays(client: Redis, add_ended: AddEnded) -> None:
    def choose(attempts: int, retry_after: str) -> float:
        if retry_after:
            raise OverflowError
        return choose_delay_s(attempts)

    job_id = await add_ended()
    await client.hset(keys.delivery(job_id), "attempts", 3)
    receivers = Receivers(lambda request: httpx.Response(503, headers={"Retry-After": "7"}))

    async def is_put_off() -> bool:
        return await due_in_s(client, job_id) > LEASE_S + 5

    async with delivering(client, receivers, choose_delay_s=choose):
        await eventually(is_put_off, "the delivery is put off")

    assert receivers.received == [job_id]


@pytest.mark.parametrize("field", ["status", "ended_s"])
async def test_unreadable_delivery_is_retried_and_does_not_delay_others(
    client: Redis, add_ended: AddEnded, field: str
) -> None:
    unreadable, other = await add_ended(), await add_ended()
    await client.hset(keys.delivery(unreadable), mapping={"status": "PAUSED", field: "another form", "attempts": "3"})

    async def is_put_off() -> bool:
        return await client.zcard(keys.DELIVERIES) == 1 and await due_in_s(client, unreadable) > LEASE_S + 5

    async with delivering(client, receivers := Receivers()):
        await eventually(is_put_off, "one is delivered, and one postponed")

    assert receivers.received == [other]


SPELLINGS = {
    "receiver.test:443": [
        "https://receiver.test/a",
        "https://RECEIVER.test:443/b",
        "HTTPS://receiver.test.",
        "https://receiver.test.:0443?c",
        "http://receiver.test:443/",
        "https://receiver.test:#d",
    ],
    "receiver.test:80": ["http://receiver.test/", "http://receiver.test:80", "http://Receiver.Test.:80/"],
    "receiver.test:8080": ["http://receiver.test:8080/", "https://receiver.test.:8080/"],
    "93.184.216.34:80": ["http://93.184.216.34/", "http://93.184.216.34.:80/"],
    "[2606:4700::1111]:443": ["https://[2606:4700::1111]/", "https://[2606:4700::1111]:443/"],
}


@pytest.mark.parametrize("receiver", SPELLINGS)
async def test_host_and_port_are_one_receiver_however_they_are_written(
    client: Redis, add_ended: AddEnded, receiver: str
) -> None:
    for url in SPELLINGS[receiver]:
        WebUrl.parse(url)  # each is valid
        await client.hset(keys.delivery(await add_ended()), "webhook_url", url)

    claimed, _ = await Outbox(client, "host").claim(32, {receiver: 32})
    rest, _ = await Outbox(client, "host").claim(64, {})

    assert claimed == []
    assert {delivery.receiver for delivery in rest} == {receiver}
    assert len(rest) == len(SPELLINGS[receiver])


async def test_first_attempts_do_not_wait_behind_hosts_that_hang(client: Redis, add_ended: AddEnded) -> None:
    for number in range(50):
        delivery = keys.delivery(await add_ended())
        await client.hset(delivery, mapping={"webhook_url": f"https://{number}.hanging.test/", "attempts": 3})
    new = await add_ended()
    is_over = asyncio.Event()

    async def hang(request: httpx.Request) -> httpx.Response:
        if "hanging" in request.headers["host"]:
            await is_over.wait()
        return httpx.Response(204)

    receivers = Receivers(hang)

    async def has_arrived() -> bool:
        return new in receivers.received

    async with delivering(client, receivers, timeout_s=3600):
        await eventually(has_arrived, "the new webhook arrives")
        is_over.set()
