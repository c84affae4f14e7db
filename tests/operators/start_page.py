"""The page at `/` as its users handle it: give images, read cards, press buttons."""

import base64
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import CDPSession, Download, FilePayload, Locator, Page, Request, expect

from support.waiting import wait_until

MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}
NOTE_TEXTS = """
window.texts = [];
new MutationObserver(() => {
  const text = document.querySelector(".stage-text")?.textContent;
  if (text && text !== window.texts.at(-1)) window.texts.push(text);
}).observe(document, { childList: true, characterData: true, subtree: true });
"""

PASTE = """(field, [text, image]) => {
  const clipboardData = new DataTransfer();
  const bytes = Uint8Array.from(atob(image), (one) => one.charCodeAt(0));
  clipboardData.items.add(new File([bytes], "image.png", { type: "image/png" }));
  if (text) clipboardData.setData("text/plain", text);
  return field.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
}"""


class StartPage:
    """One tab with the page. `requests` are all that it has sent."""

    def __init__(self, page: Page, url: str, screenshots: Path) -> None:
        self.page = page
        self.url = url
        self.requests: list[Request] = []
        self.screenshots = screenshots
        page.on("request", lambda request: self.requests.append(request))

    def open(self) -> None:
        self.page.goto(self.url)
        expect(self.page.locator("#workers")).not_to_have_text("Connecting")

    def choose(self, *files: Path | FilePayload) -> None:
        """Choose files with the button and the dialog that it opens."""
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name="Choose images").click()
        # Playwright does not mix paths and contents.
        chooser.value.set_files([read_upload(file) if isinstance(file, Path) else file for file in files])

    def drop(self, *paths: Path) -> None:
        """Drop files or folders from outside of the browser onto the page."""
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}

        def drag(kind: str) -> None:
            self.protocol.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})

        def shows_veil() -> bool:
            drag("dragOver")  # browsers repeat it while the files are held over the page
            return bool(self.page.get_by_text("Drop to analyze").is_visible())

        drag("dragEnter")
        wait_until(shows_veil, "the page says that it takes the files")
        self.shoot("veil")
        drag("drop")

    def paste(self, field: Locator, text: str, image: bytes) -> bool:
        """Paste a text, if any, and a picture into a field; return whether the browser may enter the text."""
        return bool(field.evaluate(PASTE, [text, base64.b64encode(image).decode()]))

    @cached_property
    def protocol(self) -> CDPSession:
        return self.page.context.new_cdp_session(self.page)

    @property
    def cards(self) -> Locator:
        return self.page.locator("#cards > li")

    def card(self, name: str) -> Locator:
        return self.page.get_by_role("listitem", name=name, exact=True)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def has_ended(self, name: str) -> None:
        expect(self.card(name)).to_have_attribute("data-state", "completed")

    @property
    def announced(self) -> Locator:
        return self.page.locator("#live[role=status][aria-live=polite]")

    @property
    def submissions(self) -> list[Request]:
        return [request for request in self.requests if request.url.endswith("/analyze-image")]

    def save(self, name: str) -> bytes:
        """Press a button that saves a file; return its content."""
        with self.page.expect_download() as download:
            self.press(name)
        saved: Download = download.value
        return Path(saved.path()).read_bytes()

    def shoot(self, name: str) -> None:
        self.page.screenshot(path=self.screenshots / f"{name}.png", full_page=True)

    def faults_of_access(self) -> list[str]:
        """Ask axe what keeps people with a disability from using the page as it is now."""
        still = "document.getAnimations().every((one) => one.playState === 'finished')"
        wait_until(lambda: self.page.evaluate(still), "nothing moves")
        found: list[dict[str, Any]] = Axe().run(self.page).response["violations"]
        return [f"{fault['id']}: {node['html']} {node['failureSummary']}" for fault in found for node in fault["nodes"]]


def make_upload(name: str, content: bytes) -> FilePayload:
    """Make a file for `choose` that need not be on the disk, whatever its name."""
    return {"name": name, "mimeType": MEDIA_TYPES.get(Path(name).suffix, "image/png"), "buffer": content}


def read_upload(path: Path) -> FilePayload:
    return make_upload(path.name, path.read_bytes())


def read_json(content: bytes) -> Sequence[dict[str, Any]]:
    records: Sequence[dict[str, Any]] = json.loads(content)
    return records
