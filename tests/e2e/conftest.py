"""End-to-end tests: every process, nothing faked; all tests share one stack."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from stack import Stack
from support.waiting import wait_until

ENDED = {"COMPLETED", "FAILED"}

Ask = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="session")
def httpserver_listen_address() -> tuple[str, int]:
    """The address of pytest's web server, which the stack may fetch from; `localhost` could also be ::1."""
    return ("127.0.0.1", 0)


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack") / "stack.log"


@pytest.fixture(scope="session")
def stack(log: Path) -> Iterator[Stack]:
    environment = {
        "REDIS_URL": "",
        "REDIS_HOST": "",
        "FETCH_ALLOWED_NETWORKS": "127.0.0.0/8",
        "WEBHOOK_SECRET": "",
        "RATE_LIMIT_MAX_REQUESTS": "1000000",
        "LOG_FORMAT": "json",
    }
    with Stack(environment, free_ports=True, log=log) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    """A client of the API, whose cache and rate limits were emptied after earlier tests."""
    with Redis.from_url(stack.redis_url) as redis:
        for key in (*redis.scan_iter("analysis_result:*"), *redis.scan_iter("rate_limit:*")):
            redis.delete(key)
    with httpx.Client(base_url=stack.api_url, trust_env=False) as client:
        yield client


@pytest.fixture
def ask(client: httpx.Client) -> Ask:
    """Ask for a job until it has ended, and return its last status."""

    def ask(job_id: str) -> dict[str, Any]:
        def status() -> dict[str, Any] | None:
            body: dict[str, Any] = client.get(f"/analysis-status/{job_id}").raise_for_status().json()
            return body if body["status"] in ENDED else None

        return wait_until(status, f"job {job_id} ends")

    return ask


@pytest.fixture
def held_worker(stack: Stack) -> Iterator[Callable[[], None]]:
    """Pause the worker until the returned function is called: submitted jobs stay PENDING."""
    worker = stack.pid("worker")
    os.kill(worker, signal.SIGSTOP)
    with Redis.from_url(stack.redis_url) as redis:

        def is_popping() -> bool:
            return any("b" in client["flags"] for client in redis.client_list())

        wait_until(lambda: not is_popping(), "Redis gives the worker no more jobs")

    def go_on() -> None:
        os.kill(worker, signal.SIGCONT)

    yield go_on
    go_on()


@pytest.fixture
def events(log: Path) -> Callable[..., list[dict[str, Any]]]:
    """Read the log lines that have the given fields."""

    def events(**fields: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if fields.items() <= line.items()]

    return events
