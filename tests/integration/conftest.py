"""Integration tests: a separate real Redis, and a check that every key in it expires."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from addresses import find_redis_server
from image_analysis_common import keys
from image_analysis_common.rq_keys import PERMANENT_PREFIXES
from image_analysis_common.settings import BUNDLED_MODEL
from image_analysis_worker.engines import gate
from image_analysis_worker.jobs.records import Records
from image_analysis_worker.rq.batch_worker import BatchWorker
from support.api_processes import WORKER, run_service
from support.direct import Client
from support.interruptions import InterruptedRedis
from support.waiting import wait_until

CONFIGURATION = Path(__file__).parents[2] / "infra" / "redis" / "redis.conf"


@pytest.fixture(scope="session", autouse=True)
def untimed() -> Iterator[None]:
    """Measure an engine's speed once only, not for two seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "MIN_SPEED_S", 0.0)
        yield


@pytest.fixture(scope="session")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start a Redis on a Unix socket, as the service configures it."""
    directory = tmp_path_factory.mktemp("redis")
    socket = directory / "redis.sock"
    command = [str(find_redis_server(os.environ["PATH"])), str(CONFIGURATION)]
    options = ["--appendonly", "no", "--port", "0", "--unixsocket", str(socket), "--dir", str(directory)]
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL) as server:
        wait_until(socket.exists, "Redis listens")
        yield socket
        server.terminate()


@pytest.fixture(scope="session")
def redis_url(redis_socket: Path) -> str:
    return f"unix://{redis_socket}"


@contextmanager
def emptied(redis_url: str) -> Iterator[Redis]:
    """Empty Redis, and fail if it contains a key afterwards that does not expire."""
    with Redis.from_url(redis_url) as redis:

        def answers() -> bool:
            try:
                return bool(redis.ping())
            except RedisConnectionError:
                return False

        wait_until(answers, "Redis answers")
        redis.flushall()
        yield redis
        forever = [key.decode() for key in redis.scan_iter() if redis.ttl(key) == -1]
        assert [key for key in forever if not key.startswith((*keys.PERMANENT_PREFIXES, *PERMANENT_PREFIXES))] == []


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """An empty Redis; the test fails if it leaves a key that does not expire."""
    with emptied(redis_url) as redis:
        yield redis


@pytest.fixture(scope="module")
def redis_of_module(redis_url: str) -> Iterator[Redis]:
    """The same, shared by all tests of a module."""
    with emptied(redis_url) as redis:
        yield redis


@pytest.fixture
def connection(redis: Redis, redis_url: str) -> Iterator[InterruptedRedis]:
    """The connection of a `batch_worker`, which a test can interrupt."""
    with InterruptedRedis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture
def batch_worker(connection: Redis) -> BatchWorker:
    return BatchWorker("m", connection, Records("m", cache_ttl_s=60))


@pytest.fixture
def client(redis: Redis, redis_url: str) -> Iterator[Client]:
    """Submits and cancels jobs of the model `m` as the API does."""
    client = Client(redis_url)
    yield client
    client.close()


@pytest.fixture(scope="session")
def worker(redis_url: str) -> Iterator[int]:
    """A worker of the bundled model that is ready, shared by all tests that need one; its process ID."""
    with run_service(WORKER, redis_url, LOG_FORMAT="json") as pid, Redis.from_url(redis_url) as redis:
        # On a busy machine, its imports take longer than a test waits for a job.
        wait_until(lambda: redis.exists(keys.announcement(BUNDLED_MODEL)), "the worker is ready", 120)
        yield pid
