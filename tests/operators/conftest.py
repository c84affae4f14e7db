"""Operator tests: a running stack, observed with Prometheus and a browser.

They need Debian's packages `prometheus`, `chromium` and `nginx`, and fail if these are missing.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from addresses import Addresses
from operators.pages import open_page, run_browser
from operators.prometheus import Prometheus, run_prometheus
from operators.start_page import NOTE_TEXTS, StartPage
from stack import Stack
from support.checkpoints import make_checkpoint
from support.samples import base64_body, make_jpeg, make_png
from support.waiting import wait_until

ROUNDS = 2
"""A rate needs a scrape of the counter before and after it increased."""

REQUESTS = 6
JOBS = 2
"""In each round."""


PAGE_LIMIT = 20
VISITOR: dict[str, Any] = {
    "viewport": {"width": 1280, "height": 800},
    "permissions": ["clipboard-read", "clipboard-write"],
}
STRANGE_LABEL = "<img src=x onerror=\"document.title='broken'\">"
STRANGE_LABELS = [STRANGE_LABEL, *(f"thing {number}" for number in range(1, 30))]


class Made(NamedTuple):
    """The jobs of the requests, and the time when Prometheus had scraped all of them."""

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
    """Every kind of answer to a submission, twice; Prometheus has scraped the counts each time."""
    jobs = []
    with httpx.Client(base_url=stack.api_url, trust_env=False) as client:
        for number in range(ROUNDS):
            client.headers["X-Forwarded-For"] = f"192.0.2.{number}"
            jobs.append(make_requests(client, number))
            wait_until(partial(has_seen, prometheus, number + 1), "Prometheus has seen the requests")
    finished, failed = zip(*jobs, strict=True)
    return Made([*finished], [*failed], time.time())


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=60_000)
    with run_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def page_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack for the page at `/`: two models, a limit that tests can exceed, URLs on loopback."""
    environment = {
        "REDIS_URL": "",
        "REDIS_HOST": "",
        "API_KEYS": "",
        "PLAYGROUND": "",
        "SECOND_MODEL_ID": str(make_strange_model(tmp_path_factory.mktemp("model") / "strange-model")),
        "RATE_LIMIT_MAX_REQUESTS": str(PAGE_LIMIT),
        "RATE_LIMIT_INTERVAL_SECONDS": "6",
        "TRUSTED_PROXIES": "127.0.0.1",
        "FETCH_ALLOWED_NETWORKS": "127.0.0.0/8",
    }
    with Stack(environment, free_ports=True, log=tmp_path_factory.mktemp("page") / "stack.log") as stack:
        yield stack


@pytest.fixture(scope="session")
def httpserver_listen_address() -> tuple[str, int]:
    """Where pytest's web server listens: by the address that the service may ask, as `localhost` is ::1 too."""
    return ("127.0.0.1", 0)


@pytest.fixture(scope="session")
def visitors() -> Iterator[int]:
    return count(1)


@pytest.fixture
def open_start(
    page_stack: Stack, browser: Browser, visitors: Iterator[int], tmp_path: Path
) -> Iterator[Callable[..., StartPage]]:
    """Open the page at `/` in a tab of a visitor with an address of their own; see `open_page` for the options.

    In the end there is a screenshot of each tab, and no tab has asked another host for anything.
    """
    with ExitStack() as exits:
        opened: list[StartPage] = []

        def open_start(url: str = f"{page_stack.api_url}/", browser: Browser = browser, **options: Any) -> StartPage:
            address = {"X-Forwarded-For": f"192.0.2.{next(visitors)}"}
            page = exits.enter_context(open_page(browser, extra_http_headers=address, **VISITOR | options))
            page.add_init_script(NOTE_TEXTS)
            start = StartPage(page, url, tmp_path)
            opened.append(start)
            start.open()
            return start

        yield open_start
        for number, start in enumerate(opened):
            start.shoot(f"end-{number}")
        for start in opened:
            hosts = {httpx.URL(request.url).netloc for request in start.requests if request.url.startswith("http")}
            assert hosts == {httpx.URL(start.url).netloc}


@pytest.fixture
def start(open_start: Callable[..., StartPage]) -> StartPage:
    return open_start()


@pytest.fixture
def held_page_worker(page_stack: Stack) -> Iterator[Callable[[], None]]:
    """The worker of the default model takes no job from here to the call, or to the end of the test."""
    worker = page_stack.pid("worker")
    os.kill(worker, signal.SIGSTOP)
    yield lambda: os.kill(worker, signal.SIGCONT)
    os.kill(worker, signal.SIGCONT)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with open_page(browser) as page:
        yield page


def make_requests(client: httpx.Client, seed: int) -> tuple[str, str]:
    """Submit an image, the same image again, a damaged one, two that are refused, and one above the rate limit."""
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


def make_strange_model(folder: Path) -> Path:
    """Make a checkpoint that knows 30 labels, of which one is markup."""
    return make_checkpoint(folder, "vit", labels=STRANGE_LABELS)
