"""Host names are looked up over real sockets; a lookup without an answer leaves nothing behind when its caller ends."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from image_analysis_api.outbound.resolver import Resolver
from image_analysis_common.errors import FetchFailed, UrlRefused
from support.fakes import make_fetcher
from support.listeners import image, listening
from support.name_servers import NameServer, name_server

pytestmark = pytest.mark.anyio

NAMES = {
    "honest.test": ["127.0.0.1"],
    "both.test": ["127.0.0.1", "::1"],
    "inside.test": ["10.0.0.1"],
    "empty.test": [],
    "many.test": [f"127.0.0.{n}" for n in range(1, 60)],
}
SLOW_NAMES = 200


def count_files() -> int:
    """Count the open files of this process, once the number stays: c-ares closes channels in a separate thread."""
    count = -1
    while count != (count := len(list(Path("/dev/fd").iterdir()))):
        time.sleep(0.2)
    return count


@pytest.fixture
def server() -> Iterator[NameServer]:
    with name_server(NAMES) as server:
        yield server


@pytest.fixture
def resolver(server: NameServer) -> Resolver:
    return Resolver([server.address])


@pytest.mark.parametrize("host", ["honest.test", "both.test", "many.test"])
async def test_every_address_of_a_name_is_found(resolver: Resolver, host: str) -> None:
    assert set(await resolver(host, 80)) == set(NAMES[host])


@pytest.mark.parametrize("host", ["unknown.test", "empty.test"])
async def test_name_without_an_address_is_unknown(resolver: Resolver, host: str) -> None:
    with pytest.raises(socket.gaierror) as caught:
        await resolver(host, 80)

    assert caught.value.errno == socket.EAI_NONAME


async def test_name_server_that_is_not_there_is_no_unknown_name(server: NameServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

    with pytest.raises(socket.gaierror) as caught:
        await Resolver([f"127.0.0.1:{port}"])("honest.test", 80)
    found = await Resolver([f"127.0.0.1:{port}", server.address])("honest.test", 80)

    assert caught.value.errno == socket.EAI_AGAIN
    assert found == ["127.0.0.1"]


@pytest.mark.parametrize("host", ["localhost", "app.localhost"])
async def test_localhost_is_127_0_0_1_without_a_lookup(resolver: Resolver, server: NameServer, host: str) -> None:
    assert await resolver(host, 80) == ["127.0.0.1"]
    assert server.asked == []


async def test_two_hundred_slow_names_delay_no_other_and_leave_nothing_behind(
    resolver: Resolver, server: NameServer
) -> None:
    await resolver("honest.test", 80)
    before = count_files(), threading.active_count()
    slow = [asyncio.create_task(resolver(f"slow-{n}.test", 80)) for n in range(SLOW_NAMES)]
    await asyncio.wait(slow, timeout=0.1)

    found = await asyncio.wait_for(resolver("honest.test", 80), 1)
    for lookup in slow:
        lookup.cancel()
    await asyncio.wait(slow)

    assert found == ["127.0.0.1"]
    assert len({name for name in server.asked if name.startswith("slow")}) == SLOW_NAMES
    assert (count_files(), threading.active_count()) == before


async def test_fetches_of_slow_names_end_soon_and_delay_no_other_client(resolver: Resolver) -> None:
    fetcher = make_fetcher(
        "127.0.0.0/8", max_bytes=100, timeout_s=10, max_concurrent=64, resolve=resolver, resolve_timeout_s=0.5
    )
    async with listening(image) as listener:
        slow = [asyncio.create_task(fetcher.fetch(f"http://slow-{n}.test/", "stranger")) for n in range(70)]
        await asyncio.wait(slow, timeout=0.1)
        honest = f"http://honest.test:{listener.port}/"

        first = await asyncio.wait_for(fetcher.fetch(honest, "another"), 1)
        ends = await asyncio.wait_for(asyncio.gather(*slow, return_exceptions=True), 5)
        second = await asyncio.wait_for(fetcher.fetch(honest, "stranger"), 1)
        with pytest.raises(UrlRefused):
            await fetcher.fetch("http://inside.test/", "another")
    await fetcher.aclose()

    assert (first, second) == (b"image", b"image")
    assert sum(isinstance(end, FetchFailed) for end in ends) == 32  # the other half is for other clients
