"""Unit tests: sockets are blocked, and Redis is a fake in this process."""

import gc
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import structlog
from fakeredis import FakeRedis as SyncRedis
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis
from fastapi import FastAPI
from pytest_socket import disable_socket, enable_socket
from structlog.dev import ConsoleRenderer, plain_traceback

from image_analysis_api.app import create_app
from image_analysis_api.settings import ApiSettings
from support.fakes import FakeFetcher, MakeApp, MakeClient
from support.steps import Steps

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
    "PLAYGROUND",
    "ROOT_PATH",
    "WEBHOOK_",
    "IMAGE_ANALYSIS_",
)


def pytest_collection_finish() -> None:
    """Exclude imported modules from garbage collection: scanning them takes a tenth of the suite's time."""
    gc.freeze()


@pytest.fixture(autouse=True)
def isolation(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Block sockets, and remove settings from the environment."""
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        monkeypatch.delenv(name)
    disable_socket(allow_unix_socket=True)  # asyncio's self-pipe
    *processors, _ = structlog.get_config()["processors"]
    # structlog's default prints the variables of every frame of a crash, which takes three seconds.
    structlog.configure(processors=[*processors, ConsoleRenderer(exception_formatter=plain_traceback)])
    yield
    enable_socket()
    structlog.reset_defaults()  # a test may have configured the log for its own captured output


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
    def make(**settings: Any) -> FastAPI:
        return create_app(ApiSettings(**{"rate_limit_max_requests": 1000, **settings}), redis=redis, fetcher=fetcher)

    return make


def connect(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("198.51.100.7", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture
async def make_client(make_app: MakeApp) -> AsyncIterator[MakeClient]:
    """Make clients of apps with given settings, over the ASGI transport."""
    async with AsyncExitStack() as clients:

        async def make(**settings: object) -> httpx.AsyncClient:
            return await clients.enter_async_context(connect(make_app(**settings)))

        yield make


@pytest.fixture
def app(make_app: MakeApp) -> FastAPI:
    """The app behind `client`; a module can override it."""
    return make_app()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(app) as client:
        yield client
    await app.state.services.waiting_room.aclose()


@pytest.fixture
def steps(redis_server: FakeServer) -> Steps:
    return Steps(SyncRedis(server=redis_server))
