"""Pages in Debian's Chromium, which complain about whatever a browser would note in its console."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, sync_playwright

from operators.programs import find_program

LEFT = "net::ERR_ABORTED"
"""What becomes of a request that was under way when its page was left."""


@contextmanager
def run_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # As root, Chromium runs without its sandbox or not at all.
        browser = playwright.chromium.launch(
            executable_path=find_program("chromium"), chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser) -> Iterator[Page]:
    """Open an empty page; when it is left, fail with every script, request and answer that went wrong on it."""
    faults: list[str] = []

    def note_message(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            faults.append(f"{message.type}: {message.text}")

    def note_failure(request: Request) -> None:
        if request.failure != LEFT:
            faults.append(f"{request.url}: {request.failure}")

    def note_answer(response: Response) -> None:
        if response.status >= 400:
            faults.append(f"{response.url}: {response.status}")

    page = browser.new_page()
    page.on("console", note_message)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", note_failure)
    page.on("response", note_answer)
    yield page
    page.close()
    assert not faults, "\n".join(faults)
