"""What the arguments name: images in files and folders, URLs, and standard input."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import typer

from image_analysis_client.sources import is_url
from image_analysis_client.values import Source

IMAGE_SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp"})
"""Which files of a folder are sent. A file named by itself is sent in any case: its content decides."""

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Found:
    """The images to classify, each once and in a fixed order, and what was left out of the folders."""

    names: list[str]
    skipped_files: int
    skipped_folders: int


def find_images(arguments: Iterable[str], *, recursive: bool) -> Found:
    """List a folder's images by name; with `recursive`, also those of its folders, but not through symbolic links.

    Hidden files and folders are skipped. A folder that cannot be read is listed as if it were an image: reading it will
    fail, and say why.

    Raises:
        BadParameter: an argument is empty.
    """
    walk = _Walk(recursive)
    names = dict.fromkeys(name for argument in arguments for name in walk.expand(refuse_empty(argument)))
    return Found(list(names), walk.skipped_files, walk.skipped_folders)


def refuse_empty(argument: str) -> str:
    """Return a path or URL as it is.

    Raises:
        BadParameter: it is empty, as an unset variable of a shell is. As a path, it would be the working directory.
    """
    if not argument:
        raise typer.BadParameter("A path is empty: is a variable unset? The working directory is a dot (.).")
    return argument


def read_source(name: str) -> str | Path | bytes:
    """Return what the client takes for a name; standard input is read to its end."""
    if name == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    return name if is_url(name) else Path(name)


def name_source(source: Source) -> str:
    """Return the name that `read_source` made a source of."""
    if isinstance(source, bytes):
        return STANDARD_INPUT
    return _name_file(source) if isinstance(source, Path) else str(source)


def _name_file(path: Path) -> str:
    """Return a file's name, which is never the one of standard input."""
    return f"./{path}" if str(path) == STANDARD_INPUT else str(path)


class _Walk:
    def __init__(self, recursive: bool) -> None:
        self._recursive = recursive
        self.skipped_files = 0
        self.skipped_folders = 0

    def expand(self, argument: str) -> Iterator[str]:
        if argument == STANDARD_INPUT or is_url(argument):
            yield argument
        elif _is_folder(Path(argument)):
            yield from self._list(Path(argument))
        else:
            yield _name_file(Path(argument))

    def _list(self, folder: Path) -> Iterator[str]:
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError:
            yield _name_file(folder)
            return
        for entry in listed:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                if self._recursive and not entry.is_symlink():
                    yield from self._list(folder / entry.name)
                else:
                    self.skipped_folders += 1
            elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and not _is_special(entry):
                yield str(folder / entry.name)
            else:
                self.skipped_files += 1


def _is_folder(entry: os.DirEntry[str] | Path) -> bool:
    with suppress(OSError):  # a loop of symbolic links, a name that is too long, or a folder that is out of reach
        return entry.is_dir()
    return False


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Whether it is a pipe or a device, which may never end. A broken link is not: reading it gives the error."""
    with suppress(OSError):
        return not entry.is_file() and Path(entry.path).exists()
    return False
