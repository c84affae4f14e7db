"""The API's own pages in a browser: they do all they are for without another host."""

import json

from playwright.sync_api import Page, expect

from operators.conftest import Made
from stack import Stack

BADGE = '<svg xmlns="http://www.w3.org/2000/svg"/>'


def test_request_can_be_tried_on_the_page_of_the_documentation(stack: Stack, made: Made, page: Page) -> None:
    page.goto(f"{stack.api_url}/docs")
    page.get_by_role("button", name="post /analyze-image", exact=False).first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()

    answer = page.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    assert json.loads(answer.locator(".response-col_description pre").first.inner_text())["status"] == "COMPLETED"


def test_reference_lists_every_call(stack: Stack, made: Made, page: Page) -> None:
    # ReDoc shows a badge of its makers from their host, and works without.
    page.route("https://cdn.redoc.ly/**", lambda route: route.fulfill(content_type="image/svg+xml", body=BADGE))
    page.goto(f"{stack.api_url}/redoc")

    expect(page.get_by_role("heading", name="Image Analysis API")).to_be_visible()
    for path in ("/analyze-image", "/analysis-status/{job_id}", "/models"):
        expect(page.get_by_text(path, exact=True).first).to_be_attached()
