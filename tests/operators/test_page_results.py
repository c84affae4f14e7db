"""The page at `/` in a browser: what a result shows, what the tab keeps of it, and the files that it becomes."""

import csv
import os
import re
from collections.abc import Callable
from io import StringIO

from playwright.sync_api import expect

from operators.conftest import STRANGE_LABEL
from operators.start_page import StartPage, make_upload, read_json
from support.samples import CHELSEA, make_png
from support.waiting import wait_until

STRANGE_NAME = "<img src=x onerror=document.title='broken'>.png"
PERCENT = r"\d+\.\d%"


def test_result_has_numbers_model_time_and_the_cache(start: StartPage) -> None:
    start.choose(CHELSEA)
    start.has_ended("chelsea.png")
    start.press("Remove chelsea.png")
    start.choose(CHELSEA)

    card = start.card("chelsea.png")
    expect(card.locator(".best")).to_have_text(re.compile(f"^cat{PERCENT}$"))
    rows = card.get_by_role("list", name="Predictions").get_by_role("listitem")
    expect(rows).to_have_text([re.compile(f"^[a-z]+{PERCENT}$")] * 5)
    widths = [float(row.evaluate("(bar) => bar.style.inlineSize").rstrip("%")) for row in rows.locator(".fill").all()]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 90
    expect(card.locator(".meta")).to_have_text(re.compile(r"^vit-tiny-cifar10took .*s the first time.*s in allcached$"))


def test_names_and_labels_stay_text(start: StartPage) -> None:
    start.page.get_by_label("Model").select_option(label="strange-model")
    start.page.get_by_role("spinbutton", name="Predictions").fill("30")
    start.choose(make_upload(STRANGE_NAME, make_png(5)))

    card = start.card(STRANGE_NAME)
    expect(card.get_by_text(STRANGE_LABEL)).not_to_have_count(0)
    expect(card.get_by_role("heading", name=STRANGE_NAME)).to_be_visible()
    start.press("See all labels")
    expect(start.page.get_by_role("list", name="Labels").get_by_text(STRANGE_LABEL)).to_be_visible()
    start.page.keyboard.press("Escape")
    expect(start.page.locator("img[onerror]")).to_have_count(0)
    assert start.page.title() == "Image Analysis API"


def test_tab_keeps_its_results_over_a_reload_and_no_other_tab_sees_them(
    start: StartPage, open_start: Callable[..., StartPage]
) -> None:
    start.choose(CHELSEA)
    start.has_ended("chelsea.png")
    expect(start.card("chelsea.png")).to_contain_text("cat")
    wait_until(
        lambda: "data:image" in start.page.evaluate("sessionStorage['image-analysis-history'] ?? ''"), "it is kept"
    )

    start.page.reload()

    expect(start.card("chelsea.png").locator(".best")).to_contain_text("cat")
    expect(start.card("chelsea.png").locator("img")).to_have_attribute("src", re.compile("^data:image/"))
    assert len(start.submissions) == 1
    other = start.page.context.new_page()
    other.goto(start.url)
    expect(other.get_by_text("Your pictures and what the model sees in them appear here.")).to_be_visible()


def test_reload_follows_a_job_that_still_runs(start: StartPage, held_page_worker: Callable[[], None]) -> None:
    start.choose(make_upload("waits.png", make_png(int.from_bytes(os.urandom(3)))))
    expect(start.card("waits.png")).to_have_attribute("data-state", "pending")

    start.page.reload()
    expect(start.card("waits.png")).to_contain_text("Waiting in the queue")
    held_page_worker()

    start.has_ended("waits.png")


def test_cleared_results_stay_cleared(start: StartPage) -> None:
    start.choose(CHELSEA, make_upload("other.png", make_png(1)))
    start.has_ended("chelsea.png")
    start.has_ended("other.png")

    start.press("Clear")
    expect(start.cards).to_have_count(0)
    start.page.reload()

    expect(start.page.locator("#workers")).to_have_attribute("data-state", "ready")
    expect(start.cards).to_have_count(0)


def test_double_click_removes_one_card(start: StartPage) -> None:
    start.choose(*[make_upload(f"{number}.png", make_png(number)) for number in range(3)])
    expect(start.page.locator("#cards [data-state=completed]")).to_have_count(3)

    start.cards.first.get_by_role("button", name="Remove").dblclick()

    expect(start.cards).to_have_count(2)


def test_results_become_csv_and_json_with_their_file_names(open_start: Callable[..., StartPage]) -> None:
    start = open_start(refusals={400})
    names = ["chelsea.png", "=1+1.png", 'a "quoted", name.png']
    start.choose(*[make_upload(name, CHELSEA.read_bytes()) for name in names], make_upload("+bad.png", b"no image"))
    expect(start.page.locator("#cards [data-state=completed]")).to_have_count(3)
    expect(start.card("+bad.png")).to_have_attribute("data-state", "failed")

    table = start.save("CSV").decode("utf-8-sig")
    records = read_json(start.save("JSON"))

    rows = list(csv.DictReader(StringIO(table)))
    assert [row["file"] for row in rows] == ["chelsea.png", "'=1+1.png", 'a "quoted", name.png', "'+bad.png"]
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert [(row["status"], row["label"], row["error_code"]) for row in rows] == [
        *[("COMPLETED", "cat", "")] * 3,
        ("FAILED", "", "unsupported_image"),
    ]
    assert [record["file"] for record in records] == [*names, "+bad.png"]
    assert [record["result"] and record["result"]["label"] for record in records] == ["cat", "cat", "cat", None]
    assert float(rows[0]["confidence"]) == records[0]["result"]["confidence"]
