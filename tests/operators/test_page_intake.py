"""The page at `/` in a browser: every way to give it an image leads to labels without another click."""

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from pytest_httpserver import HTTPServer

from operators.pages import launch
from operators.start_page import StartPage, make_upload
from support.samples import CHELSEA, make_jpeg, make_png
from support.waiting import wait_until

FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
PASTE_IMAGE = """async (data) => {
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) })]);
}"""

SLOW_PERMISSION = """
const devices = navigator.mediaDevices;
const open = devices.getUserMedia.bind(devices);
window.tracks = [];
window.answers = [];
devices.getUserMedia = async (wish) => {
  const stream = await open(wish);
  window.tracks.push(...stream.getTracks());
  await new Promise((resolve) => window.answers.push(resolve));
  return stream;
};
"""

DROP_TEXT = """(field) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.setData("text/plain", "example.com/cat.png");
  return field.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}"""

UNREADABLE_ENTRIES = """
const fail = (onError) => onError(new DOMException("", "NotReadableError"));
const spoil = (entry) => {
  if (entry.name === "gone.png") entry.file = (_, onError) => fail(onError);
  if (entry.isDirectory) {
    const reader = entry.createReader();
    const pass = (onEntries, onError) => reader.readEntries((entries) => onEntries(entries.map(spoil)), onError);
    const readEntries = entry.name === "locked" ? (_, onError) => fail(onError) : pass;
    entry.createReader = () => ({ readEntries });
  }
  return entry;
};
const { webkitGetAsEntry } = DataTransferItem.prototype;
DataTransferItem.prototype.webkitGetAsEntry = function () {
  return spoil(webkitGetAsEntry.call(this));
};
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of photos as people have them: with a folder in it, and with what is not a photo."""
    folder = tmp_path / "holiday"
    (folder / "day 2").mkdir(parents=True)
    for number in (10, 9):
        (folder / f"photo {number}.jpg").write_bytes(make_jpeg(number))
    (folder / "day 2" / "beach.png").write_bytes(make_png(3))
    (folder / "notes.txt").write_text("packing list")
    (folder / ".thumbnails.png").write_bytes(b"hidden")
    return folder


@pytest.fixture
def camera_browser(browser: Browser) -> Iterator[Browser]:
    """A browser of a machine with a camera."""
    camera = launch(browser.browser_type, *FAKE_CAMERA)
    yield camera
    camera.close()


def test_chosen_photo_shows_its_picture_and_gets_its_labels(start: StartPage) -> None:
    start.choose(CHELSEA)

    card = start.card("chelsea.png")
    expect(card.locator("img")).to_have_js_property("complete", True)
    expect(card.locator("img")).to_have_attribute("src", re.compile("^blob:"))
    expect(card.locator(".best")).to_contain_text("cat")
    expect(card).to_contain_text("vit-tiny-cifar10")


