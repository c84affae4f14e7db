"""No request leaves its body in a cycle of objects: only the garbage collector, which runs rarely, would free it."""

import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fakeredis.aioredis import FakeRedis

from image_analysis_api.app import create_app
from image_analysis_api.settings import ApiSettings
from image_analysis_api.store.client import connect
from support.announcements import announce
from support.fakes import MakeClient
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio

BODY_BYTES = 100_000
"""More than the app, the client or a test keeps of anything else."""

LARGE_PNG, *SMALL_PNGS = make_png() + bytes(BODY_BYTES), make_png(1), make_png(2)


@pytest.fixture
def garbage() -> Iterator[list[Any]]:
    """The objects of all cycles that the collector found since the test began."""
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()


def bodies_in(garbage: list[Any]) -> list[int]:
    """Return the sizes of the bodies that these objects hold; httpx's own requests hold theirs, too."""
    gc.collect()
    ours = [thing for thing in garbage if not type(thing).__module__.startswith("httpx")]
    held = {id(part): part for thing in ours for part in (thing, *gc.get_referents(thing))}
    return [len(part) for part in held.values() if isinstance(part, bytes | bytearray | str) and len(part) > BODY_BYTES]


def pieces(number: int) -> AsyncIterator[bytes]:
    async def send() -> AsyncIterator[bytes]:
        for _ in range(number):
            yield bytes(BODY_BYTES + 1)

    return send()


@pytest.mark.parametrize(
    ("code", "request_body"),
    [
        (202, {"json": base64_body(LARGE_PNG)}),
        (202, {"files": {"file": LARGE_PNG}}),
        (400, {"json": base64_body(bytes(BODY_BYTES))}),
        (400, {"json": {"image_data": "?" * BODY_BYTES}}),
        (413, {"content": pieces(4)}),
        (503, {"content": LARGE_PNG}),
    ],
    ids=["JSON", "form", "no image", "no base64", "too large", "queue full"],
)
async def test_request_leaves_no_cycle_with_its_body(
    make_client: MakeClient, redis: FakeRedis, garbage: list[Any], code: int, request_body: dict[str, Any]
) -> None:
    await announce(redis)
    client = await make_client(max_queue_depth=1 if code == 503 else 3, max_image_bytes=3 * BODY_BYTES)
    for image in SMALL_PNGS:
        await client.post("/analyze-image", content=image)

    answer = await client.post("/analyze-image", **request_body)

    assert (answer.status_code, bodies_in(garbage)) == (code, [])


async def test_outage_of_redis_leaves_no_cycle_with_a_body(garbage: list[Any]) -> None:
    app = create_app(ApiSettings(), redis=connect("unix:///nowhere/redis.sock"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answers = [await client.post(path, content=LARGE_PNG) for path in ("/analyze-image", "/models/m")]

    assert ([answer.status_code for answer in answers], bodies_in(garbage)) == ([503, 503], [])
