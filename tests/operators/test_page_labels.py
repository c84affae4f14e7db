"""The page at `/` in a browser: labels for a zero-shot model, whose worker the test plays."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from playwright.sync_api import Locator, expect
from redis import Redis

from image_analysis_common import keys, tasks
from image_analysis_common.models import (
    TOP_K,
    ZERO_SHOT,
    AnalysisResult,
    ModelAnnouncement,
    ModelRef,
    Prediction,
    Question,
)
from operators.start_page import StartPage, make_upload
from stack import Stack
from support.replies import decoded, read_record
from support.samples import CHELSEA, make_png
from support.steps import Steps
from support.waiting import wait_until

MODEL = ModelRef(id="acme/clip", revision="r1", preprocessing="1")
QUEUE = f"rq:queue:{tasks.queue_name(MODEL.id)}"
HOUR_S = 3600


class Worker(NamedTuple):
    """Plays the worker of the zero-shot model."""

    redis: Redis
    steps: Steps

    def job(self) -> str:
        """Wait for a job, and take it."""
        wait_until(lambda: bool(self.redis.llen(QUEUE)), "a job is queued")
        return decoded(self.redis.lpop(QUEUE))

    def complete(self, job_id: str) -> None:
        """End a job; the first label fits best."""
        question = self.question(job_id) or Question(labels=())
        predictions = [Prediction(label=label, confidence=0.5**n) for n, label in enumerate(question.labels, 1)]
        best = predictions[0]
        result = AnalysisResult(
            label=best.label, confidence=best.confidence, predictions=predictions[:TOP_K], model=MODEL
        )
        self.steps.complete(job_id, result)

    def question(self, job_id: str) -> Question | None:
        return read_record(self.redis.hgetall(keys.job(job_id))).question


@pytest.fixture
def worker(page_stack: Stack) -> Iterator[Worker]:
    """The model is announced, and has a worker, as far as the service can see."""
    announcement = ModelAnnouncement(
        model=MODEL,
        labels=[],
        accuracy=None,
        device="cpu",
        dtype="float32",
        max_batch_size=1,
        inference_ms=1,
        task=ZERO_SHOT,
    )
    with Redis.from_url(page_stack.redis_url) as redis:
        now_s, _ = redis.time()
        redis.set(keys.announcement(MODEL.id), announcement.model_dump_json(), ex=HOUR_S)
        redis.zadd(keys.MODELS, {MODEL.id: now_s})
        redis.zadd(keys.workers(MODEL.id), {"w": now_s + HOUR_S})
        yield Worker(redis, Steps(redis, MODEL.id))
        redis.zrem(keys.MODELS, MODEL.id)
        redis.delete(keys.announcement(MODEL.id), keys.workers(MODEL.id), QUEUE)


@pytest.fixture
def start(worker: Worker, open_start: Callable[..., StartPage]) -> StartPage:
    start = open_start()
    start.page.get_by_label("Model").select_option(label=MODEL.id)
    expect(field(start)).to_be_visible()
    return start


def field(start: StartPage) -> Locator:
    return start.page.get_by_role("textbox", name="Your labels")


def chips(start: StartPage) -> Locator:
    return start.page.get_by_role("list", name="Your labels").get_by_role("listitem")


def paste(start: StartPage, text: str) -> None:
    start.page.evaluate("(text) => navigator.clipboard.writeText(text)", text)
    field(start).focus()
    start.page.keyboard.press("Control+V")


def test_labels_are_typed_sent_and_kept(start: StartPage, worker: Worker) -> None:
    field(start).press_sequentially("a cat")
    start.page.keyboard.press("Enter")
    field(start).press_sequentially("größe 🐕,")
    expect(chips(start)).to_have_text(["a cat", "größe 🐕"])
    expect(start.announced).to_have_text("Added größe 🐕.")
    field(start).fill("still typed")

    start.choose(CHELSEA)

    job_id = worker.job()
    labels = ("a cat", "größe 🐕", "still typed")
    assert worker.question(job_id) == Question(labels=labels)
    worker.complete(job_id)
    start.has_ended("chelsea.png")
    start.page.reload()
    expect(chips(start)).to_have_text([*labels])

    start.choose(make_upload("other.png", make_png(77)))
    other = worker.job()
    assert worker.question(other) == Question(labels=labels)
    worker.complete(other)
    start.choose(CHELSEA)
    expect(start.page.get_by_text("cached")).to_be_visible()
    start.shoot("labels")


def test_code_of_a_result_holds_its_labels(start: StartPage, worker: Worker) -> None:
    paste(start, "a cat, it's a dog")
    start.choose(make_upload("code.png", make_png(78)))
    worker.complete(worker.job())
    start.press("Code for code.png")

    code = start.page.get_by_label("Code", exact=True)
    expect(code).to_contain_text("--form-string 'labels=a cat'")
    expect(code).to_contain_text(r"--form-string 'labels=it'\''s a dog'")
    start.page.get_by_role("radio", name="Python").check()
    expect(code).to_contain_text("""labels=["a cat","it's a dog"]""")
    start.page.get_by_role("radio", name="JavaScript").check()
    expect(code).to_contain_text("""form.append("labels", "it's a dog");""")


def test_label_with_a_line_separator_comes_as_an_event(start: StartPage, worker: Worker) -> None:
    start.page.route("**/analysis-status/*", lambda _route: None)  # the page asks, too
    paste(start, "a\u2028cat,")
    start.choose(make_upload("separator.png", make_png(80)))

    worker.complete(worker.job())

    start.has_ended("separator.png")


@pytest.mark.parametrize("width_px", [390, 1280])
def test_long_label_widens_neither_the_panel_nor_the_page(start: StartPage, width_px: int) -> None:
    start.page.set_viewport_size({"width": width_px, "height": 844})

    paste(start, f"{'m' * 256}, a cat")

    expect(chips(start)).to_have_count(2)
    box, panel = (start.page.locator(name).bounding_box() for name in ("#labels-box", ".options"))
    assert box
    assert panel
    assert box["x"] + box["width"] < panel["x"] + panel["width"]
    assert start.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    start.shoot(f"long-label-{width_px}")


def test_pasted_list_becomes_chips_without_doubles(start: StartPage) -> None:
    paste(start, "a cat, a dog\na car,, a cat\r\n")
    expect(chips(start)).to_have_text(["a cat", "a dog", "a car"])
    expect(field(start)).to_have_value("")

    paste(start, "a boat")
    expect(chips(start)).to_have_count(3)
    expect(field(start)).to_have_value("a boat")


def test_pasted_cells_of_a_spreadsheet_are_labels_and_no_picture(start: StartPage) -> None:
    assert not start.paste(field(start), "a cat\na dog", make_png(79))

    expect(chips(start)).to_have_text(["a cat", "a dog"])
    assert start.cards.count() == 0


def test_field_works_by_keyboard(start: StartPage) -> None:
    paste(start, "one,two,three,four")
    start.page.keyboard.press("Backspace")
    expect(chips(start)).to_have_text(["one", "two", "three"])
    expect(start.announced).to_have_text("Removed four.")
    expect(field(start)).to_be_focused()

    for _ in range(2):
        start.page.keyboard.press("Shift+Tab")
    expect(start.page.get_by_role("button", name="Remove two")).to_be_focused()
    start.page.keyboard.press("Enter")

    expect(chips(start)).to_have_text(["one", "three"])
    expect(start.page.get_by_role("button", name="Remove three")).to_be_focused()
    start.page.keyboard.press("Space")
    expect(field(start)).to_be_focused()
    start.press("Remove one")
    expect(chips(start)).to_have_count(0)


def test_picture_without_labels_is_not_sent_and_the_page_says_what_to_do(start: StartPage) -> None:
    start.choose(CHELSEA)

    expect(start.page.get_by_role("alert").filter(has_text="add at least one")).to_be_visible()
    expect(field(start)).to_be_focused()
    expect(start.cards).to_have_count(0)
    assert start.submissions == []
    start.shoot("no-labels")
    paste(start, "a cat,")
    expect(start.page.get_by_text("add at least one")).to_have_count(0)


def test_more_than_200_labels_and_too_long_ones_stay_in_the_field(start: StartPage) -> None:
    paste(start, f"cat,{'x' * 257}")
    expect(start.page.get_by_role("alert").filter(has_text="At most 256 characters in a label.")).to_be_visible()
    expect(field(start)).to_have_value("x" * 257)
    field(start).fill("")

    paste(start, ",".join(f"thing {number}" for number in range(201)))
    expect(chips(start)).to_have_count(200)
    expect(start.page.get_by_role("alert").filter(has_text="At most 200 labels.")).to_be_visible()
    expect(field(start)).to_have_value("thing 199, thing 200")


def test_image_that_was_sent_without_labels_is_tried_again_with_them(
    start: StartPage, worker: Worker, open_start: Callable[..., StartPage]
) -> None:
    other = open_start(refusals={400})
    other.page.get_by_label("Model").select_option(label=MODEL.id)
    # The page does not know yet that the model is a zero-shot model now.
    other.page.route("**/models", lambda route: route.fulfill(json=as_classifier(route.fetch().json())))
    other.page.reload()
    expect(field(other)).to_be_hidden()
    other.choose(CHELSEA)
    expect(other.card("chelsea.png")).to_contain_text("labels_required")
    other.page.unroute_all()
    other.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    paste(other, "a cat,")

    other.press("Try chelsea.png again")

    job_id = worker.job()
    assert worker.question(job_id) == Question(labels=("a cat",))
    worker.complete(job_id)
    other.has_ended("chelsea.png")
    assert len(other.submissions) == 2


def as_classifier(answer: dict[str, list[dict[str, object]]]) -> dict[str, list[dict[str, object]]]:
    return {"models": [model | {"task": "image-classification"} for model in answer["models"]]}


def test_field_is_there_for_a_zero_shot_model_alone(start: StartPage) -> None:
    expect(start.page.get_by_text("It says which of yours fits a picture.")).to_be_visible()
    paste(start, "a cat,")

    start.page.get_by_label("Model").select_option(label="vit-tiny-cifar10")

    expect(field(start)).to_be_hidden()
    start.choose(CHELSEA)
    start.has_ended("chelsea.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_labels_are_for_everybody(worker: Worker, open_start: Callable[..., StartPage], scheme: str) -> None:
    start = open_start(color_scheme=scheme)
    start.page.get_by_label("Model").select_option(label=MODEL.id)
    paste(start, "a receipt, a passport, a selfie, a screenshot of a conversation, größe 🐕, ")
    start.shoot(f"labels-{scheme}")
    assert start.faults_of_access() == []
    for _ in range(5):
        start.page.keyboard.press("Backspace")
    start.choose(CHELSEA)
    expect(start.page.get_by_role("alert").filter(has_text="add at least one")).to_be_visible()

    start.shoot(f"no-labels-{scheme}")
    assert start.faults_of_access() == []
