"""The page at `/` in a browser: the code that it gives runs as it was copied."""

from pathlib import Path

import pytest
from playwright.sync_api import expect
from pytest_httpserver import HTTPServer

from operators.snippets import run_snippet
from operators.start_page import StartPage, make_upload
from support.samples import CHELSEA

NAMES = ["chelsea.png", 'it\'s "my" cat; really, $HOME.png', "-cat.png"]
LANGUAGES = ["curl", "Python", "JavaScript"]


def copy_code(start: StartPage, name: str, language: str) -> str:
    start.press(f"Code for {name}")
    start.page.get_by_role("radio", name=language).check()
    start.shoot(f"code-{language}")
    start.press("Copy")
    expect(start.page.get_by_role("button", name="Copied")).to_be_visible()
    return str(start.page.evaluate("navigator.clipboard.readText()"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", NAMES)
def test_copied_code_runs_as_it_is(start: StartPage, tmp_path: Path, name: str, language: str) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / name).write_bytes(CHELSEA.read_bytes())
    start.page.get_by_role("spinbutton", name="Predictions").fill("2")
    start.choose(make_upload(name, CHELSEA.read_bytes()))
    start.has_ended(name)

    output = run_snippet(language, copy_code(start, name, language), folder)

    assert "cat" in output
    assert "dog" in output
    assert "deer" not in output


@pytest.mark.parametrize("language", LANGUAGES)
def test_copied_code_of_a_url_runs_as_it_is(
    start: StartPage, httpserver: HTTPServer, tmp_path: Path, language: str
) -> None:
    httpserver.expect_request("/cat.png").respond_with_data(CHELSEA.read_bytes(), content_type="image/png")
    start.page.get_by_label("Address of an image").fill(httpserver.url_for("/cat.png?size=large&it's=1"))
    start.press("Analyze URL")
    start.has_ended("cat.png")

    assert "cat" in run_snippet(language, copy_code(start, "cat.png", language), tmp_path)