def test_dropped_files_are_analyzed(start: StartPage, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(make_png(1))

    start.drop(CHELSEA, other)

    start.has_ended("chelsea.png")
    start.has_ended("other.png")


@pytest.mark.parametrize("way", ["choose", "drop"])
def test_folder_becomes_a_grid_with_a_card_for_each_image(start: StartPage, folder: Path, way: str) -> None:
    if way == "drop":
        start.drop(folder)
    else:
        with start.page.expect_file_chooser() as chooser:
            start.press("Choose a folder")
        chooser.value.set_files(folder)

    expect(start.cards).to_have_count(3)
    expect(start.page.get_by_role("heading", level=3)).to_have_text(["beach.png", "photo 9.jpg", "photo 10.jpg"])
    for name in ("photo 9.jpg", "photo 10.jpg", "beach.png"):
        start.has_ended(name)
    expect(start.page.get_by_text("2 files of the folder are not images and were left out.")).to_be_visible()
    for picture in start.cards.locator("img").all():
        expect(picture).to_have_attribute("loading", "lazy")


def test_what_cannot_be_read_in_a_dropped_folder_is_left_out_and_counted(start: StartPage, folder: Path) -> None:
    start.page.evaluate(f"() => {{ {UNREADABLE_ENTRIES} }}")
    (folder / "gone.png").write_bytes(make_png(6))
    (folder / "day 2" / "locked").mkdir()

    start.drop(folder)

    expect(start.page.get_by_text("2 files or folders cannot be read and were left out. 2 files")).to_be_visible()
    expect(start.page.get_by_role("heading", level=3)).to_have_text(["beach.png", "photo 9.jpg", "photo 10.jpg"])
    for name in ("photo 9.jpg", "photo 10.jpg", "beach.png"):
        start.has_ended(name)


def test_text_that_is_dropped_on_a_field_is_left_to_the_browser(start: StartPage) -> None:
    assert start.page.get_by_label("Address of an image").evaluate(DROP_TEXT)
    assert start.cards.count() == 0


def test_pasted_picture_is_analyzed(start: StartPage) -> None:
    start.page.evaluate(PASTE_IMAGE, base64.b64encode(make_png(4)).decode())
    start.page.keyboard.press("Control+V")

    start.has_ended("pasted image.png")


def test_pasted_address_is_analyzed(start: StartPage, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/photo.png").respond_with_data(make_png(5), content_type="image/png")
    start.page.evaluate("(url) => navigator.clipboard.writeText(url)", httpserver.url_for("/photo.png"))
    start.page.keyboard.press("Control+V")

    start.has_ended("photo.png")


def test_cells_of_a_spreadsheet_are_text_in_a_field(start: StartPage) -> None:
    field = start.page.get_by_label("Address of an image")

    assert start.paste(field, "https://example.com/cat.png", make_png(7))
    assert start.cards.count() == 0
    assert not start.paste(field, "", make_png(7))
    start.has_ended("pasted image.png")


def test_image_of_a_url_is_fetched_by_the_service_alone(start: StartPage, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a cat.png").respond_with_data(CHELSEA.read_bytes(), content_type="image/png")
    url = httpserver.url_for("/a%20cat.png")
    start.page.get_by_label("Address of an image").fill(url)
    start.page.keyboard.press("Enter")

    start.has_ended("a cat.png")
    expect(start.card("a cat.png")).to_contain_text(url)
    expect(start.card("a cat.png").locator("img")).to_have_count(0)
    assert len(httpserver.log) == 1


def test_wrong_address_is_refused_at_its_field(start: StartPage) -> None:
    field = start.page.get_by_label("Address of an image")
    field.fill("ftp://example.com/cat.png")
    start.press("Analyze URL")

    expect(start.page.get_by_text("Enter an address that begins with http")).to_be_visible()
    expect(field).to_be_focused()
    expect(start.cards).to_have_count(0)


def test_url_into_the_network_of_the_service_fails_with_the_reason(open_start: Callable[..., StartPage]) -> None:
    start = open_start(refusals={400})
    start.page.get_by_label("Address of an image").fill("http://10.0.0.1/cat.png")
    start.press("Analyze URL")

    expect(start.card("cat.png")).to_contain_text("url_refused")


def test_photo_is_taken_with_the_camera(camera_browser: Browser, open_start: Callable[..., StartPage]) -> None:
    start = open_start(browser=camera_browser, permissions=["camera"])
    start.press("Take a photo")
    expect(start.page.get_by_role("button", name="Take the photo")).to_be_enabled()
    wait_until(lambda: start.page.evaluate("document.querySelector('video').currentTime > 0.2"), "the picture moves")
    start.shoot("camera")
    start.press("Take the photo")

    expect(start.cards).to_have_attribute("data-state", "completed")
    expect(start.cards.get_by_role("heading")).to_have_text(re.compile(r"^photo \d\d-\d\d-\d\d\.jpg$"))
    assert start.page.evaluate("document.querySelector('video').srcObject") is None


def test_camera_that_is_opened_twice_while_the_browser_asks_is_off_in_the_end(
    camera_browser: Browser, open_start: Callable[..., StartPage]
) -> None:
    start = open_start(browser=camera_browser, permissions=["camera"])
    start.page.evaluate(f"() => {{ {SLOW_PERMISSION} }}")
    start.press("Take a photo")
    start.press("Close")
    start.press("Take a photo")
    wait_until(lambda: start.page.evaluate("window.answers.length") == 2, "the browser asks twice")

    start.page.evaluate("window.answers.forEach((allow) => allow())")

    expect(start.page.get_by_role("button", name="Take the photo")).to_be_enabled()
    expect(start.page.locator("#camera-error")).to_be_empty()
    start.press("Close")
    off = "window.tracks.length === 2 && window.tracks.every((track) => track.readyState === 'ended')"
    wait_until(lambda: start.page.evaluate(off), "both streams of the camera are stopped")


def test_camera_is_not_offered_where_there_is_none(start: StartPage) -> None:
    expect(start.page.get_by_role("button", name="Take a photo")).to_have_count(0)


def test_example_needs_no_file(start: StartPage) -> None:
    start.press("Try this cat")

    expect(start.card("example.jpg").locator(".best")).to_contain_text("cat")


def test_bad_file_fails_alone_and_says_why(open_start: Callable[..., StartPage]) -> None:
    start = open_start(refusals={400})
    start.choose(CHELSEA, make_upload("notes.png", b"no image"))

    start.has_ended("chelsea.png")
    expect(start.card("notes.png")).to_have_attribute("data-state", "failed")
    expect(start.card("notes.png")).to_contain_text("unsupported_image")
    expect(start.page.get_by_role("button", name="Try notes.png again")).to_be_hidden()
    expect(start.page.get_by_text("2 of 2 images done, 1 failed.", exact=False).first).to_be_visible()


def test_url_is_tried_again_where_it_may_give_another_image(
    open_start: Callable[..., StartPage], httpserver: HTTPServer
) -> None:
    start = open_start(refusals={400})
    httpserver.expect_request("/page.png").respond_with_data(b"no image", content_type="image/png")
    address = start.page.get_by_label("Address of an image")
    address.fill(httpserver.url_for("/page.png"))
    start.press("Analyze URL")
    expect(start.card("page.png")).to_contain_text("unsupported_image")
    problem = {"code": "labels_not_supported", "detail": "The model has labels of its own."}
    start.page.route("**/analyze-image", lambda route: route.fulfill(status=400, json=problem))
    address.fill(httpserver.url_for("/labels.png"))
    start.press("Analyze URL")

    expect(start.card("labels.png")).to_contain_text("labels_not_supported")
    expect(start.page.get_by_role("button", name="Try labels.png again")).to_be_hidden()
    expect(start.page.get_by_role("button", name="Try page.png again")).to_be_visible()


@pytest.mark.parametrize("body", ["<h1>Welcome</h1>", "null"])
def test_answer_that_is_not_from_the_service_fails_its_image_alone(start: StartPage, body: str) -> None:
    start.page.route("**/analyze-image", lambda route: route.fulfill(body=body), times=2)
    start.choose(make_upload("1.png", b"a"), make_upload("2.png", b"b"), CHELSEA)

    for name in ("1.png", "2.png"):
        expect(start.card(name)).to_contain_text("The service answered 200.")
    start.has_ended("chelsea.png")
