"""The Markdown documents, and what tests need of them: their fenced blocks, tables and links."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
API = ROOT / "packages" / "api" / "README.md"
CLIENT = ROOT / "packages" / "client" / "README.md"
COMMON = ROOT / "packages" / "common" / "README.md"
INFRA = ROOT / "infra" / "README.md"
WORKER = ROOT / "packages" / "worker" / "README.md"
DOCUMENTS = [ROOT / "README.md", API, CLIENT, COMMON, INFRA, WORKER, ROOT / "tests" / "README.md"]
DOCUMENTS += sorted((ROOT / ".github").glob("*.md"))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
ROW = re.compile(r"^\| (.+) \|$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block, such as an example or its output."""

    line: int
    language: str
    text: str


def blocks(document: Path) -> list[Block]:
    text = document.read_text()
    return [Block(text.count("\n", 0, found.start()) + 1, *found.groups()) for found in FENCE.finditer(text)]


def links(document: Path) -> list[str]:
    return LINK.findall(_prose(document))


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(_prose(document))}


def rows(document: Path) -> Iterator[list[str]]:
    """Split every row of every table into its cells."""
    for row in ROW.findall(_prose(document)):
        yield [cell.strip() for cell in row.split("|")]


def _prose(document: Path) -> str:
    return FENCE.sub("", document.read_text())
