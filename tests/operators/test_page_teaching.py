"""The page at `/` in a browser: photos dropped on labels make a classifier, which answers for the next photos."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Locator, Route, expect

from operators.start_page import StartPage, make_upload
from stack import Stack
from support.samples import CHELSEA, encode, make_png

COUNT = 5
NAME = "fur-or-not"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Pieces of a cat's photo, and colors; a few more of each than a classifier needs."""
    folder = tmp_path_factory.mktemp("photos")
    cat = Image.open(CHELSEA).convert("RGB")
    photos: dict[str, list[Path]] = {"fur": [], "colors": []}
    for number in range(COUNT + 1):
        piece = cat.crop((10 * number, 5 * number, 10 * number + 200, 5 * number + 200))
        for label, content in (("fur", encode(piece, "PNG")), ("colors", make_png(600 + number))):
            path = folder / f"{label} {number}.png"
            path.write_bytes(content)
            photos[label].append(path)
    return photos


@pytest.fixture(autouse=True)
def forgotten(page_stack: Stack) -> Iterator[None]:
    """At the end, there are no classifiers."""
    yield
    with httpx.Client(base_url=page_stack.api_url, trust_env=False) as client:
        for classifier in client.get("/classifiers").json()["classifiers"]:
            client.delete(f"/classifiers/{classifier['name']}").raise_for_status()


@pytest.fixture
def lesson(start: StartPage) -> StartPage:
    """The page with its dialog open."""
    return open_lesson(start)


def open_lesson(start: StartPage) -> StartPage:
    start.press("Teach your own labels")
    start.page.get_by_label("Name of the classifier").fill(NAME)
    return start


def add_labels(start: StartPage, *labels: str) -> None:
    for label in labels:
        start.page.get_by_label("New label").fill(label)
        start.page.keyboard.press("Enter")


def pile(start: StartPage, label: str) -> Locator:
    return start.page.get_by_role("listitem", name=label, exact=True)


def photos_of(start: StartPage, label: str) -> Locator:
    return start.page.get_by_role("list", name=f"Photos of {label}").get_by_role("button")


def drop(start: StartPage, label: str, *paths: Path) -> None:
    """Drop files from outside of the browser on a label."""
    pile(start, label).scroll_into_view_if_needed()
    box = pile(start, label).bounding_box()
    assert box
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "data": data}
    for kind in ("dragEnter", "dragOver", "drop"):
        start.protocol.send("Input.dispatchDragEvent", {"type": kind, **place})


def teach(start: StartPage, photos: dict[str, list[Path]]) -> None:
    add_labels(start, *photos)
    for label, paths in photos.items():
        drop(start, label, *paths[:COUNT])
        expect(photos_of(start, label)).to_have_count(COUNT)
    start.press("Train")
    expect(start.page.get_by_text(f"{NAME} is trained.")).to_be_visible()


def classifier(start: StartPage) -> Locator:
    return start.page.get_by_label("Classifier", exact=True)


def test_dropped_photos_make_a_classifier_that_answers_for_the_next_ones(
    lesson: StartPage, photos: dict[str, list[Path]], page_stack: Stack
) -> None:
    teach(lesson, photos)

    assert lesson.cards.count() == 0
    lesson.shoot("trained")
    status = lesson.page.locator("#teach-status[role=status]")
    expect(status).to_contain_text("In cross-validation it was right for 100.0% of the photos.")
    lesson.press("Close")
    expect(classifier(lesson)).to_have_value(NAME)
    expect(lesson.page.get_by_text("these labels instead: fur, colors, or none of these.")).to_be_visible()
    lesson.choose(photos["fur"][COUNT])
    lesson.has_ended("fur 5.png")
    expect(lesson.card("fur 5.png")).to_contain_text("fur")
    expect(lesson.card("fur 5.png")).to_contain_text("none of these")
    known = httpx.get(f"{page_stack.api_url}/classifiers/{NAME}", trust_env=False).json()
    assert known["examples"] == {"colors": COUNT, "fur": COUNT}

    lesson.press("Code for fur 5.png")
    expect(lesson.page.get_by_label("Code", exact=True)).to_contain_text(f"classifier={NAME}")


