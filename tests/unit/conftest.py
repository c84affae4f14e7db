"""Unit tests: no socket is opened, Redis is a fake in this process."""

import os
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import structlog
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis
from fastapi import FastAPI
from pytest_socket import disable_socket, enable_socket

from fakes import FakeFetcher, MakeApp, MakeClient
from image_analysis_api.app import create_app
from image_analysis_api.settings import ApiSettings

SETTINGS = (
    "REDIS_",
    "RATE_LIMIT_",
    "CACHE_",
    "API_",
    "MODEL_",
    "FETCH_",
    "MAX_",
    "LOG_",
    "TRUSTED_",
    "CORS_",
    "METRICS_",
)


@pytest.fixture(autouse=True)
def isolation(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Block sockets, and forget the settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        monkeypatch.delenv(name)
    disable_socket(allow_unix_socket=True)  # asyncio's self-pipe
    yield
    enable_socket()
    structlog.reset_defaults()  # a test may have sent the log to its own captured output


@pytest.fixture
def redis_server() -> FakeServer:
    return FakeServer(version=(7,))


@pytest.fixture
def redis(redis_server: FakeServer) -> FakeRedis:
    return FakeRedis(server=redis_server)


@pytest.fixture
def fetcher() -> FakeFetcher:
    return FakeFetcher()


@pytest.fixture
def make_app(redis: FakeRedis, fetcher: FakeFetcher) -> MakeApp:
    def make(**settings: object) -> FastAPI:
        return create_app(ApiSettings(**{"rate_limit_max_requests": 1000, **settings}), redis=redis, fetcher=fetcher)

    return make


@pytest.fixture
async def make_client(make_app: MakeApp) -> AsyncIterator[MakeClient]:
    """Make clients of apps with given settings, over the ASGI transport."""
    clients: list[httpx.AsyncClient] = []

    async def make(**settings: object) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(make_app(**settings), raise_app_exceptions=False, client=("198.51.100.7", 1))
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://test"))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
async def client(make_client: MakeClient) -> httpx.AsyncClient:
    return await make_client()
