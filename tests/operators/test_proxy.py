"""Behind nginx, which serves the API under a prefix as the documents show, every call and page works."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, expect
from pytest_httpserver import HTTPServer
from redis import Redis
from websockets.sync.client import connect

from addresses import Addresses
from operators.pages import open_page, replace_badge
from stack import Stack
from support.documents import ROOT
from support.programs import find_program
from support.samples import CHELSEA, make_png
from support.waiting import wait_until

PREFIX = "/images"
CLIENT = "127.0.0.5"
FORGED = {"X-Forwarded-For": "192.0.2.1, 127.0.0.1", "X-Forwarded-Prefix": "/forged"}
MAX_IMAGE_BYTES = 10_000_000
CONFIGURATION = """daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    server {{
        listen 127.0.0.1:{port};
        {location}
        {appending}
    }}
}}
"""


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    environment = {
        "REDIS_URL": "",
        "REDIS_HOST": "",
        "API_KEYS": "",
        "ROOT_PATH": "",
        "PLAYGROUND": "",
        "RATE_LIMIT_MAX_REQUESTS": "1000",
        "TRUSTED_PROXIES": "127.0.0.1",
        "FETCH_ALLOWED_NETWORKS": "127.0.0.0/8",
    }
    with Stack(environment, free_ports=True, log=tmp_path_factory.mktemp("proxied") / "stack.log") as stack:
        yield stack


@pytest.fixture(scope="module")
def origin(proxied: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of nginx, without the prefix.

    It serves the API as `infra/README.md` shows, and under `/appending/` with every hop and its port in
    X-Forwarded-For.
    """
    folder, port = tmp_path_factory.mktemp("nginx"), Addresses.choose({}, free_ports=True).api_port
    text = (ROOT / "infra" / "README.md").read_text()
    location = text[text.index(f"location {PREFIX}/ {{") :].partition("```")[0]
    location = location.replace("http://127.0.0.1:8000/", f"{proxied.api_url}/")
    appending = location.replace(PREFIX, "/appending").replace(
        "X-Forwarded-For $remote_addr;", 'X-Forwarded-For "$http_x_forwarded_for, $remote_addr:$remote_port";'
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, port=port, location=location, appending=appending))
    nginx = subprocess.Popen([find_program("nginx"), "-p", folder, "-c", configuration])
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}{PREFIX}/health"), "nginx serves the API")
        yield url
    finally:
        nginx.terminate()
        nginx.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def client(origin: str) -> Iterator[httpx.Client]:
    """A client with an address of its own, which forges what only proxies should send."""
    transport = httpx.HTTPTransport(local_address=CLIENT)
    with httpx.Client(base_url=origin, transport=transport, headers=FORGED) as client:
        yield client


def test_job_is_followed_by_the_links_of_its_answer(client: httpx.Client, origin: str) -> None:
    accepted = client.post(f"{PREFIX}/analyze-image", files={"file": CHELSEA.read_bytes()})
    location = accepted.headers["location"]
    monitor = accepted.links["monitor"]["url"]

    assert accepted.status_code == 202
    assert location == accepted.links["status"]["url"] == f"{PREFIX}/analysis-status/{accepted.json()['job_id']}"
    assert f"GET {location} for" in accepted.json()["message"]
    assert client.get(location, params={"wait": 30}).json()["result"]["label"] == "cat"
    assert client.head(location).status_code == 200
    events = [line for line in client.get(monitor).text.splitlines() if line.startswith("data: ")]
    with connect(f"{origin.replace('http', 'ws', 1)}{PREFIX}/ws{location.removeprefix(PREFIX)}") as websocket:
        assert ["data: " + str(message) for message in websocket] == events
    assert '"COMPLETED"' in events[-1]


def test_events_come_through_at_once(client: httpx.Client, proxied: Stack) -> None:
    worker = proxied.pid("worker")
    os.kill(worker, signal.SIGSTOP)
    try:
        monitor = client.post(f"{PREFIX}/analyze-image", files={"file": make_png(77)}).links["monitor"]["url"]
        with client.stream("GET", monitor) as stream:
            events = (line for line in stream.iter_lines() if line.startswith("data: "))
            first = next(events)  # while the worker is stopped
            os.kill(worker, signal.SIGCONT)
            *_, last = events
    finally:
        os.kill(worker, signal.SIGCONT)

    assert '"PENDING"' in first
    assert '"COMPLETED"' in last


def test_batch_and_webhook_arrive(client: httpx.Client, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_data(status=204)
    fields = {"webhook_url": httpserver.url_for("/hook")}

    accepted = client.post(
        f"{PREFIX}/analyze-images", files=[("file", make_png(80)), ("file", make_png(81))], data=fields
    )

    assert accepted.headers["location"] == f"{PREFIX}/analysis-batches/{accepted.json()['batch_id']}"
    batch = client.get(accepted.headers["location"], params={"wait": 30}).json()
    assert batch["counts"]["COMPLETED"] == 2
    wait_until(lambda: len(httpserver.log) == 2, "both webhooks have come")


@pytest.mark.parametrize(("more_bytes", "status"), [(0, 202), (1, 413), (20_000_000, 413)])
def test_body_at_the_limit_passes_and_a_larger_one_gets_the_refusal_of_the_api(
    client: httpx.Client, more_bytes: int, status: int
) -> None:
    image = make_png(90).ljust(MAX_IMAGE_BYTES + more_bytes, b"\0")

    answer = client.post(f"{PREFIX}/analyze-image", content=image, headers={"Content-Type": "image/png"})

    assert answer.status_code == status
    assert status == 202 or answer.json()["code"] == "image_too_large"


@pytest.mark.parametrize("prefix", [PREFIX, "/appending"])
def test_client_counts_by_its_own_address_whatever_it_forges(client: httpx.Client, proxied: Stack, prefix: str) -> None:
    with closing(Redis.from_url(proxied.redis_url)) as redis:
        redis.delete(f"rate_limit:{CLIENT}", "rate_limit:192.0.2.1")
        answer = client.post(f"{prefix}/analyze-image", files={"file": make_png(91)})

        assert answer.is_success
        assert (redis.exists(f"rate_limit:{CLIENT}"), redis.exists("rate_limit:192.0.2.1")) == (1, 0)


def test_documentation_and_page_load_all_their_files(origin: str, browser: Browser, tmp_path: Path) -> None:
    with open_page(browser) as page:
        replace_badge(page)
        page.goto(f"{origin}{PREFIX}/docs")
        expect(page.locator("#operations-analysis-analyze_image")).to_be_visible()
        page.goto(f"{origin}{PREFIX}/redoc")
        expect(page.get_by_role("heading", level=1).first).to_contain_text("Image Analysis API")
        page.goto(f"{origin}{PREFIX}/")
        expect(page.locator("main")).to_be_visible()

    document = httpx.get(f"{origin}{PREFIX}/openapi.json", trust_env=False).json()
    assert urlsplit(document["servers"][0]["url"]).path == PREFIX
