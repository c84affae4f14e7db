"""The page at `/` in a browser, for everybody: light and dark, narrow and wide, by keyboard, screen reader, at rest."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from operators.start_page import StartPage, make_upload
from stack import Stack
from support.samples import CHELSEA, make_png

LONG_NAME = f"{'a very long name of a photo ' * 8}{'x' * 200}.png"
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 360, "height": 740}, "has_touch": True},
    "narrow-dark": {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"},
    "wide": {"viewport": {"width": 2400, "height": 1200}},
}
PREFIX = "/images/service/"
HOP_BY_HOP = ("connection", "content-encoding", "content-length", "transfer-encoding")
NOTE_JUMPS = """
const reveal = Element.prototype.scrollIntoView;
Element.prototype.scrollIntoView = function () {
  const before = scrollY;
  reveal.call(this);
  window.jumps.push(scrollY !== before);
};
window.jumps = [];
"""


@pytest.fixture
def proxied_url(page_stack: Stack) -> Iterator[str]:
    """Where a proxy serves the page under a prefix, which it takes away."""

    def forward(request: Request) -> Response:
        headers = {name: value for name, value in request.headers if name.lower() not in ("host", "connection")}
        url = f"{page_stack.api_url}/{request.full_path.removeprefix(PREFIX)}"
        answer = httpx.request(request.method, url, content=request.data, headers=headers, trust_env=False)
        kept = {name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP}
        return Response(answer.content, answer.status_code, kept)

    with HTTPServer(host="127.0.0.1", port=0, threaded=True) as proxy:
        proxy.expect_request(re.compile(f"^{PREFIX}.*")).respond_with_handler(forward)
        yield proxy.url_for(PREFIX)


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_and_nothing_overflows(open_start: Callable[..., StartPage], look: str) -> None:
    start = open_start(refusals={400}, **LOOKS[look])
    assert start.faults_of_access() == []

    start.choose(CHELSEA, make_upload("notes.png", b"no image"), make_upload(LONG_NAME, make_png(1)))
    start.has_ended("chelsea.png")
    start.has_ended(LONG_NAME)
    expect(start.card("notes.png")).to_have_attribute("data-state", "failed")

    assert start.faults_of_access() == []
    assert start.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    start.shoot(look)
    start.press("Code for chelsea.png")
    assert start.faults_of_access() == []
    start.page.screenshot(path=start.screenshots / f"{look}-code.png")


def test_main_job_needs_no_mouse(start: StartPage) -> None:
    keyboard = start.page.keyboard
    # Makes the browser report choosers from here on: `expect_file_chooser` does not wait for that, and a key is fast.
    start.page.on("filechooser", lambda chooser: None)
    keyboard.press("Tab")
    expect(start.page.get_by_role("link", name="Skip to the results")).to_be_focused()
    for _ in range(20):
        keyboard.press("Tab")
        if start.page.evaluate("document.activeElement.id") == "choose-files":
            break
    expect(start.page.get_by_role("button", name="Choose images")).to_be_focused()
    with start.page.expect_file_chooser() as chooser:
        keyboard.press("Enter")
    chooser.value.set_files(CHELSEA)
    start.has_ended("chelsea.png")

    for _ in range(40):
        keyboard.press("Tab")
        if start.page.evaluate("document.activeElement.ariaLabel") == "Code for chelsea.png":
            break
    keyboard.press("Enter")
    expect(start.page.get_by_role("dialog", name="Do this from your code")).to_be_visible()
    start.shoot("focus")
    keyboard.press("Escape")
    expect(start.page.get_by_role("button", name="Code for chelsea.png")).to_be_focused()
    keyboard.press("Tab")
    keyboard.press("Enter")
    expect(start.cards).to_have_count(0)
    expect(start.page.get_by_role("heading", name="Results")).to_be_focused()


def test_ends_are_announced(open_start: Callable[..., StartPage]) -> None:
    start = open_start(refusals={400})
    start.choose(CHELSEA)
    expect(start.announced).to_have_text("chelsea.png: cat, 97.3%.")

    start.choose(make_upload("notes.png", b"no image"))
    expect(start.announced).to_contain_text("notes.png failed: These bytes are not a supported image")

    start.page.clock.install()
    start.page.clock.pause_at(time.time() + 1)  # all six end before the page says anything
    start.choose(*[make_upload(f"{number}.png", make_png(number)) for number in range(6)])
    for number in range(6):
        start.has_ended(f"{number}.png")
    start.page.clock.resume()
    expect(start.announced).to_have_text("8 of 8 images done, 1 failed.")


@pytest.mark.parametrize(("wish", "is_still"), [("reduce", True), ("no-preference", False)])
def test_page_moves_only_for_those_who_do_not_mind(
    open_start: Callable[..., StartPage], wish: str, is_still: bool
) -> None:
    start = open_start(reduced_motion=wish, viewport={"width": 1000, "height": 500})
    start.page.evaluate(NOTE_JUMPS)
    start.choose(CHELSEA)
    start.has_ended("chelsea.png")
    expect(start.page.get_by_role("heading", name="Results")).to_be_in_viewport()

    assert start.page.evaluate("window.jumps") == [is_still]
    duration = start.cards.first.evaluate("(card) => parseFloat(getComputedStyle(card).animationDuration)")
    assert (duration < 0.001) == is_still


def test_page_works_under_a_prefix(proxied_url: str, open_start: Callable[..., StartPage]) -> None:
    start = open_start(proxied_url)
    start.choose(CHELSEA)

    expect(start.card("chelsea.png").locator(".best")).to_contain_text("cat")
    expect(start.page.get_by_text("This demo model knows 10 things")).to_be_visible()
    urls = [request.url for request in start.requests if request.url.startswith("http")]
    assert [url for url in urls if not url.startswith(proxied_url)] == []
    start.press("Code for chelsea.png")
    expect(start.page.get_by_label("Code", exact=True)).to_contain_text(f"{proxied_url}analyze-image")


def test_many_cards_stay_in_a_grid(open_start: Callable[..., StartPage]) -> None:
    start = open_start()
    start.choose(*[make_upload(f"photo {number}.png", make_png(number, size_px=(300, 200))) for number in range(14)])

    expect(start.page.locator("#cards [data-state=completed]")).to_have_count(14)
    start.shoot("many")
    boxes = [card.bounding_box() for card in start.cards.all()]
    tops = {round(box["y"]) for box in boxes if box}
    assert len(tops) == 5