def test_long_label_widens_nothing(lesson: StartPage) -> None:
    lesson.page.set_viewport_size({"width": 390, "height": 844})
    add_labels(lesson, "m" * 256, "n" * 256)

    lesson.press("Train")

    expect(lesson.page.get_by_text(f"{'m' * 256} needs 5 more photos.")).to_be_visible()
    dialog = lesson.page.locator("#teach-dialog")
    assert dialog.evaluate("(dialog) => dialog.scrollWidth <= dialog.clientWidth")
    lesson.page.screenshot(path=lesson.screenshots / "long-labels.png")


def test_labels_and_choice_stay_in_the_tab(lesson: StartPage, photos: dict[str, list[Path]]) -> None:
    teach(lesson, photos)

    lesson.page.reload()

    expect(classifier(lesson)).to_have_value(NAME)
    lesson.press("Teach your own labels")
    expect(lesson.page.get_by_label("Name of the classifier")).to_have_value(NAME)
    expect(lesson.page.get_by_text("A classifier has this name. Training replaces it.")).to_be_visible()
    expect(pile(lesson, "fur")).to_contain_text("Drop 5 photos or more here")
    lesson.press("Close")
    classifier(lesson).select_option(label="None: the model's labels")
    expect(lesson.page.get_by_text("these labels instead")).to_be_hidden()
    lesson.choose(photos["fur"][0])
    lesson.has_ended("fur 0.png")
    expect(lesson.card("fur 0.png")).not_to_contain_text("none of these")


