"""The file of an earlier run: what it has done, and how it is made ready for more rows."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile

import typer

from image_analysis_client.cli.escaping import visible
from image_analysis_client.cli.rows import CsvLines, JsonLines
from image_analysis_common.models import JobStatus


@dataclass
class EarlierRun:
    """The rows of a file; a source is known by its key in the file's format."""

    path: Path
    row_format: CsvLines | JsonLines
    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    is_torn: bool = False
    """Whether the last row was cut short, by a crash or a full disk."""

    @classmethod
    def read(cls, path: Path) -> "EarlierRun":
        """Read a file that an earlier run has written; one that is missing or empty has done nothing.

        Raises:
            BadParameter: the file cannot be read, or was not written by this command.
        """
        run = cls(path, CsvLines() if path.suffix.lower() == ".csv" else JsonLines())
        if not path.exists():
            return run
        if not path.is_file():
            raise typer.BadParameter(f"{visible(str(path))} is not a file.")
        try:
            for number, line in enumerate(run._lines(), 1):
                run._note(line, number)
        except OSError as error:
            raise typer.BadParameter(f"{visible(str(path))} cannot be read: {error.strerror}.") from error
        return run

    def has_done(self, source: str) -> bool:
        return self.row_format.key(source) in self.done

    def make_ready(self, sources: list[str]) -> None:
        """Remove what a crash cut short, and the failures of these sources, which are tried again: all or nothing.

        Raises:
            OSError: the file's folder cannot be written.
        """
        again = self.failed & {self.row_format.key(source) for source in sources}
        if not again and not self.is_torn:
            return
        target = self.path.resolve()
        copy = NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False)  # noqa: SIM115
        try:
            with copy:
                for number, line in enumerate(self._lines(), 1):
                    if self._is_head(line, number) or self.row_format.parse(line)[0] not in again:
                        copy.write(line.encode(errors="surrogateescape") + b"\n")
            shutil.copymode(target, copy.name)
            Path(copy.name).replace(target)
        except BaseException:
            Path(copy.name).unlink(missing_ok=True)
            raise

    def _lines(self) -> Iterator[str]:
        """Give every whole line, without its end."""
        with self.path.open("rb") as file:
            for line in file:
                self.is_torn = not line.endswith(b"\n")
                if not self.is_torn:
                    yield line.decode(errors="surrogateescape").rstrip("\r\n")

    def _is_head(self, line: str, number: int) -> bool:
        return number == 1 and f"{line}\n" == CsvLines.head

    def _note(self, line: str, number: int) -> None:
        if number == 1:
            self.row_format = CsvLines() if self._is_head(line, number) else JsonLines()
        if self._is_head(line, number):
            return
        try:
            key, status = self.row_format.parse(line)
        except ValueError as error:
            name = visible(str(self.path))
            raise typer.BadParameter(f"Line {number} of {name} is no row of an earlier run.") from error
        (self.done if status == JobStatus.COMPLETED else self.failed).add(key)
