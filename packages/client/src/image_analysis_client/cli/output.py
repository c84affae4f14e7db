"""Where the rows go: a file, standard output as data, or the terminal as a table."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.text import Text

from image_analysis_client.cli.rows import Row, RowFormat
from image_analysis_client.cli.screen import Screen
from image_analysis_client.cli.tables import image_lines


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