def test_photo_that_cannot_be_used_is_named_and_leaves_its_label(
    lesson: StartPage, photos: dict[str, list[Path]], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(encode(Image.open(CHELSEA), "PNG")[:3000])
    add_labels(lesson, *photos)
    drop(lesson, "fur", *photos["fur"][:COUNT], bad)
    drop(lesson, "colors", *photos["colors"][:COUNT])
    expect(photos_of(lesson, "fur")).to_have_count(COUNT + 1)

    lesson.press("Train")

    expect(lesson.page.get_by_role("alert").filter(has_text="Removed what cannot be used: bad.png: ")).to_be_visible()
    expect(photos_of(lesson, "fur")).to_have_count(COUNT)
    sent = len(lesson.submissions)
    lesson.press("Train")
    expect(lesson.page.get_by_text(f"{NAME} is trained.")).to_be_visible()
    assert len(lesson.submissions) == sent


def test_dialog_works_by_keyboard(start: StartPage) -> None:
    # From the first listener on, the browser opens no window of its own to choose files; a key alone could be faster.
    start.page.on("filechooser", lambda _chooser: None)
    start.page.get_by_role("button", name="Teach your own labels").focus()
    start.page.keyboard.press("Enter")
    start.page.get_by_label("New label").focus()
    start.page.keyboard.type("fur")
    start.page.keyboard.press("Enter")
    expect(pile(start, "fur")).to_be_visible()
    expect(start.page.locator("#teach-status")).to_have_text("Added fur.")
    expect(start.page.get_by_label("New label")).to_be_focused()

    for _ in range(2):
        start.page.keyboard.press("Tab")
    expect(start.page.get_by_role("button", name="Add photos of fur")).to_be_focused()
    with start.page.expect_file_chooser() as chooser:
        start.page.keyboard.press("Enter")
    chooser.value.set_files([make_upload(f"{number}.png", make_png(number)) for number in range(2)])
    expect(pile(start, "fur")).to_contain_text("2 photos, 3 more needed")
    for _ in range(2):
        start.page.keyboard.press("Tab")
    expect(start.page.get_by_role("button", name="Remove 0.png from fur")).to_be_focused()
    start.page.keyboard.press("Enter")
    expect(start.page.get_by_role("button", name="Remove 1.png from fur")).to_be_focused()
    start.page.keyboard.press("Shift+Tab")
    start.page.keyboard.press("Enter")
    expect(pile(start, "fur")).to_have_count(0)
    expect(start.page.get_by_label("New label")).to_be_focused()
    start.page.keyboard.press("Escape")
    expect(start.page.get_by_role("button", name="Teach your own labels")).to_be_focused()


def test_what_is_missing_is_said(lesson: StartPage, photos: dict[str, list[Path]]) -> None:
    def is_said(text: str) -> None:
        expect(lesson.page.get_by_role("alert").filter(has_text=text)).to_be_visible()

    lesson.press("Train")
    is_said("Add at least two labels, and drop photos on each.")
    add_labels(lesson, "fur", "colors", "fur")
    is_said("This label is there already.")
    add_labels(lesson, "None of these")
    is_said("it is the answer for photos of none of your labels")
    drop(lesson, "fur", *photos["fur"][: COUNT - 1], Path(__file__))
    is_said("Left out 1 file: only images count")
    lesson.press("Train")
    is_said("fur needs 1 more photo.")
    lesson.page.get_by_label("Name of the classifier").fill("No Name")
    lesson.press("Train")
    is_said("A name has a to z, 0 to 9, _ and -")
    assert lesson.submissions == []


def test_what_is_dropped_or_pasted_off_the_labels_is_not_analyzed(lesson: StartPage) -> None:
    data: dict[str, Any] = {"items": [], "files": [str(CHELSEA)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        lesson.protocol.send("Input.dispatchDragEvent", {"type": kind, "x": 20, "y": 20, "data": data})
    lesson.page.evaluate("navigator.clipboard.writeText('https://example.com/cat.jpg')")
    lesson.press("Train")
    lesson.page.keyboard.press("Control+V")

    expect(lesson.page.get_by_role("alert").filter(has_text="Add at least two labels")).to_be_visible()
    assert (lesson.cards.count(), lesson.submissions) == (0, [])


def test_busy_service_delays_the_training_only(
    open_start: Callable[..., StartPage], photos: dict[str, list[Path]]
) -> None:
    start = open_lesson(open_start(refusals={503}))
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        path = httpx.URL(route.request.url).path
        if path in refused:
            route.continue_()
        else:
            refused.append(path)
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"code": "queue_full", "detail": "Full."})

    start.page.route("**/analyze-image", refuse_once)
    start.page.route(f"**/classifiers/{NAME}*", refuse_once)

    teach(start, photos)

    assert refused == ["/analyze-image", f"/classifiers/{NAME}"]


def test_stopped_training_sends_what_is_left_later(
    open_start: Callable[..., StartPage], photos: dict[str, list[Path]]
) -> None:
    lesson = open_lesson(open_start(refusals={503}))

    def is_stopped(text: str, at: str) -> None:
        lesson.press("Train")
        expect(lesson.page.locator("#teach-progress")).to_contain_text(at)
        expect(lesson.page.get_by_role("button", name="Stop", exact=True)).to_be_focused()
        lesson.page.keyboard.press("Enter")
        expect(lesson.page.get_by_role("alert").filter(has_text=text)).to_be_visible()
        expect(lesson.page.get_by_role("button", name="Train", exact=True)).to_be_focused()

    busy = {"status": 503, "headers": {"Retry-After": "1"}, "json": {"code": "queue_full", "detail": "Full."}}
    add_labels(lesson, *photos)
    for label, paths in photos.items():
        drop(lesson, label, *paths[:COUNT])
    lesson.page.route("**/analyze-image", lambda route: route.fulfill(**busy))
    is_stopped("Stopped. Train sends what is left.", "0 of 10 photos analyzed. The service is busy")
    lesson.page.unroute("**/analyze-image")
    lesson.page.route(f"**/classifiers/{NAME}*", lambda route: route.fulfill(**busy))
    is_stopped("The training was stopped.", "Training …")
    sent = len(lesson.submissions)
    lesson.page.unroute(f"**/classifiers/{NAME}*")

    lesson.press("Train")

    expect(lesson.page.get_by_text(f"{NAME} is trained.")).to_be_visible()
    assert len(lesson.submissions) == sent


def test_accepted_training_is_cancelled(lesson: StartPage, photos: dict[str, list[Path]]) -> None:
    job = {"job_id": "3b2f8f0e-0d5a-4a52-9d3c-6e3c5a0d3c11", "status": "PENDING"}
    cancelled: list[str] = []

    def cancel(route: Route) -> None:
        cancelled.append(route.request.method)
        route.fulfill(json=job | {"status": "CANCELLED"})

    lesson.page.route(f"**/classifiers/{NAME}*", lambda route: route.fulfill(status=202, json=job))
    lesson.page.route(f"**/analysis-status/{job['job_id']}*", lambda route: route.fulfill(json=job))
    lesson.page.route(f"**/analysis-status/{job['job_id']}/events", lambda _route: None)
    lesson.page.route(f"**/analysis/{job['job_id']}", cancel)
    add_labels(lesson, *photos)
    for label, paths in photos.items():
        drop(lesson, label, *paths[:COUNT])
    lesson.press("Train")
    expect(lesson.page.locator("#teach-progress")).to_have_text("Training …")

    lesson.press("Stop")

    expect(lesson.page.get_by_role("alert").filter(has_text="The training was stopped.")).to_be_visible()
    assert cancelled == ["DELETE"]


def test_wrong_answers_become_examples(
    open_start: Callable[..., StartPage], photos: dict[str, list[Path]], page_stack: Stack
) -> None:
    lesson = open_lesson(open_start(refusals={400}))
    teach(lesson, photos)
    lesson.press("Close")
    other = {"fur 5.png": "colors", "colors 5.png": "fur"}
    lesson.choose(*(paths[COUNT] for paths in photos.values()))
    for name in other:
        lesson.has_ended(name)
    lesson.page.route("**/examples", lambda route: route.fulfill(status=400, json={"code": "x", "detail": "Not now."}))
    for name, label in other.items():
        lesson.page.get_by_label(f"Right label of {name}").select_option(label=label)
        lesson.card(name).get_by_role("button", name="Teach it").click()
        expect(lesson.card(name)).to_contain_text("Not now.")
    lesson.page.unroute("**/examples")

    for name, label in other.items():
        lesson.page.get_by_label(f"Right label of {name}").select_option(label=label)
        lesson.shoot("correction")
        lesson.card(name).get_by_role("button", name="Teach it").click()
        expect(lesson.card(name).get_by_role("status")).to_be_focused()

    for name, label in other.items():
        learned = f"Learned as {label}. In cross-validation, {NAME} is now right for "
        expect(lesson.card(name).get_by_role("status")).to_contain_text(learned)
    known = httpx.get(f"{page_stack.api_url}/classifiers/{NAME}", trust_env=False).json()
    assert known["examples"] == {"colors": COUNT + 1, "fur": COUNT + 1}
    assert lesson.faults_of_access() == []
    lesson.shoot("corrected")


def test_chosen_classifier_is_deleted(lesson: StartPage, photos: dict[str, list[Path]], page_stack: Stack) -> None:
    teach(lesson, photos)
    lesson.press("Close")
    lesson.page.once("dialog", lambda dialog: dialog.dismiss())
    lesson.press(f"Delete {NAME}")
    expect(classifier(lesson)).to_have_value(NAME)
    lesson.page.once("dialog", lambda dialog: dialog.accept())

    lesson.press(f"Delete {NAME}")

    expect(lesson.announced).to_have_text(f"{NAME} is deleted.")
    expect(classifier(lesson)).to_be_focused()
    expect(classifier(lesson).locator("option")).to_have_text(["None: the model's labels"])
    expect(lesson.page.get_by_role("button", name=f"Delete {NAME}")).to_be_hidden()
    assert httpx.get(f"{page_stack.api_url}/classifiers/{NAME}", trust_env=False).status_code == 404


def test_classifier_of_an_earlier_model_cannot_be_chosen(start: StartPage, page_stack: Stack) -> None:
    old = {"name": "old", "model": {"id": "vit-tiny-cifar10", "revision": "gone"}}
    other = {"name": "other", "model": {"id": "acme/other", "revision": "1"}}
    start.page.route("**/classifiers", lambda route: route.fulfill(json={"classifiers": [old, other]}))
    start.page.reload()

    expect(classifier(start).locator("option")).to_have_text(["None: the model's labels", "old (of an earlier model)"])
    expect(classifier(start).locator("option").last).to_be_disabled()


def test_model_whose_workers_do_not_train_offers_nothing(start: StartPage) -> None:
    def without(route: Route) -> None:
        models = route.fetch().json()["models"]
        route.fulfill(json={"models": [model | {"trains": False} for model in models]})

    expect(classifier(start)).to_be_visible()
    start.page.route("**/models", without)
    start.page.reload()

    expect(start.page.get_by_text("1 worker ready")).to_be_visible()
    expect(classifier(start)).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dialog_is_for_everybody(
    open_start: Callable[..., StartPage], photos: dict[str, list[Path]], scheme: str
) -> None:
    start = open_lesson(open_start(color_scheme=scheme))
    assert start.faults_of_access() == []
    teach(start, photos)
    start.press("Train")
    start.shoot(f"dialog-{scheme}")
    assert start.faults_of_access() == []
    start.press("Close")
    assert start.faults_of_access() == []
