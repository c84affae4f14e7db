"""A host that answers with informational responses alone neither blocks the event loop nor holds a request."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from image_analysis_api.deliverer.courier import Courier, Report, Verdict
from image_analysis_api.deliverer.outbox import Delivery
from image_analysis_api.outbound.transport import MAX_HEAD_BYTES
from image_analysis_common.errors import FetchFailed
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from support.fakes import make_egress, make_fetcher
from support.listeners import Listener, image, listening
from support.receivers import SECRET

pytestmark = pytest.mark.anyio

LOOPBACK = "127.0.0.0/8"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
BURST_BYTES = 1_000_000
SENT_AT_MOST = 20
"""Bursts. The buffers of two sockets hold a few of them."""

BLOCKED_S = 0.1
"""Decoding what is read at once takes 10 ms of CPU time."""


class Flood:
    """Answers with informational responses until the client disconnects."""

    def __init__(self) -> None:
        self.bursts = 0

    async def __call__(self, listener: Listener, writer: asyncio.StreamWriter) -> None:
        burst = CONTINUE * (BURST_BYTES // len(CONTINUE))
        while self.bursts < SENT_AT_MOST:
            await listener.send(writer, burst)
            self.bursts += 1


@contextlib.asynccontextmanager
async def watching_the_loop() -> AsyncIterator[list[float]]:
    """Collect how much CPU time passes between two turns of a task of the event loop."""
    spans = list[float]()

    async def watch() -> None:
        while True:
            started_s = time.process_time()
            await asyncio.sleep(0)
            spans.append(time.process_time() - started_s)

    watching = asyncio.create_task(watch())
    yield spans
    watching.cancel()


async def test_fetch_ends_at_the_limit_and_leaves_the_loop_to_others() -> None:
    flood = Flood()
    fetcher = make_fetcher(LOOPBACK, max_bytes=100, timeout_s=60, allowed_ports=frozenset())
    async with listening(flood) as listener, watching_the_loop() as spans:
        with pytest.raises(FetchFailed, match="could not be reached"):
            await fetcher.fetch(f"http://127.0.0.1:{listener.port}/", "client")
        await asyncio.wait_for(listener.gone.wait(), 10)
    await fetcher.aclose()

    assert flood.bursts < SENT_AT_MOST
    assert max(spans) < BLOCKED_S


async def test_webhook_is_retried_later() -> None:
    courier = Courier(make_egress(LOOPBACK, allowed_ports=frozenset()), (SECRET,), timeout_s=60)
    async with listening(Flood()) as listener:
        url = f"http://127.0.0.1:{listener.port}/"
        record = JobRecord(status=JobStatus.CANCELLED, image_hash="1" * 64, webhook_url=url)
        fields = {name.encode(): value.encode() for name, value in record.to_hash().items()}

        report = await courier.attempt(Delivery(str(uuid4()), "127.0.0.1", attempts=1, age_s=0, record=fields))
    await courier.aclose()

    assert report == Report(Verdict.RETRIED, "RemoteProtocolError")


@pytest.mark.parametrize(
    "before",
    [
        CONTINUE * 100 + b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + FINAL,
        FINAL + b"X-Filler: " + b"x" * (MAX_HEAD_BYTES - 1000) + b"\r\n",
    ],
)
async def test_final_response_after_some_is_read(before: bytes) -> None:
    async def answer(listener: Listener, writer: asyncio.StreamWriter) -> None:
        await listener.send(writer, before + b"\r\nimage")

    fetcher = make_fetcher(LOOPBACK, max_bytes=100, timeout_s=60, allowed_ports=frozenset())
    async with listening(answer) as listener:
        assert await fetcher.fetch(f"http://127.0.0.1:{listener.port}/", "client") == b"image"
    await fetcher.aclose()


async def test_body_after_the_head_is_read_in_large_pieces() -> None:
    body = b"x" * 5_000_000

    async def answer(listener: Listener, writer: asyncio.StreamWriter) -> None:
        await listener.send(writer, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    fetcher = make_fetcher(LOOPBACK, max_bytes=len(body), timeout_s=60, allowed_ports=frozenset())
    async with listening(answer) as listener:
        assert await fetcher.fetch(f"http://127.0.0.1:{listener.port}/", "client") == body
        listener.answer = image
        assert await fetcher.fetch(f"http://127.0.0.1:{listener.port}/", "client") == b"image"
    await fetcher.aclose()
