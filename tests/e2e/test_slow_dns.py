"""Host names whose name servers never answer delay only the clients that send them."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from pytest_httpserver import HTTPServer

from stack import Stack
from support.api_processes import api_process
from support.cores import Stopwatch
from support.memory import peak_bytes
from support.name_servers import SLOW, NameServer, name_server
from support.samples import make_png
from support.waiting import eventually

pytestmark = pytest.mark.anyio

STRANGERS, HONEST = [f"127.0.0.{n}" for n in range(11, 15)], "127.0.0.20"
"""The clients' addresses."""

SLOW_NAMES = 200
AT_ONCE = 10
ANSWERED_S = 1.0
GIVEN_UP_S = 10.0
"""A lookup ends after 3 s; the rest is for a busy machine."""

PEAK_BYTES = 150_000_000


@pytest.fixture
def names() -> Iterator[NameServer]:
    with name_server({"honest.test": ["127.0.0.1"]}) as server:
        yield server


@pytest.fixture
def api(stack: Stack, names: NameServer) -> Iterator[tuple[str, int]]:
    variables = {"FETCH_DNS_SERVERS": names.address, "FETCH_ALLOWED_NETWORKS": "127.0.0.0/8"}
    with api_process(stack.redis_url, RATE_LIMIT_MAX_REQUESTS="1000000", **variables) as api:
        yield api


def client_at(address: str, url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    transport = httpx.AsyncHTTPTransport(local_address=address, limits=limits)
    return httpx.AsyncClient(transport=transport, base_url=url, trust_env=False)


async def submit(client: httpx.AsyncClient, image_url: str, process: int) -> tuple[int, str | None, float]:
    """Return the status, the error's code and the time."""
    stopwatch = Stopwatch(process)
    answer = await client.post("/analyze-image", json={"image_url": image_url})
    return answer.status_code, answer.json().get("code"), stopwatch.elapsed_s


async def test_two_hundred_slow_names_delay_no_honest_client(
    api: tuple[str, int], names: NameServer, httpserver: HTTPServer
) -> None:
    url, process = api
    httpserver.expect_request("/cat.png").respond_with_data(make_png(900), content_type="image/png")
    honest_url = f"http://honest.test:{httpserver.port}/cat.png"
    strangers, honest = [client_at(address, url) for address in STRANGERS], client_at(HONEST, url)
    await submit(honest, honest_url, process)  # keeps the connection open

    slow = []
    for n in range(SLOW_NAMES):
        slow.append(asyncio.create_task(submit(strangers[n % len(strangers)], f"http://{SLOW}-{n}.test/", process)))
        if n % AT_ONCE == 0:
            await time_of_health(honest, process)  # until the API has taken them, as Redis must answer it in 0.8 s

    async def are_looked_up() -> bool:
        return len({name for name in names.asked if SLOW in name}) > 32

    await eventually(are_looked_up, "the slow names are looked up")
    answers = [await submit(honest, honest_url, process) for _ in range(3)]
    live_s = await time_of_health(honest, process)
    was_under_way = sum(not task.done() for task in slow)
    ends = await asyncio.gather(*slow)
    for client in (*strangers, honest):
        await client.aclose()

    assert was_under_way > 0
    assert {status for status, _, _ in answers} <= {200, 202}
    assert max(took_s for _, _, took_s in answers) < ANSWERED_S
    assert live_s < ANSWERED_S
    assert Counter((status, code) for status, code, _ in ends).keys() == {(400, "fetch_failed"), (503, "unavailable")}
    assert max(took_s for _, _, took_s in ends) < GIVEN_UP_S
    assert peak_bytes(process) < PEAK_BYTES


async def time_of_health(client: httpx.AsyncClient, process: int) -> float:
    stopwatch = Stopwatch(process)
    (await client.get("/health/live")).raise_for_status()
    return stopwatch.elapsed_s
