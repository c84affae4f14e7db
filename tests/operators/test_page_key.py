"""The page at `/` in a browser, where the service wants an API key: kept in this tab, sent in a header alone."""

import secrets
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect
from pytest_httpserver import HTTPServer

from operators.snippets import run_snippet
from operators.start_page import StartPage
from stack import Stack
from support.api_processes import one_api
from support.samples import CHELSEA, make_png

KEY = secrets.token_urlsafe(32)


@pytest.fixture(scope="module")
def key_url(page_stack: Stack) -> Iterator[str]:
    """An API that wants keys, with the workers of the stack."""
    keys = f"alice:{sha256(KEY.encode()).hexdigest()}"
    limits = {"RATE_LIMIT_MAX_REQUESTS": "100", "FETCH_ALLOWED_NETWORKS": "127.0.0.0/8"}
    with one_api(page_stack.redis_url, None, API_KEYS=keys, **limits) as url:
        yield f"{url}/"


@pytest.fixture
def locked(open_start: Callable[..., StartPage], key_url: str) -> StartPage:
    return open_start(key_url, refusals={401})


def test_key_is_asked_for_and_what_was_given_meanwhile_goes_on(locked: StartPage) -> None:
    expect(locked.page.get_by_text("API key needed")).to_be_visible()
    locked.choose(CHELSEA)
    expect(locked.card("chelsea.png")).to_contain_text("Waiting in this page")
    locked.shoot("locked")

    locked.page.get_by_label("API key").fill(KEY)
    locked.press("Use this key")

    expect(locked.card("chelsea.png").locator(".best")).to_contain_text("cat")
    expect(locked.page.get_by_label("API key")).to_be_hidden()
    expect(locked.page.get_by_label("Model").locator("option").first).to_have_text("vit-tiny-cifar10")


def test_wrong_key_is_refused_in_words(locked: StartPage) -> None:
    locked.page.get_by_label("API key").fill("wrong")
    locked.page.keyboard.press("Enter")

    expect(locked.page.get_by_role("alert").filter(has_text="The service does not know this key.")).to_be_visible()


def test_late_refusal_of_an_older_key_leaves_the_newer_one(locked: StartPage) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer wrong":
            held.append(route)
        else:
            route.continue_()

    locked.page.route("**/models", hold)
    locked.page.get_by_label("API key").fill("wrong")
    with locked.page.expect_request("**/models"):
        locked.press("Use this key")
    locked.press("Forget the key")
    locked.page.get_by_label("API key").fill(KEY)
    locked.press("Use this key")
    expect(locked.page.get_by_label("Model").locator("option").first).to_have_text("vit-tiny-cifar10")

    with locked.page.expect_response(lambda response: response.status == 401) as late:
        held[0].continue_()
    late.value.finished()
    locked.choose(CHELSEA)
    locked.has_ended("chelsea.png")

    expect(locked.page.get_by_label("API key")).to_be_hidden()
    expect(locked.page.locator("#workers")).to_contain_text("ready")
    assert KEY in locked.page.evaluate("Object.values(sessionStorage)")


def test_key_is_sent_in_a_header_alone(locked: StartPage, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/photo.png").respond_with_data(make_png(9), content_type="image/png")
    locked.page.get_by_label("API key").fill(KEY)
    locked.press("Use this key")
    expect(locked.page.get_by_label("API key")).to_be_hidden()
    before = len(locked.requests)

    locked.choose(CHELSEA)
    locked.page.get_by_label("Address of an image").fill(httpserver.url_for("/photo.png"))
    locked.press("Analyze URL")
    locked.has_ended("chelsea.png")
    locked.has_ended("photo.png")

    calls = [request for request in locked.requests[before:] if request.url.startswith("http")]
    assert {request.headers.get("authorization") for request in calls} == {f"Bearer {KEY}"}
    for request in locked.requests:
        others = {name: value for name, value in request.headers.items() if name != "authorization"}
        assert KEY not in f"{request.url} {others} {request.post_data_buffer!r}"
    assert KEY not in str([dict(entry[0].headers) for entry in httpserver.log])


def test_key_stays_in_its_tab_until_it_is_forgotten(locked: StartPage) -> None:
    locked.page.get_by_label("API key").fill(KEY)
    locked.press("Use this key")
    locked.page.reload()
    expect(locked.page.get_by_label("Model").locator("option").first).to_have_text("vit-tiny-cifar10")
    expect(locked.page.get_by_label("API key")).to_be_hidden()
    assert locked.page.evaluate("[JSON.stringify(localStorage), document.cookie]") == ["{}", ""]
    assert KEY in locked.page.evaluate("Object.values(sessionStorage)")

    other = locked.page.context.new_page()
    other.goto(locked.url)
    expect(other.get_by_label("API key")).to_be_visible()

    locked.press("Forget the key")
    expect(locked.page.get_by_label("API key")).to_be_focused()
    assert KEY not in locked.page.evaluate("Object.values(sessionStorage)")


def test_code_names_the_variable_and_never_the_key(locked: StartPage, tmp_path: Path) -> None:
    (tmp_path / "chelsea.png").write_bytes(CHELSEA.read_bytes())
    locked.page.get_by_label("API key").fill(KEY)
    locked.press("Use this key")
    locked.choose(CHELSEA)
    locked.has_ended("chelsea.png")
    locked.press("Code for chelsea.png")

    for language in ("curl", "Python", "JavaScript"):
        locked.page.get_by_role("radio", name=language).check()
        code = locked.page.get_by_label("Code", exact=True).inner_text()
        assert KEY not in code
        assert "IMAGE_ANALYSIS_API_KEY" in code
        assert "cat" in run_snippet(language, code, tmp_path, IMAGE_ANALYSIS_API_KEY=KEY)
