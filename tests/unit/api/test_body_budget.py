"""The bodies of all requests together are limited."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from hashlib import sha256

import httpx
import pytest
from fakeredis.aioredis import FakeRedis
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from image_analysis_api.server.body_budget import COLLECT_BYTES, BodyBudget
from image_analysis_api.waiting.room import Waiter, WatchedJob, dismissed_on_disconnect
from image_analysis_common import keys
from image_analysis_common.errors import Unavailable
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord, Progress
from support.fakes import FakeFetcher, MakeApp, MakeClient
from support.replies import decoded
from support.samples import base64_body, make_png
from support.steps import Steps
from support.waiting import eventually

pytestmark = pytest.mark.anyio

URL = "https://images.test/1.png"


class SlowBody:
    """The body of a request: pieces of 6000 bytes, and no end before `may_end` is set."""

    def __init__(self, pieces: int = 1) -> None:
        self._pieces = pieces
        self.has_sent, self.may_end = asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._pieces):
            yield b" " * 6000
        self.has_sent.set()
        await self.may_end.wait()


async def test_body_beyond_the_common_limit_is_refused_until_others_end(make_client: MakeClient) -> None:
    client = await make_client(max_image_bytes=5000, max_bodies_bytes=10_000)
    body = SlowBody()
    json = {"Content-Type": "application/json"}
    slow = asyncio.create_task(client.post("/analyze-image", content=body, headers=json))
    await body.has_sent.wait()

    refused = await client.post("/analyze-image", content=b" " * 4001)
    small = await client.post("/analyze-image", json=base64_body(make_png()))
    body.may_end.set()
    await slow
    after = await client.post("/analyze-image", content=b" " * 4001)

    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "unavailable", "5")
    assert small.status_code == 202
    assert (slow.result().status_code, after.status_code) == (400, 415)


async def test_what_a_route_fetches_counts_until_it_has_answered() -> None:
    async def fetch(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["hold"](6)
        if scope["rest"]:
            await bound({"type": "http", "rest": scope["rest"] - 1}, receive, send)

    bound = BodyBudget(fetch, max_bytes=12)

    for _ in range(2):
        await bound({"type": "http", "rest": 1}, receive_nothing, send_nothing)
        with pytest.raises(Unavailable):
            await bound({"type": "http", "rest": 2}, receive_nothing, send_nothing)


async def test_body_does_not_count_after_its_answer_has_begun() -> None:
    """A client that does not read its answer does not use up the budget."""
    is_sending, may_end = asyncio.Event(), asyncio.Event()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200})

    async def receive() -> Message:
        return {"type": "http.request", "body": b"12345678"}

    async def send_slowly(message: Message) -> None:
        is_sending.set()
        await may_end.wait()

    bound = BodyBudget(answer, max_bytes=12)
    slow = asyncio.create_task(bound({"type": "http"}, receive, send_slowly))
    await is_sending.wait()

    await bound({"type": "http"}, receive, send_nothing)
    may_end.set()
    await slow


async def test_body_does_not_count_while_its_client_waits(
    app: FastAPI, client: httpx.AsyncClient, steps: Steps, redis: FakeRedis
) -> None:
    async def is_waiting() -> bool:
        return len(app.state.services.waiting_room) == 1

    waiting = asyncio.create_task(post(client, Prefer="wait=30"))
    await eventually(is_waiting, "the client waits")

    assert (await post(client)).status_code == 202
    [key] = [key async for key in redis.scan_iter(keys.leader("*", "*"))]
    steps.complete(decoded(await redis.get(key)))
    assert (await waiting).status_code == 200


@pytest.mark.parametrize("path", ["/analysis-status/{}?wait=30", "/analysis-status/{}/events"])
async def test_body_of_a_waiting_get_does_not_count(client: httpx.AsyncClient, steps: Steps, path: str) -> None:
    body = SlowBody(pieces=3)
    job_id = (await post(client)).json()["job_id"]
    waiting = asyncio.create_task(client.request("GET", path.format(job_id), content=body))
    await asyncio.wait_for(body.has_sent.wait(), 10)

    other = await post(client)
    body.may_end.set()
    steps.complete(job_id)

    assert other.status_code == 202
    assert (await waiting).status_code == 200


async def test_error_while_a_client_waits_ends_its_wait() -> None:
    pending = JobRecord(status=JobStatus.PENDING, image_hash="0" * 64)
    waiter = Waiter(WatchedJob(Progress(record=pending, history=(JobStatus.PENDING,))))

    async def receive() -> Message:
        raise Unavailable

    async with dismissed_on_disconnect(waiter, receive):
        await asyncio.wait_for(waiter.wait_for_end(30), 10)


async def test_fetched_image_counts_while_it_is_fetched(make_client: MakeClient, fetcher: FakeFetcher) -> None:
    client = await make_client(max_image_bytes=5000, max_bodies_bytes=10_000)
    fetcher.answers[URL] = make_png().ljust(5000, b"\0")
    body = SlowBody()
    json = {"Content-Type": "application/json"}
    slow = asyncio.create_task(client.post("/analyze-image", content=body, headers=json))
    await body.has_sent.wait()

    refused = await client.post("/analyze-image", json={"image_url": URL})
    body.may_end.set()
    await slow
    accepted = [await client.post("/analyze-image", json={"image_url": URL}) for _ in range(3)]

    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert [answer.status_code for answer in accepted] == [202] * 3


async def test_what_a_route_drops_does_not_count_and_what_it_drops_late_counts_once() -> None:
    async def fetch(scope: Scope, receive: Receive, send: Send) -> None:
        hold = scope["state"]["hold"]
        for _ in range(3):
            hold(6)
            hold(-6)
        hold(6)
        await send({"type": "http.response.start", "status": 200})
        hold(-6)
        with pytest.raises(Unavailable):
            hold(7)

    bound = BodyBudget(fetch, max_bytes=6)

    for _ in range(2):
        await bound({"type": "http"}, receive_nothing, send_nothing)


class Reader:
    """A route behind the budget. A request keeps its bytes until it is ended; `bodies` has those that still run."""

    def __init__(self, max_bytes: int) -> None:
        self._bound = BodyBudget(self._route, max_bytes=max_bytes, client_of=lambda scope: scope["client"])
        self.bodies: list[tuple[Callable[[int], None], asyncio.Event, asyncio.Task[None]]] = []

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["begun"].set_result(scope["state"]["hold"])
        await scope["end"].wait()

    async def open(self, client: str, size_bytes: int) -> Callable[[int], None]:
        begun, end = asyncio.get_running_loop().create_future(), asyncio.Event()
        scope = {"type": "http", "client": client, "begun": begun, "end": end}
        task = asyncio.create_task(self._bound(scope, receive_nothing, send_nothing))
        self.bodies.append((await begun, end, task))
        self.bodies[-1][0](size_bytes)
        return self.bodies[-1][0]

    async def end_oldest(self) -> None:
        _, end, task = self.bodies.pop(0)
        end.set()
        await task


async def test_further_bodies_of_a_client_leave_room_for_others() -> None:
    reader = Reader(max_bytes=100)

    first, second = await reader.open("one", 20), await reader.open("one", 40)
    with pytest.raises(Unavailable):
        second(1)
    with pytest.raises(Unavailable):
        await reader.open("one", 1)
    await reader.open("other", 25)
    first(15)  # beyond half of the budget: the oldest body may have all that is left
    with pytest.raises(Unavailable):
        first(1)

    await reader.end_oldest()
    second(8)  # it is the oldest now
    with pytest.raises(Unavailable):
        await reader.open("one", 27)
    await reader.open("one", 26)
    while reader.bodies:
        await reader.end_oldest()
    await reader.open("other", 100)
    await reader.end_oldest()


@pytest.mark.parametrize(("sender", "status"), [("alice", 503), ("bob", 400)])
async def test_owner_of_a_key_is_the_client_of_a_body(make_client: MakeClient, sender: str, status: int) -> None:
    entries = ",".join(f"{owner}:{sha256(owner.encode()).hexdigest()}" for owner in ("alice", "bob"))
    client = await make_client(max_image_bytes=5000, max_bodies_bytes=20_000, api_keys=entries)
    body = SlowBody()
    headers = {"Content-Type": "application/json", "X-API-Key": "alice"}
    slow = asyncio.create_task(client.post("/analyze-image", content=body, headers=headers))
    await body.has_sent.wait()

    other = await client.post("/analyze-image", content=b" " * 7001, headers=headers | {"X-API-Key": sender})
    body.may_end.set()
    await slow

    assert (other.status_code, slow.result().status_code) == (status, 400)


@pytest.fixture
def app(make_app: MakeApp) -> FastAPI:
    return make_app(max_image_bytes=5000, max_bodies_bytes=10_000)


async def post(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    image = make_png().ljust(5000, b"\0")
    return await client.post("/analyze-image", files={"file": image}, headers=headers)


async def receive_nothing() -> Message:
    return {"type": "http.disconnect"}


async def send_nothing(message: Message) -> None:
    pass


async def test_garbage_is_collected_after_many_bytes_of_bodies() -> None:
    collections = list[str]()
    gc.disable()
    gc.callbacks.append(lambda phase, _info: collections.append(phase))

    async def fetch(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["hold"](COLLECT_BYTES // 2)

    bound = BodyBudget(fetch, max_bytes=COLLECT_BYTES)
    counts = []
    for _ in range(4):
        await bound({"type": "http"}, receive_nothing, send_nothing)
        counts.append(collections.count("start"))
    gc.enable()
    gc.callbacks.pop()

    assert counts == [0, 0, 1, 1]
