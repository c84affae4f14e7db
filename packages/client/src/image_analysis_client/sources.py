"""Reading sources: what is sent of each, its bytes or its URL."""

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from image_analysis_client.values import PillowImage, Source

MAX_SOURCE_BYTES = 64_000_000
"""More than the service accepts unless its operator sets other limits: an endless source must not fill the memory."""

MAX_URL_BYTES = 4096
"""A form of the API has no room for a longer one, and refuses all of its images."""

PNG_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})


@dataclass(frozen=True)
class Image:
    """What is sent of a source: exactly one of the two is set."""

    content: bytes | None = None
    url: str | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.content or b"")


def is_url(source: Source) -> bool:
    """Whether the API fetches the source."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def read_source(source: Source) -> Image:
    """Read a source; this blocks.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is too much of it.
        TypeError: it is no source.
    """
    if isinstance(source, str) and is_url(source):
        if len(source.encode()) > MAX_URL_BYTES:
            raise ValueError(f"The URL has more than {MAX_URL_BYTES} bytes.")
        return Image(url=source)
    return Image(content=_read_content(source))


def _read_content(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            return _read_file(file)
    if isinstance(source, PillowImage):
        return _encode(source)
    if hasattr(source, "read"):
        return _read_file(source)
    raise TypeError(f"{type(source).__name__} is not a path, a URL, bytes, a binary file or a Pillow image.")


def _read_file(file: BinaryIO) -> bytes:
    content = file.read(MAX_SOURCE_BYTES + 1)
    if not isinstance(content, bytes):
        raise TypeError("The file is not open in binary mode.")
    if len(content) > MAX_SOURCE_BYTES:
        raise ValueError(f"The source has more than {MAX_SOURCE_BYTES} bytes.")
    return content


def _encode(image: PillowImage) -> bytes:
    """Write a Pillow image as PNG, which loses nothing of what a model sees; its EXIF orientation goes along."""
    buffer = BytesIO()
    exif = image.getexif()
    drawn = image if image.mode in PNG_MODES else image.convert("RGB")
    drawn.save(buffer, "PNG", compress_level=1, exif=exif)
    return buffer.getvalue()
