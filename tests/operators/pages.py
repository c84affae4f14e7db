"""Pages in Debian's Chromium, which fail on every error in the browser's console."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserType, ConsoleMessage, Page, Request, Response, sync_playwright

from support.programs import find_program

BADGE = '<svg xmlns="http://www.w3.org/2000/svg"/>'
NOTICE = "Could not find component: JsonSchema_"
"""Swagger UI warns so of each format for which it has no field of its own, such as files."""

ACTION_MS = 60_000

LEFT = "net::ERR_ABORTED"
"""The error of a request that was still running when its page was left, or that the page itself has ended."""
NO_CONNECTION = ("net::ERR_CONNECTION_", "net::ERR_EMPTY_RESPONSE", "net::ERR_INCOMPLETE_CHUNKED_ENCODING")
"""The errors of requests while the service restarts."""


@contextmanager
def run_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright.chromium)
        yield browser
        browser.close()


def launch(chromium: BrowserType, *arguments: str) -> Browser:
    """Start a browser. As root, Chromium runs only without its sandbox."""
    return chromium.launch(executable_path=find_program("chromium"), args=arguments, chromium_sandbox=os.geteuid() != 0)


def replace_badge(page: Page) -> None:
    """Replace the badge that ReDoc loads from its authors' host; it works without it."""
    page.route("https://cdn.redoc.ly/**", lambda route: route.fulfill(content_type="image/svg+xml", body=BADGE))


@contextmanager
def open_page(
    browser: Browser,
    *,
    refusals: Collection[int] = (),
    failures: Collection[str] = (),
    is_service_stable: bool = True,
    **context: Any,
) -> Iterator[Page]:
    """Open an empty page; at the end of the block, fail with every script, request and answer that went wrong.

    `refusals` are the statuses of errors that belong to the test, `failures` the browser's names of failed requests;
    `context` is as for a context of Playwright.
    """
    faults: list[str] = []

    def is_expected(text: str) -> bool:
        names = [*failures, *(() if is_service_stable else NO_CONNECTION)]
        return any(name in text for name in names)

    def note_message(message: ConsoleMessage) -> None:
        is_refusal = any(f"responded with a status of {status} " in message.text for status in refusals)
        is_allowed = is_refusal or is_expected(message.text) or message.text.startswith(NOTICE)
        if message.type in ("error", "warning") and not is_allowed:
            faults.append(f"{message.type}: {message.text}")

    def note_failure(request: Request) -> None:
        failure = request.failure or ""
        if failure != LEFT and not is_expected(failure):
            faults.append(f"{request.url}: {failure}")

    def note_answer(response: Response) -> None:
        if response.status >= 400 and response.status not in refusals:
            faults.append(f"{response.url}: {response.status}")

    tabs = browser.new_context(**context)
    tabs.set_default_timeout(ACTION_MS)
    page = tabs.new_page()
    page.on("console", note_message)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", note_failure)
    page.on("response", note_answer)
    yield page
    tabs.close()
    assert not faults, "\n".join(faults)
