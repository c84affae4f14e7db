"""A service that cannot start as it is configured says so in its last line, without a traceback."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from image_analysis_common.startup import EXIT_CANNOT_START
from support.api_processes import DELIVERER, WORKER

API = [sys.executable, "-m", "image_analysis_api"]
DASHBOARD = [sys.executable, str(Path(__file__).parents[2] / "infra" / "dashboard" / "serve.py")]
PATIENCE_S = 120

URL_FAULT = "REDIS_URL: write it like redis://USER:PASSWORD@HOST:6379/0"
CASES = {
    "address of Redis, API": (API, {"REDIS_URL": "redis://:se/cret@h:6379/0"}, f"image-analysis-api: {URL_FAULT}"),
    "address of Redis, deliverer": (DELIVERER, {"REDIS_URL": "h:6379"}, f"image-analysis-deliverer: {URL_FAULT}"),
    "address of Redis, worker": (WORKER, {"REDIS_URL": "redis://h/x"}, f"image-analysis-worker: {URL_FAULT}"),
    "address of Redis, dashboard": (
        DASHBOARD,
        {"RQ_DASHBOARD_REDIS_URL": "redis://:se/cret@h:6379/0"},
        "image-analysis-dashboard: write REDIS_URL",
    ),
    "prefix, dashboard": (DASHBOARD, {"RQ_DASHBOARD_URL_PREFIX": "x"}, "image-analysis-dashboard: write REDIS_URL"),
    "number, dashboard": (DASHBOARD, {"RQ_DASHBOARD_PORT": "x"}, "Error: Invalid value for '-p' / '--port': 'x'"),
    "address": (API, {"API_HOST": "a..b"}, "image-analysis-api: API_HOST=a..b, API_PORT=8000: the API cannot listen"),
    "metrics": (API, {"METRICS_HOST": "a..b", "API_METRICS_PORT": "9464"}, "image-analysis-api: Metrics cannot be"),
    "number": (DELIVERER, {"JOB_TIMEOUT_SECONDS": "1" * 30}, "image-analysis-deliverer: JOB_TIMEOUT_SECONDS: Input"),
    "hub": (WORKER, {"MODEL_ID": "a/b", "HF_ENDPOINT": "hub.example"}, "image-analysis-worker: HF_ENDPOINT: write"),
    "hub, as no library can read it": (
        WORKER,
        {"HF_ENDPOINT": "http://["},
        "image-analysis-worker: HF_ENDPOINT: write",
    ),
}


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def run(command: list[str], redis_url: str, **variables: str) -> tuple[int, list[str]]:
    environment = os.environ | {"REDIS_URL": redis_url} | variables
    ended = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return ended.returncode, ended.stdout.splitlines()


@pytest.mark.parametrize("case", CASES)
def test_mistake_is_the_last_line(case: str, redis_url: str) -> None:
    command, variables, sentence = CASES[case]

    code, lines = run(command, redis_url, **variables)

    assert code == (EXIT_CANNOT_START if command is not DASHBOARD else code) != 0
    assert lines[-1].startswith(sentence)
    assert not any("Traceback" in line or "cret" in line for line in lines)


@pytest.mark.parametrize("command", [API, DELIVERER, WORKER])
def test_arguments_are_refused(command: list[str], redis_url: str) -> None:
    code, lines = run([*command, "--help"], redis_url)

    assert code == EXIT_CANNOT_START
    assert lines[-1].endswith("It takes no arguments: its settings are environment variables.")


def test_port_of_the_api_in_use_is_the_last_line(redis_url: str, taken_port: int) -> None:
    code, lines = run(API, redis_url, API_PORT=str(taken_port))

    assert code == EXIT_CANNOT_START
    assert lines[-1] == (
        f"image-analysis-api: API_HOST=127.0.0.1, API_PORT={taken_port}: the API cannot listen there: "
        "Address already in use."
    )
