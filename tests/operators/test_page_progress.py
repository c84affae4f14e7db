"""The page at `/` in a browser: every step of an image is shown, and nothing that happens to the service loses one."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import httpx
import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Route, expect
from pytest_httpserver import HTTPServer
from redis import Redis
from werkzeug import Request, Response

from operators.conftest import PAGE_LIMIT
from operators.start_page import StartPage, make_upload
from stack import Stack
from support.samples import encode, make_png
from support.waiting import PATIENCE_S, wait_until

RECOVERED_MS = 60_000
SLOW_BYTES_PER_S = 20_000
FILE_IS_GONE = "net::ERR_FILE_NOT_FOUND"


@pytest.fixture
def whole_stack(page_stack: Stack) -> Iterator[Stack]:
    """A stack whose processes the test may kill: it is ready again for the next one."""
    yield page_stack
    page_stack.wait_until_ready()


def make_noise() -> bytes:
    """Make an image of about 300 kB."""
    return encode(Image.frombytes("RGB", (316, 316), os.urandom(316 * 316 * 3)))


def make_uploads(count: int) -> list[FilePayload]:
    """Make images that no other test sends."""
    seed = int.from_bytes(os.urandom(3))
    return [make_upload(f"image {number}.png", make_png(seed + number, size_px=(64, 48))) for number in range(count)]


def test_upload_shows_its_bar(start: StartPage) -> None:
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": SLOW_BYTES_PER_S}
    start.protocol.send("Network.emulateNetworkConditions", limits)
    start.choose(make_upload("large.png", make_noise()))

    bar = start.page.get_by_role("progressbar", name="Progress of large.png")
    expect(start.card("large.png")).to_contain_text(re.compile(r"Uploading [1-9]\d?%, \d+ kB of \d+ kB"))
    assert 0 < float(bar.get_attribute("value") or 0) < 1
    start.shoot("upload")
    start.protocol.send("Network.emulateNetworkConditions", limits | {"uploadThroughput": -1})
    start.has_ended("large.png")


def test_every_step_is_shown(page_stack: Stack, start: StartPage, held_page_worker: Callable[[], None]) -> None:
    start.choose(*make_uploads(4))
    expect(start.card("image 3.png")).to_contain_text(re.compile(r"Waiting in the queue, place [2-4]"))
    expect(start.card("image 3.png").locator("[aria-current=step]")).to_have_text("Queue")
    start.shoot("queue")

    held_page_worker()

    for number in range(4):
        start.has_ended(f"image {number}.png")


def test_processing_is_shown(start: StartPage) -> None:
    large = Image.frombytes("RGB", (4, 3), os.urandom(36)).resize((4000, 3000), Image.Resampling.NEAREST)
    start.choose(make_upload("large.png", encode(large)))

    start.has_ended("large.png")
    texts = start.page.evaluate("window.texts")
    steps = [re.match("Upload|Waiting in the queue|Processing", text) for text in texts]
    assert list(dict.fromkeys(step[0] for step in steps if step)) == ["Upload", "Waiting in the queue", "Processing"]
    assert [request for request in start.requests if request.url.endswith("/events")]


def test_what_exceeds_the_limit_waits_in_the_page_and_goes_on_by_itself(
    open_start: Callable[..., StartPage], held_page_worker: Callable[[], None]
) -> None:
    start = open_start(refusals={429})
    start.choose(*make_uploads(PAGE_LIMIT + 4))

    notice = start.page.locator("#pause")
    expect(notice).to_contain_text(
        re.compile(r"The service limits .* \d+ images? waits? in this page; the next one is sent in \d+ s\.")
    )
    expect(start.announced).to_contain_text("They are sent later, without any action of yours.")
    start.shoot("limit")
    held_page_worker()  # before, an end would be announced instead

    expect(start.page.locator("#cards [data-state=completed]")).to_have_count(PAGE_LIMIT + 4, timeout=RECOVERED_MS)
    expect(notice).to_be_hidden()


def test_image_survives_a_restart_of_the_api(
    whole_stack: Stack, open_start: Callable[..., StartPage], held_page_worker: Callable[[], None]
) -> None:
    start = open_start(is_service_stable=False, refusals={502, 503})
    start.choose(*make_uploads(2))
    expect(start.page.get_by_text("Waiting in the queue")).to_have_count(2)

    os.kill(whole_stack.pid("api"), signal.SIGKILL)
    expect(start.page.get_by_text("Connection lost. Reconnecting").first).to_be_visible()
    start.shoot("reconnecting")
    start.choose(make_upload("sent meanwhile.png", make_noise()))
    held_page_worker()

    for name in ("image 0.png", "image 1.png", "sent meanwhile.png"):
        expect(start.card(name)).to_have_attribute("data-state", "completed", timeout=RECOVERED_MS)


def test_image_survives_a_restart_of_redis(
    whole_stack: Stack, open_start: Callable[..., StartPage], held_page_worker: Callable[[], None]
) -> None:
    start = open_start(is_service_stable=False, refusals={502, 503})
    start.choose(*make_uploads(2))
    expect(start.page.get_by_text("Waiting in the queue")).to_have_count(2)

    os.kill(whole_stack.pid("redis"), signal.SIGKILL)
    held_page_worker()
    start.choose(make_upload("sent meanwhile.png", make_noise()))

    for name in ("image 0.png", "image 1.png", "sent meanwhile.png"):
        expect(start.card(name)).to_have_attribute("data-state", "completed", timeout=RECOVERED_MS)


def test_job_is_cancelled_where_it_waits(
    page_stack: Stack, start: StartPage, held_page_worker: Callable[[], None]
) -> None:
    start.choose(*make_uploads(3))
    expect(start.page.get_by_text("Waiting in the queue")).to_have_count(3)

    start.press("Cancel image 2.png")
    expect(start.card("image 2.png")).to_have_attribute("data-state", "cancelled")
    start.press("Cancel all")
    expect(start.page.get_by_role("heading", name="Results")).to_be_focused()
    held_page_worker()  # it has been given the first one

    expect(start.page.locator("#cards [data-state=cancelled]")).to_have_count(3)
    start.shoot("cancelled")
    with Redis.from_url(page_stack.redis_url) as redis:
        assert redis.llen("rq:queue:analysis-vit-tiny-cifar10") == 0


def test_upload_is_cancelled_on_its_way(start: StartPage) -> None:
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": SLOW_BYTES_PER_S}
    start.protocol.send("Network.emulateNetworkConditions", limits)
    start.choose(make_upload("large.png", make_noise()))
    expect(start.card("large.png")).to_contain_text("Uploading")

    start.page.get_by_role("button", name="Cancel large.png").dblclick()  # Try again takes its place
    start.protocol.send("Network.emulateNetworkConditions", limits | {"uploadThroughput": -1})
    expect(start.card("large.png")).to_contain_text("Cancelled.")
    start.press("Try large.png again")

    expect(start.page.get_by_role("heading", name="large.png")).to_be_focused()
    start.has_ended("large.png")


def test_upload_that_takes_too_long_is_not_sent_again_by_itself(open_start: Callable[..., StartPage]) -> None:
    start = open_start(refusals={408})
    problem = {"code": "request_timeout", "detail": "The body did not arrive within 60 s: send a smaller one."}
    start.page.route("**/analyze-image", lambda route: route.fulfill(status=408, json=problem))
    start.choose(make_upload("large.png", make_noise()))

    expect(start.card("large.png")).to_contain_text(problem["detail"])
    expect(start.page.locator("#pause")).to_be_hidden()
    start.page.unroute("**/analyze-image")
    start.press("Try large.png again")
    start.has_ended("large.png")
    assert len(start.submissions) == 2


def test_file_that_is_deleted_while_it_waits_fails_alone(open_start: Callable[..., StartPage], tmp_path: Path) -> None:
    start = open_start(refusals={503}, failures={FILE_IS_GONE})
    paths = [tmp_path / name for name in ("gone.png", "kept.png")]
    for path in paths:
        path.write_bytes(make_noise())
    busy = {"status": 503, "headers": {"Retry-After": "3"}, "json": {"code": "queue_full", "detail": "Full."}}
    start.page.route("**/analyze-image", lambda route: route.fulfill(**busy))
    with start.page.expect_file_chooser() as chooser:
        start.press("Choose images")
    chooser.value.set_files(paths)
    expect(start.page.locator("#pause")).to_contain_text("The service is busy. 2 images wait in this page")

    paths[0].unlink()
    start.page.unroute("**/analyze-image")

    expect(start.card("gone.png")).to_contain_text("The file has changed or is gone: choose it again.")
    expect(start.page.get_by_role("button", name="Try gone.png again")).to_be_hidden()
    start.has_ended("kept.png")
    expect(start.page.locator("#pause-text")).not_to_contain_text("cannot be reached")


def test_proxy_that_finds_no_service_ends_no_job(
    open_start: Callable[..., StartPage], held_page_worker: Callable[[], None]
) -> None:
    start = open_start(refusals={404})
    start.page.route("**/analyze-image", lambda route: route.fulfill(status=404, body="404 page not found"))
    start.choose(*make_uploads(1))
    expect(start.page.locator("#pause")).to_contain_text("The service cannot be reached.")
    start.page.unroute("**/analyze-image")
    expect(start.card("image 0.png")).to_contain_text("Waiting in the queue")

    start.page.route("**/analysis-status/**", lambda route: route.fulfill(status=404, body="404 page not found"))
    start.page.reload()
    expect(start.card("image 0.png")).to_contain_text("Connection lost. Reconnecting")
    start.page.unroute("**/analysis-status/**")
    held_page_worker()

    start.has_ended("image 0.png")


def test_image_that_the_service_has_not_answered_for_is_cancelled_there(
    page_stack: Stack, start: StartPage, httpserver: HTTPServer
) -> None:
    asked, may_answer = Event(), Event()

    def answer_late(_request: Request) -> Response:
        asked.set()
        may_answer.wait(PATIENCE_S)
        return Response(make_noise(), content_type="image/png")

    httpserver.expect_request("/late.png").respond_with_handler(answer_late)

    def delay(route: Route) -> None:
        """Let the job end before it is cancelled."""
        job_id = route.request.url.rpartition("/")[2]
        httpx.get(f"{page_stack.api_url}/analysis-status/{job_id}", params={"wait": 60}, trust_env=False)
        route.continue_()

    start.page.route("**/analysis/*", delay)
    start.page.get_by_label("Address of an image").fill(httpserver.url_for("/late.png"))
    start.press("Analyze URL")
    expect(start.card("late.png")).to_contain_text("The service fetches the image")
    wait_until(asked.is_set, "the service has the whole request")

    start.press("Cancel late.png")
    expect(start.card("late.png")).to_contain_text("Cancelling")
    cancel = start.page.get_by_role("button", name="Cancel late.png")
    expect(cancel).to_be_focused()
    expect(cancel).to_have_attribute("aria-disabled", "true")
    start.page.keyboard.press("Enter")
    may_answer.set()

    expect(start.card("late.png")).to_have_attribute("data-state", "cancelled")
    expect(start.page.get_by_role("button", name="Remove late.png")).to_be_focused()
    assert [request for request in start.requests if request.method == "DELETE"]
    # The job has ended before its cancellation, which deleted it: to follow it would be an error.
    assert not [request for request in start.requests if request.url.endswith("/events")]


def test_job_that_is_gone_fails_alone_and_the_others_are_still_asked_for(
    page_stack: Stack, open_start: Callable[..., StartPage], held_page_worker: Callable[[], None]
) -> None:
    start = open_start(refusals={404})
    start.choose(*make_uploads(4))
    expect(start.page.get_by_text("Waiting in the queue")).to_have_count(4)
    with start.page.expect_response("**/analyze-image") as accepted:
        start.choose(make_upload("gone.png", make_noise()))
    job_id = accepted.value.json()["job_id"]
    problem = {"code": "job_not_found", "detail": "The job has expired."}
    start.page.route(f"**/analysis-status/{job_id}", lambda route: route.fulfill(status=404, json=problem))
    start.choose(make_upload("last.png", make_noise()))

    expect(start.card("gone.png")).to_contain_text("The job has expired.")
    expect(start.card("last.png")).to_contain_text(re.compile(r"Waiting in the queue, place \d"))
    held_page_worker()
    start.has_ended("last.png")
