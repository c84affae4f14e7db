"""The running service's answers to a client's mistakes."""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from pytest_httpserver import HTTPServer

from addresses import Addresses
from stack import Stack
from support.api_processes import two_apis
from support.samples import base64_body, make_png
from support.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).parents[2]
INTERVAL_S = 4
PNG = base64_body(make_png(200))
MISTAKES = {
    "an empty body": (b"", 400, "invalid_request"),
    "no source": (b"{}", 400, "invalid_request"),
    "both sources": (json.dumps(PNG | {"image_url": "https://x.example/"}).encode(), 400, "invalid_request"),
    "text instead of base64": (b'{"image_data": "my cat, honestly"}', 400, "invalid_base64"),
    "a PDF": (json.dumps({"image_data": base64.b64encode(b"%PDF-1.7\n").decode()}).encode(), 400, "unsupported_image"),
    "a local file": (b'{"image_url": "file:///etc/passwd"}', 400, "url_refused"),
    "a metadata service": (b'{"image_url": "http://169.254.169.254/latest/"}', 400, "url_refused"),
    "11 MB": (json.dumps({"image_data": "A" * 14_700_000}).encode(), 413, "image_too_large"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_a_problem_that_says_what_to_do(client: httpx.Client, mistake: str) -> None:
    body, status, code = MISTAKES[mistake]

    answer = client.post("/analyze-image", content=body, headers={"Content-Type": "application/json"})

    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]


def test_unknown_job_id_is_404_and_malformed_one_is_400(client: httpx.Client) -> None:
    unknown, malformed = (client.get(f"/analysis-status/{job_id}") for job_id in (uuid4(), "17"))

    assert (unknown.status_code, unknown.json()["code"]) == (404, "job_not_found")
    assert (malformed.status_code, malformed.json()["code"]) == (400, "invalid_request")


@pytest.fixture
def strict_api(stack: Stack) -> Iterator[str]:
    """A second API on the stack's Redis, with the default settings except for a window of 4 s."""
    with two_apis(stack.redis_url, RATE_LIMIT_INTERVAL_SECONDS=str(INTERVAL_S)) as (url, _):
        yield url


def test_retry_after_is_true(strict_api: str) -> None:
    # A different loopback address counts as a different client.
    with httpx.Client(base_url=strict_api, transport=httpx.HTTPTransport(local_address="127.0.0.2")) as client:

        def submit(seed: int) -> httpx.Response:
            return client.post("/analyze-image", json=base64_body(make_png(seed)))

        began_s = time.monotonic()
        allowed = [submit(210 + n) for n in range(5)]
        refused = submit(215)
        refused_s = time.monotonic()
        retry_after_s = int(refused.headers["retry-after"])
        wait_until(lambda: time.monotonic() >= refused_s + retry_after_s - 1, "one second before Retry-After")
        early = submit(215)
        is_early = time.monotonic() < began_s + INTERVAL_S
        wait_until(lambda: time.monotonic() >= refused_s + retry_after_s, "Retry-After has passed")
        late = submit(215)

    assert [answer.status_code for answer in allowed] == [202] * 5
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert early.status_code == 429 or not is_early  # Retry-After is rounded up
    assert late.status_code == 202


def test_private_addresses_are_refused_by_default(strict_api: str, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/cat.png").respond_with_data(make_png())

    answer = httpx.post(f"{strict_api}/analyze-image", json={"image_url": httpserver.url_for("/cat.png")})

    assert (answer.status_code, answer.json()["code"]) == (400, "url_refused")
    assert httpserver.log == []


def test_port_in_use_is_named_in_one_line(stack: Stack) -> None:
    port = stack.api_url.rsplit(":", 1)[1]
    free = Addresses.choose({}, free_ports=True)
    variables = {"API_PORT": port, "DASHBOARD_PORT": str(free.dashboard_port), "REDIS_PORT": str(free.redis_port)}

    dev = subprocess.run(
        [sys.executable, ROOT / "infra" / "local" / "dev.py"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert (dev.returncode, dev.stdout) == (1, "")
    [line] = dev.stderr.splitlines()
    assert f"Port {port} for the API" in line
    assert "API_PORT" in line
