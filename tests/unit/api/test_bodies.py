"""The bodies of all requests together have a bound."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from fakes import MakeClient
from image_analysis_api.bodies import BoundBodies
from image_analysis_common.errors import Unavailable
from samples import base64_body, make_png

pytestmark = pytest.mark.anyio


async def test_body_that_would_pass_the_bound_of_all_is_refused_and_room_comes_back(make_client: MakeClient) -> None:
    client = await make_client(max_image_bytes=5000, max_bodies_bytes=10_000)
    has_sent, may_end = asyncio.Event(), asyncio.Event()

    async def drip() -> AsyncIterator[bytes]:
        yield b" " * 6000
        has_sent.set()
        await may_end.wait()

    slow = asyncio.create_task(client.post("/analyze-image", content=drip()))
    await has_sent.wait()

    refused = await client.post("/analyze-image", content=b" " * 4001)
    small = await client.post("/analyze-image", json=base64_body(make_png()))
    may_end.set()
    await slow
    after = await client.post("/analyze-image", content=b" " * 4001)

    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "unavailable", "5")
    assert small.status_code == 202
    assert (slow.result().status_code, after.status_code) == (415, 415)


async def test_what_a_route_fetches_counts_until_it_has_answered() -> None:
    async def fetch(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["hold"](6)
        if scope["rest"]:
            await bound({"type": "http", "rest": scope["rest"] - 1}, receive, send)

    bound = BoundBodies(fetch, max_bytes=12)

    for _ in range(2):
        await bound({"type": "http", "rest": 1}, receive_nothing, send_nothing)
        with pytest.raises(Unavailable):
            await bound({"type": "http", "rest": 2}, receive_nothing, send_nothing)


async def receive_nothing() -> Message:
    return {"type": "http.disconnect"}


async def send_nothing(message: Message) -> None:
    pass
