"""The examples of the documents, run in the order of the text against the running stack, print what is shown."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_httpserver import HTTPServer

from stack import Stack
from support.documents import DOCUMENTS, ROOT, Block, blocks
from support.samples import CHELSEA
from support.waiting import wait_until

NOT_RUN = {
    "uv run just": "starts a stack, a part of one, or its tests",
    "docker compose": "needs a container engine",
    "kubectl": "needs a cluster",
    "$KEY": "needs an API key",
    "uvx": "needs the package index",
    "uv tool": "needs the package index",
    "clip-vit": "needs a zero-shot model",
    "my-pets": "needs photos of your own",
    "products": "needs photos of your own",
}
"""Examples that contain one of these are not run: only their syntax is checked, by the unit tests."""

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ELSEWHERE = {
    "https://upload.wikimedia.org/wikipedia/commons/3/3a/Cat03.jpg": "/cat.jpg",
    "https://example.com/hooks/images": "/hooks",
}
"""Addresses in the examples, each with the path on the test's server that replaces it."""

VARYING = {"processing_time_ms", "request_id"}
END = "\x1e"


def examples(document: Path) -> Iterator[tuple[Block, Block | None]]:
    """Return each example that can be run, with its output if that is the next block."""
    for block, following in pairwise([*blocks(document), Block(0, "", "")]):
        if block.language in ("sh", "python") and not any(reason in block.text for reason in NOT_RUN):
            yield block, following if following.language in ("json", "text") else None


def is_like(shown: Any, printed: Any) -> bool:
    """Compare JSON: times and IDs vary, and numbers are rounded for readers."""
    match shown:
        case dict():
            return shown.keys() == printed.keys() and all(
                name in VARYING or is_like(value, printed[name]) for name, value in shown.items()
            )
        case list():
            return len(shown) == len(printed) and all(map(is_like, shown, printed))
        case float():
            return bool(printed == pytest.approx(shown, abs=0.002))
        case str():
            return UUID.sub("", shown) == UUID.sub("", printed)
        case _:
            return bool(shown == printed)


def pattern(shown: str) -> str:
    """Make a regular expression of lines in this order; three dots stand for the rest of a word or line."""
    lines = re.sub("[0-9a-f]{8}-[.]{3}", "...", shown).split("\n")
    return "(?s:.*)".join(re.escape(line).replace(re.escape("..."), ".*") for line in lines)


@pytest.mark.parametrize(
    "document",
    [document for document in DOCUMENTS if any(examples(document))],
    ids=lambda document: str(document.relative_to(ROOT)),
)
def test_examples_print_what_the_document_shows(
    document: Path, client: httpx.Client, stack: Stack, httpserver: HTTPServer, tmp_path: Path
) -> None:
    httpserver.expect_request("/cat.jpg").respond_with_data(CHELSEA.read_bytes() + b" ")
    httpserver.expect_request("/hooks").respond_with_data(status=204)
    here = {"127.0.0.1:8000": stack.api_url.removeprefix("http://")}
    here |= {address: httpserver.url_for(path) for address, path in ELSEWHERE.items()}

    def localize(text: str) -> str:
        return re.sub("|".join(map(re.escape, here)), lambda found: here[found[0]], text)

    script = "set -eu\n"
    for number, (example, _) in enumerate(examples(document)):
        text = localize(example.text)
        if example.language == "python":
            program = tmp_path / f"{number}.py"
            program.write_text(text)
            text = f"'{sys.executable}' '{program}'\n"
        script += f"{text}printf '{END}'\n"

    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=ROOT,
        env=os.environ | {"NO_PROXY": "127.0.0.1", "IMAGE_ANALYSIS_URL": stack.api_url},
        stdin=subprocess.PIPE,  # without an end, like a terminal
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as shell:
        assert shell.stdout is not None
        printed = shell.stdout.read().split(END)

    assert shell.returncode == 0, printed[-1]
    for (example, shown), output in zip(examples(document), printed, strict=False):  # nothing comes after the last
        where = f"{document.name}, line {example.line}: {output}"
        if shown is None:
            assert "about:blank" not in output, where
        elif shown.language == "json":
            assert is_like(json.loads(shown.text), json.loads(output)), where
        else:
            assert re.search(pattern(localize(shown.text)), output), where
    named = {path for address, path in ELSEWHERE.items() if address in document.read_text()}
    wait_until(lambda: {request.path for request, _ in httpserver.log} == named, "every address was asked")


def test_examples_are_left_out_for_reasons_that_are_there() -> None:
    texts = [block.text for document in DOCUMENTS for block in blocks(document)]

    assert {reason for reason in NOT_RUN if not any(reason in text for text in texts)} == set()
