"""The page at `/` in a browser: photos get their labels, a bad file fails alone, names stay text."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from operators.pages import open_page
from stack import Stack
from support.samples import CHELSEA, make_png

STRANGE_NAME = "<img src=x onerror=document.title='broken'>.png"


@pytest.fixture(scope="module")
def page_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    environment = {"REDIS_URL": "", "REDIS_HOST": "", "RATE_LIMIT_MAX_REQUESTS": "100"}
    with Stack(environment, free_ports=True, log=tmp_path_factory.mktemp("page") / "stack.log") as stack:
        yield stack


@pytest.fixture
def start(page_stack: Stack, browser: Browser) -> Iterator[Page]:
    with open_page(browser) as page:
        page.goto(f"{page_stack.api_url}/")
        yield page


def test_chosen_photo_gets_its_labels_without_another_click(start: Page) -> None:
    start.locator("input[type=file]").first.set_input_files(CHELSEA)

    card = start.get_by_role("listitem").filter(has_text="chelsea.png")
    expect(card).to_contain_text("cat")
    expect(card).to_contain_text("vit-tiny-cifar10")


def test_bad_file_fails_alone_and_says_why(page_stack: Stack, browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "notes.png"
    bad.write_text("no image")
    start = browser.new_page()  # `open_page` would complain about the refusal
    start.goto(f"{page_stack.api_url}/")

    start.locator("input[type=file]").first.set_input_files([CHELSEA, bad])

    expect(start.get_by_role("listitem").filter(has_text="chelsea.png")).to_contain_text("cat")
    expect(start.get_by_role("listitem").filter(has_text="notes.png")).to_contain_text("unsupported_image")
    start.close()


def test_file_name_stays_text(start: Page) -> None:
    start.locator("input[type=file]").first.set_input_files(
        {"name": STRANGE_NAME, "mimeType": "image/png", "buffer": make_png(5)}
    )

    expect(start.get_by_role("heading", name=STRANGE_NAME)).to_be_visible()
    assert start.title() != "broken"


def test_page_says_what_the_demo_model_knows(start: Page) -> None:
    expect(start.locator("body")).to_contain_text("This demo model knows 10 things")


def test_page_fits_a_narrow_screen(start: Page) -> None:
    start.set_viewport_size({"width": 360, "height": 740})

    assert start.evaluate("document.documentElement.scrollWidth") <= 360
