"""Operator tests: a running stack as Prometheus, Grafana and a browser see it.

They need Debian's packages `prometheus` and `chromium`, and fail where these are missing.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from addresses import Addresses
from operators.pages import open_page, run_browser
from operators.prometheus import Prometheus, run_prometheus
from stack import Stack
from support.samples import base64_body, make_jpeg, make_png
from support.waiting import wait_until

ROUNDS = 2
"""A rate needs a counter that has been seen before and after it grew."""

REQUESTS = 6
JOBS = 2
"""In each round."""


class Made(NamedTuple):
    """The jobs that the requests have made, and when Prometheus had seen all of them."""

    finished: list[str]
    failed: list[str]
    seen_s: float


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    environment = {
        "REDIS_URL": "",
        "REDIS_HOST": "",
        "RATE_LIMIT_MAX_REQUESTS": "5",
        "RATE_LIMIT_INTERVAL_SECONDS": "600",
        "TRUSTED_PROXIES": "127.0.0.1",
    }
    with Stack(environment, free_ports=True, log=tmp_path_factory.mktemp("stack") / "stack.log") as stack:
        yield stack


@pytest.fixture(scope="session")
def prometheus(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    hosts = [httpx.URL(url).netloc.decode() for url in stack.metrics_urls]
    port = Addresses.choose({}, free_ports=True).api_port
    targets = dict(zip(("api", "worker", "deliverer"), hosts, strict=True))
    with run_prometheus(tmp_path_factory.mktemp("prometheus"), port, targets) as prometheus:
        yield prometheus


@pytest.fixture(scope="session")
def made(stack: Stack, prometheus: Prometheus) -> Made:
    """Every kind of answer to a submission, twice, and seen by Prometheus each time."""
    jobs = []
    with httpx.Client(base_url=stack.api_url, timeout=30, trust_env=False) as client:
        for number in range(ROUNDS):
            client.headers["X-Forwarded-For"] = f"192.0.2.{number}"
            jobs.append(make_requests(client, number))
            wait_until(partial(has_seen, prometheus, number + 1), "Prometheus has seen the requests")
    finished, failed = zip(*jobs, strict=True)
    return Made([*finished], [*failed], time.time())


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=15_000)
    with run_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with open_page(browser) as page:
        yield page


def make_requests(client: httpx.Client, seed: int) -> tuple[str, str]:
    """Submit an image, the same again, a damaged one, two that are refused, and one above the limit."""
    image, damaged = make_png(seed), make_jpeg(seed, size_px=(300, 300))[:3000]

    def submit(body: dict[str, str]) -> dict[str, Any]:
        answer: dict[str, Any] = client.post("/analyze-image", json=body).json()
        if answer["status"] == "PENDING":
            return dict(client.get(f"/analysis-status/{answer['job_id']}", params={"wait": 30}).json())
        return answer

    answers = [
        submit(base64_body(image)),
        submit(base64_body(image)),
        submit(base64_body(damaged)),
        submit({"image_url": "http://127.0.0.1/cat.png"}),
        submit({"image_data": "?"}),
        submit({"image_data": "one too many"}),
    ]
    assert [answer["status"] for answer in answers] == ["COMPLETED", "COMPLETED", "FAILED", 400, 400, 429]
    return answers[0]["job_id"], answers[2]["job_id"]


def has_seen(prometheus: Prometheus, rounds: int) -> bool:
    requests = prometheus.query('sum(image_analysis_http_requests_total{route="/analyze-image"})')
    jobs = prometheus.query("sum(image_analysis_job_duration_seconds_count)")
    return (requests, jobs) == ({(): REQUESTS * rounds}, {(): JOBS * rounds})
