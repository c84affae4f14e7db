"""rq-dashboard in a browser: the queues, jobs and workers that an operator sees."""

import os
import re
import signal
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from pytest_httpserver import HTTPServer

from operators.conftest import Made
from stack import Stack
from support.samples import base64_body, make_jpeg, make_png

QUEUE = "analysis-vit-tiny-cifar10"
COLUMNS = ("queued", "deferred", "scheduled", "started", "finished", "failed", "canceled")
NUMBER = re.compile(r"\d")


@pytest.fixture
def rows(page: Page) -> Locator:
    """Return the rows of the page's table, when it has been filled."""
    return page.locator("tbody tr:not([data-role=loading-placeholder])")


@pytest.fixture
def open_registry(stack: Stack, made: Made, page: Page, rows: Locator) -> Callable[[str], None]:
    """Open a registry of the queue by a click on the number in its column."""

    def open_registry(registry: str) -> None:
        page.goto(stack.dashboard_url)
        rows.get_by_role("link").nth(COLUMNS.index(registry)).click()

    return open_registry


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    headers = {"X-Forwarded-For": "192.0.2.100"}
    with httpx.Client(base_url=stack.api_url, headers=headers, trust_env=False) as client:
        yield client


@pytest.fixture
def held_worker(stack: Stack, made: Made) -> Iterator[None]:
    """Pause the worker: of the submitted jobs, it has taken at most the first."""
    worker = stack.pid("worker")
    os.kill(worker, signal.SIGSTOP)
    yield
    os.kill(worker, signal.SIGCONT)


def test_queue_is_listed_with_its_jobs(stack: Stack, made: Made, page: Page, rows: Locator) -> None:
    page.goto(stack.dashboard_url)

    expect(rows).to_have_count(1)
    expect(rows.locator("td")).to_have_text([QUEUE, NUMBER, "0", "0", NUMBER, NUMBER, str(len(made.failed)), NUMBER])
    expect(page.get_by_text("Python RQ version: 3.")).to_be_visible()


def test_finished_job_shows_its_result(
    made: Made, page: Page, rows: Locator, open_registry: Callable[[str], None]
) -> None:
    open_registry("finished")
    for job_id in made.finished:
        expect(rows.filter(has_text=job_id)).to_have_count(1)

    page.get_by_role("link", name=made.finished[0]).click()

    job = page.locator("#job-data")
    expect(page.get_by_role("heading", name=made.finished[0])).to_be_visible()
    expect(job).to_contain_text(re.compile(rf"{QUEUE}.*Status:\s*finished.*\"label\":", re.DOTALL))
    expect(page.get_by_role("button", name="Requeue")).to_be_hidden()


def test_failed_job_shows_why(made: Made, page: Page, rows: Locator, open_registry: Callable[[str], None]) -> None:
    open_registry("failed")
    for job_id in made.failed:
        expect(rows.filter(has_text=job_id)).to_contain_text("corrupt_image")

    page.get_by_role("link", name=made.failed[0]).click()

    expect(page.get_by_role("heading", name=made.failed[0])).to_be_visible()
    expect(page.locator("#job-data")).to_contain_text(re.compile(r"Status:\s*failed.*corrupt_image", re.DOTALL))
    expect(page.get_by_role("button", name="Requeue")).to_be_visible()


def test_waiting_job_appears_on_the_open_page_and_disappears_when_it_is_cancelled(
    held_worker: None, client: httpx.Client, page: Page, rows: Locator, open_registry: Callable[[str], None]
) -> None:
    open_registry("queued")
    expect(rows).to_have_text("No jobs.")

    _, job_id = (client.post("/analyze-image", json=base64_body(make_png(n))).json()["job_id"] for n in (100, 101))
    expect(rows.filter(has_text=job_id)).to_have_count(1)

    assert client.delete(f"/analysis/{job_id}").json()["status"] == "CANCELLED"
    expect(rows.filter(has_text=job_id)).to_have_count(0)
    page.get_by_title("Registry name").select_option("canceled")
    expect(rows.filter(has_text=job_id)).to_have_count(1)


@pytest.mark.parametrize("registry", ["deferred", "scheduled", "started"])
def test_registry_without_jobs_says_so(rows: Locator, open_registry: Callable[[str], None], registry: str) -> None:
    open_registry(registry)

    expect(rows).to_have_text("No jobs.")


def test_worker_is_listed_with_its_queue(stack: Stack, made: Made, page: Page, rows: Locator) -> None:
    page.goto(stack.dashboard_url)
    page.get_by_role("link", name="Workers").click()

    expect(rows.locator("td")).to_have_text([re.compile(r"\S"), "idle", QUEUE])


def test_button_deletes_a_job(
    client: httpx.Client, page: Page, rows: Locator, open_registry: Callable[[str], None]
) -> None:
    damaged = base64_body(make_jpeg(102, size_px=(300, 300))[:3000])
    job_id = client.post("/analyze-image", json=damaged).json()["job_id"]
    assert client.get(f"/analysis-status/{job_id}", params={"wait": 30}).json()["status"] == "FAILED"
    open_registry("failed")
    row = rows.filter(has_text=job_id)

    row.get_by_text("Delete").click()
    with page.expect_response(f"**/job/{job_id}/delete") as deleted:
        page.get_by_role("button", name="Yes").click()

    assert deleted.value.json() == {"status": "OK"}
    expect(row).to_have_count(0)


@pytest.mark.parametrize("method", ["post", "get"])
def test_page_of_another_site_cannot_press_its_buttons(
    stack: Stack, made: Made, browser: Browser, httpserver: HTTPServer, method: str
) -> None:
    action = f"{stack.dashboard_url}/" + {"post": f"queue/{QUEUE}/failed/empty", "get": f"requeue/{QUEUE}"}[method]
    form = f'<form method="{method}" action="{action}"><button>Win</button></form>'
    httpserver.expect_request("/").respond_with_data(form, content_type="text/html")

    with browser.new_page() as page:
        page.goto(httpserver.url_for("/"))
        with page.expect_response(lambda answer: answer.url.startswith(action)) as pressed:
            page.get_by_role("button").click()

    assert pressed.value.status == {"post": 403, "get": 405}[method]
    failed = httpx.get(f"{stack.dashboard_url}/0/data/jobs/{QUEUE}/failed/50/dsc/1.json", trust_env=False).json()
    assert {job["id"] for job in failed["jobs"]} == set(made.failed)


def test_page_of_another_site_cannot_show_it(stack: Stack, browser: Browser, httpserver: HTTPServer) -> None:
    frame = f'<iframe src="{stack.dashboard_url}"></iframe>'
    httpserver.expect_request("/").respond_with_data(frame, content_type="text/html")

    with browser.new_page() as page:
        page.goto(httpserver.url_for("/"))
        shown = page.frame_locator("iframe").get_by_text("Queues").count()

    assert shown == 0
