"""End-to-end tests: every process, nothing faked; one stack for all of them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from addresses import LOOPBACK, Addresses
from stack import Stack
from waiting import wait_until

ENDED = {"COMPLETED", "FAILED"}
Ask = Callable[[str], dict[str, Any]]
StartApi = Callable[..., str]


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack") / "stack.log"


@pytest.fixture(scope="session")
def stack(log: Path) -> Iterator[Stack]:
    environment = {
        "REDIS_URL": "",
        "REDIS_HOST": "",
        "FETCH_ALLOWED_NETWORKS": "127.0.0.0/8",
        "RATE_LIMIT_MAX_REQUESTS": "1000000",
        "LOG_FORMAT": "json",
    }
    with Stack(environment, free_ports=True, log=log) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.api_url, timeout=10, trust_env=False) as client:
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
def events(log: Path) -> Callable[..., list[dict[str, Any]]]:
    """Read the log lines that have the given fields."""

    def events(**fields: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if fields.items() <= line.items()]

    return events


@pytest.fixture(scope="module")
def start_api(stack: Stack) -> Iterator[StartApi]:
    """Start one more API process, on the stack's Redis unless REDIS_URL says otherwise, and return its URL."""
    with ExitStack() as exits:

        def start(*, log: Path | None = None, **variables: str) -> str:
            port = Addresses.choose({}, free_ports=True).api_port
            environment = os.environ | {"REDIS_URL": stack.redis_url, "API_PORT": str(port)} | variables
            output = exits.enter_context(log.open("wb")) if log else subprocess.DEVNULL
            # Few open files to begin with, as many systems have it.
            command = ["sh", "-c", 'ulimit -S -n 256; exec "$@"', "sh", sys.executable, "-m", "image_analysis_api"]
            api = exits.enter_context(subprocess.Popen(command, env=environment, stdout=output))
            exits.callback(api.terminate)
            url = f"http://{LOOPBACK}:{port}"

            def answers() -> bool:
                try:
                    return httpx.get(f"{url}/health", trust_env=False).is_success
                except httpx.ConnectError:
                    return False

            wait_until(answers, "another API answers")
            return url

        yield start
