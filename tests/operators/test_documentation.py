"""The API's documentation pages work in a browser without any other host."""

import json
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, expect

from operators.conftest import Made
from operators.pages import replace_badge
from stack import Stack
from support.samples import CHELSEA

FIELDS = {"/analyze-image": 9, "/analyze-images": 8}
"""How many fields there are to fill in, except files; a list of URLs has none before one is added."""


@pytest.fixture
def page(page: Page) -> Page:
    """A page whose requests count for an address of their own: the others have used up theirs."""
    page.set_extra_http_headers({"X-Forwarded-For": "192.0.2.99"})
    return page


def open_operation(page: Page, stack: Stack, path: str, media_type: str) -> Locator:
    """Open a submission on the page of the documentation, ready to be filled in.

    The kind of body is chosen first: changed later, Swagger UI puts the fields of the form into the JSON.
    """
    page.goto(f"{stack.api_url}/docs")
    operation = page.locator(f"#operations-analysis-{path.removeprefix('/').replace('-', '_')}")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_label("Request content type").select_option(media_type)
    operation.get_by_role("button", name="Try it out").click()
    return operation


def execute(page: Page, operation: Locator, path: str) -> tuple[Request, Any]:
    """Press Execute; return what was sent, and the answer as the page shows it."""
    with page.expect_request(f"**{path}*") as sent:
        operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_contain_text("20")
    return sent.value, json.loads(answer.locator(".response-col_description pre").first.inner_text())


@pytest.mark.parametrize("path", ["/analyze-image", "/analyze-images"])
def test_chosen_file_is_analyzed_and_nothing_else_is_filled_in(stack: Stack, made: Made, page: Page, path: str) -> None:
    operation = open_operation(page, stack, path, "multipart/form-data")
    form = operation.locator(".opblock-section-request-body")
    fields = form.locator("input[type=text], textarea, td select")
    expect(fields).to_have_count(FIELDS[path])
    filled_in = [field.input_value() for field in fields.all()]
    form.locator("input[type=file]").set_input_files(CHELSEA)

    sent, answer = execute(page, operation, path)

    assert set(filled_in) == {""}
    assert "?" not in sent.url
    job_id = answer["job_id"] if path == "/analyze-image" else answer["jobs"][0]["job_id"]
    status = page.request.get(f"{stack.api_url}/analysis-status/{job_id}", params={"wait": 30}).json()
    assert status["result"]["label"] == "cat"
    assert len(status["result"]["predictions"]) == 5


def test_request_in_json_can_be_tried_as_it_stands(stack: Stack, made: Made, page: Page) -> None:
    operation = open_operation(page, stack, "/analyze-image", "application/json")

    _, answer = execute(page, operation, "/analyze-image")

    assert answer["status"] in {"PENDING", "COMPLETED"}


def test_reference_lists_every_call(stack: Stack, made: Made, page: Page) -> None:
    replace_badge(page)
    page.goto(f"{stack.api_url}/redoc")

    expect(page.get_by_role("heading", name="Image Analysis API")).to_be_visible()
    for path in ("/analyze-image", "/analysis-status/{job_id}", "/models"):
        expect(page.get_by_text(path, exact=True).first).to_be_attached()
