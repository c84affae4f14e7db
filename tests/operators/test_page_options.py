"""The page at `/` in a browser: the models to choose from, and the options that go with an image."""

import os
import re
import signal
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Route, expect

from operators.start_page import StartPage, make_upload
from stack import Stack
from support.samples import CHELSEA, make_png

STALE_S = 30
"""From a worker's death to the end of what its last heartbeat says."""


@pytest.fixture
def stopped_second_worker(page_stack: Stack) -> Iterator[None]:
    """The second model has no worker."""
    worker = page_stack.pid("second_worker")
    os.kill(worker, signal.SIGSTOP)
    yield
    os.kill(worker, signal.SIGCONT)


def test_model_picker_says_who_serves_a_model_and_what_it_knows(start: StartPage) -> None:
    picker = start.page.get_by_label("Model")
    expect(picker.locator("option")).to_have_text(["vit-tiny-cifar10", "strange-model"])
    expect(start.page.get_by_text("1 worker ready")).to_be_visible()
    expect(start.page.get_by_text("This demo model knows 10 things: airplane, automobile")).to_be_visible()
    expect(start.page.get_by_role("button", name="See all labels")).to_be_hidden()

    picker.select_option(label="strange-model")

    expect(start.page.get_by_text("This model knows 30 things.")).to_be_visible()
    start.press("See all labels")
    expect(start.page.get_by_role("heading", name="30 labels of strange-model")).to_be_visible()
    start.page.get_by_placeholder("Filter").fill("thing 2")
    expect(start.page.get_by_role("list", name="Labels").get_by_role("listitem")).to_have_count(11)
    start.shoot("labels")
    start.press("Close")
    start.choose(make_upload("chosen model.png", make_png(8)))
    expect(start.card("chosen model.png").locator(".meta")).to_contain_text("strange-model")


def test_page_asks_again_if_the_service_does_not_answer(start: StartPage) -> None:
    status, held = start.page.locator("#workers"), list[Route]()
    start.page.route("**/models", lambda route: held.append(route))

    start.page.reload()

    expect(status).to_have_text("Connecting")
    expect(status).to_have_text("The service cannot be reached", timeout=STALE_S * 1000)
    assert held
    start.page.unroute("**/models")
    expect(status).to_have_text("1 worker ready", timeout=STALE_S * 1000)


def test_page_says_that_no_worker_serves_a_model(start: StartPage, stopped_second_worker: None) -> None:
    picker = start.page.get_by_label("Model")
    expect(picker.locator("option")).to_have_text(
        ["vit-tiny-cifar10", "strange-model (no worker)"], timeout=STALE_S * 1000
    )
    picker.select_option(label="strange-model (no worker)")

    expect(start.page.get_by_text("No worker serves this model now.")).to_be_visible()
    start.choose(make_upload("waits.png", make_png(int.from_bytes(os.urandom(3)))))
    expect(start.card("waits.png")).to_contain_text("No worker serves its model now")
    start.shoot("no-worker")
    start.press("Cancel waits.png")


def test_page_says_that_no_worker_has_ever_joined(start: StartPage) -> None:
    start.page.route("**/models", lambda route: route.fulfill(json={"models": []}))

    start.page.reload()

    expect(start.page.locator("#workers")).to_have_text("No worker")
    expect(start.page.get_by_text("No worker serves this model now.")).to_be_visible()


def test_card_says_that_its_model_has_no_worker_from_when_that_is_known_until_one_joins(
    page_stack: Stack, start: StartPage, held_page_worker: Callable[[], None]
) -> None:
    models = httpx.get(f"{page_stack.api_url}/models", trust_env=False).json()["models"]
    card = start.card("waits.png")

    def ask_again(workers: int) -> None:
        answer = {"models": [model | {"workers": workers} for model in models]}
        start.page.unroute("**/models")
        start.page.route("**/models", lambda route: route.fulfill(json=answer))
        start.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    start.page.route("**/models", lambda _route: None)
    start.page.reload()
    start.choose(make_upload("waits.png", make_png(int.from_bytes(os.urandom(3)))))
    expect(card).to_contain_text("Waiting in the queue")
    expect(card).not_to_contain_text("No worker")

    ask_again(0)
    expect(card).to_contain_text("No worker serves its model now")

    ask_again(1)
    expect(card).not_to_contain_text("No worker")
    expect(card).to_contain_text("Waiting in the queue")
    held_page_worker()
    start.has_ended("waits.png")


def test_options_are_sent_and_kept(start: StartPage) -> None:
    start.page.get_by_role("spinbutton", name="Predictions").fill("3")
    start.choose(CHELSEA)
    rows = start.card("chelsea.png").get_by_role("list", name="Predictions").get_by_role("listitem")
    expect(rows).to_have_count(3)
    start.press("Remove chelsea.png")

    start.page.get_by_label("Hide predictions below").fill("50")
    expect(start.page.get_by_text("50%", exact=True)).to_be_visible()
    start.choose(CHELSEA)
    expect(rows).to_have_count(1)

    start.page.reload()
    expect(start.page.get_by_role("spinbutton", name="Predictions")).to_have_value("3")
    expect(start.page.get_by_label("Hide predictions below")).to_have_value("50")


def test_high_priority_goes_to_the_front(start: StartPage, held_page_worker: Callable[[], None]) -> None:
    seed = int.from_bytes(os.urandom(3))
    start.choose(*[make_upload(f"normal {number}.png", make_png(seed + number)) for number in range(3)])
    expect(start.card("normal 2.png")).to_contain_text(re.compile("place [23]"))

    start.page.get_by_role("radio", name="High").check()
    start.choose(make_upload("urgent.png", make_png(seed + 3)))

    expect(start.card("urgent.png")).to_contain_text("place 1")


def test_number_of_predictions_stays_within_its_bounds(start: StartPage) -> None:
    field = start.page.get_by_role("spinbutton", name="Predictions")
    for given, kept in {"0": "1", "1000": "100", "": "5", "2.6": "3"}.items():
        field.fill(given)
        field.blur()
        assert field.input_value() == kept
