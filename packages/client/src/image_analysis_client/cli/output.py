"""Where rows and answers go: a file, standard output as data, or the terminal as text for people."""

import codecs
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from image_analysis_client.cli.escaping import to_json
from image_analysis_client.cli.rows import Row, RowFormat
from image_analysis_client.cli.screen import Screen, console
from image_analysis_client.cli.tables import image_lines, status_line
from image_analysis_client.responses import AnalysisStatus

Listed = TypeVar("Listed", bound=BaseModel)


class Output(Protocol):
    """Takes the rows."""

    def write(self, row: Row) -> None: ...


class TableOutput:
    """Lines for people, on a terminal."""

    def __init__(self, screen: Screen, *, all_predictions: bool) -> None:
        self._screen = screen
        self._all_predictions = all_predictions

    def write(self, row: Row) -> None:
        for line in image_lines(row, all_predictions=self._all_predictions):
            self._screen.show(line)


class DataOutput:
    """Rows in a format; each is written before the next image is waited for, so that a crash loses none."""

    def __init__(self, row_format: RowFormat, emit: Callable[[str], None]) -> None:
        self._format = row_format
        self._emit = emit
        self._is_first = True

    def write(self, row: Row) -> None:
        self._emit(self._format.line(row, is_first=self._is_first))
        self._is_first = False


def to_terminal(screen: Screen) -> Callable[[str], None]:
    """Write lines to the terminal, above the progress bar."""
    return lambda text: screen.show(Text(text.removesuffix("\n")))


def to_stdout(text: str) -> None:
    """Write data to standard output, always in UTF-8."""
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


@contextmanager
def appended(path: Path) -> Iterator[Callable[[str], None]]:
    """Give what appends to a file and leaves nothing in this process's memory."""
    with path.open("ab") as file:

        def emit(text: str) -> None:
            file.write(text.encode())
            file.flush()

        yield emit


def print_list(found: list[Listed], to_table: Callable[[list[Listed]], Table], *, as_json: bool) -> None:
    """Write a table on a terminal, elsewhere or on request a line of JSON for each."""
    if as_json or not sys.stdout.isatty():
        for one in found:
            print_json(one)
    else:
        console().print(to_table(found))


def print_status(status: AnalysisStatus, *, as_json: bool) -> None:
    """Write a job's status on a terminal, elsewhere or on request as JSON."""
    if as_json or not sys.stdout.isatty():
        print_json(status)
    else:
        console().print(status_line(status), soft_wrap=True)


def print_json(answer: BaseModel) -> None:
    """Write an answer as a line of JSON, in UTF-8; in ASCII on a terminal that has another encoding."""
    value = answer.model_dump(mode="json")
    is_utf8 = not sys.stdout.isatty() or codecs.lookup(sys.stdout.encoding).name == "utf-8"
    to_stdout(f"{to_json(value) if is_utf8 else json.dumps(value)}\n")
