"""Redis with users, permissions and passwords: the services need few permissions, and say what refuses them."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from redis import Redis

from addresses import Addresses
from image_analysis_common.startup import EXIT_CANNOT_START
from support.api_processes import DELIVERER, WORKER, one_api, run_service
from support.redis_server import RedisServer, run_redis
from support.samples import make_png
from support.scraping import scrape, values
from support.waiting import PATIENCE_S, wait_until

USER = ("image-analysis", "on", ">first", "~*", "&*", "+@all", "-@dangerous", "-@admin")
"""A user as hosts of Redis give it: without INFO, CONFIG, KEYS and the like."""

SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"

SERVICES = {"api": [sys.executable, "-m", "image_analysis_api"], "worker": WORKER, "deliverer": DELIVERER}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with run_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def redis(server: RedisServer) -> Iterator[Redis]:
    """The operator's connection to a Redis whose users are the default one and the services'."""
    with Redis.from_url(server.url) as redis:
        redis.execute_command("ACL", "SETUSER", *USER)
        yield redis


def url_of(server: RedisServer, user: str, password: str, database: int = 0) -> str:
    address = server.url.removeprefix("redis://").removesuffix("/0")
    return f"redis://{user}:{password}@{address}/{database}"


class Services(NamedTuple):
    api: httpx.Client
    api_metrics: str
    worker_log: Path
    deliverer_log: Path


@pytest.fixture(scope="module")
def services(server: RedisServer, redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """All services, as the user with few permissions."""
    url, logs = url_of(server, "image-analysis", "first"), tmp_path_factory.mktemp("logs")
    metrics_port = Addresses.choose({}, free_ports=True).api_metrics_port
    worker_log, deliverer_log = logs / "worker.log", logs / "deliverer.log"
    with (
        run_service(WORKER, url, worker_log),
        run_service(DELIVERER, url, deliverer_log, WEBHOOK_SECRET=SECRET),
        one_api(url, API_METRICS_PORT=str(metrics_port)) as api,
        httpx.Client(base_url=api, trust_env=False, timeout=90) as client,
    ):
        wait_for(worker_log, "worker_started")
        wait_for(deliverer_log, "deliverer_started")
        yield Services(client, f"http://127.0.0.1:{metrics_port}/metrics", worker_log, deliverer_log)


def wait_for(log: Path, text: str) -> None:
    wait_until(lambda: text in log.read_text(), f"{log.name} has {text}")


def submit(api: httpx.Client, seed: int) -> httpx.Response:
    return api.post(
        "/analyze-image", content=make_png(seed), headers={"Content-Type": "image/png", "Prefer": "wait=30"}
    )


def test_services_work_without_dangerous_commands(services: Services) -> None:
    answer = submit(services.api, 1)
    figures = scrape(services.api_metrics)

    assert (answer.status_code, answer.json()["status"]) == (200, "COMPLETED")
    assert values(figures, "redis_up") == {(): 1}
    assert sum(values(figures, "workers").values()) == 1
    assert values(figures, "redis_memory_used_bytes") == {}, "INFO is forbidden, so it is not known"


def test_services_wait_while_the_password_is_another(services: Services, redis: Redis) -> None:
    redis.execute_command("ACL", "SETUSER", "image-analysis", "<first", ">second")
    redis.execute_command("CLIENT", "KILL", "USER", "image-analysis")
    wait_for(services.worker_log, "invalid username-password pair")
    wait_for(services.deliverer_log, "invalid username-password pair")
    refused = submit(services.api, 2)
    redis.execute_command("ACL", "SETUSER", "image-analysis", ">first")
    wait_for(services.worker_log, "store_available")
    wait_for(services.deliverer_log, "store_available")
    answer = submit(services.api, 2)

    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert answer.json()["status"] == "COMPLETED"


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    ("login", "cause"),
    [
        (("image-analysis", "wrong", 0), "invalid username-password pair"),
        (("image-analysis", "first", 99), "DB index is out of range"),
    ],
    ids=["password", "database"],
)
def test_refused_service_ends_with_one_line(
    server: RedisServer, redis: Redis, service: str, login: tuple[str, str, int], cause: str
) -> None:
    ended = subprocess.run(
        SERVICES[service],
        env=os.environ | {"REDIS_URL": url_of(server, *login)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert ended.returncode == EXIT_CANNOT_START
    assert ended.stderr.startswith(f"image-analysis-{service}: Redis refuses this service: {cause}")
    assert ended.stderr.endswith("Check user, password and database in REDIS_URL.\n")
    assert ended.stderr.count("\n") == 1
    assert login[1] not in ended.stderr
