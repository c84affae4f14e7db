"""Other versions of a file that a decoder refuses although its picture may be whole: for a PNG and for a JPEG."""

import zlib
from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ANCILLARY = 0x20
"""The bit in a chunk's first letter that says that the pixels do not depend on it."""

JPEG_SIGNATURE = b"\xff\xd8\xff"
END_OF_JPEG = b"\xff\xd9"
FILLER = b"\x55\x33\xa6" * 1000
"""Bits in place of missing ones; libjpeg itself uses zeros where the data ends with the end marker."""


def is_zero_filled(body: bytes) -> bool:
    """Whether a JPEG ends in zeros instead of its end marker, as an unfinished download does.

    libjpeg takes zeros for pixels, so it would not notice that some are missing.
    """
    return body.startswith(JPEG_SIGNATURE) and body.endswith(b"\0") and not body.rstrip(b"\0").endswith(END_OF_JPEG)


def find_versions(body: bytes) -> list[bytes]:
    """Return versions of a file that show the same picture if, and only if, the file's picture is whole.

    A PNG has one: without the chunks that its pixels do not depend on, except a sound eXIf. Pillow refuses some of
    them: texts of more than 1 MB each or 64 MB together, and wrong checksums. A JPEG without its end marker has two,
    with the marker right at its end and after a filler. If data is missing, the filler takes the place of pixels.
    """
    if body.startswith(PNG_SIGNATURE):
        return [PNG_SIGNATURE + b"".join(_necessary_chunks(body))]
    if body.startswith(JPEG_SIGNATURE):
        data = body.rstrip(b"\0")
        # Zeros may be data: a byte FF in the data is followed by one.
        data = data.rstrip(b"\xff") if data == body else body[: len(data) + data.endswith(b"\xff")]
        return [data + END_OF_JPEG, data + FILLER + END_OF_JPEG]
    return []


def _necessary_chunks(png: bytes) -> Iterator[bytes]:
    start = len(PNG_SIGNATURE)
    while len(head := png[start : start + 8]) == 8:
        size_bytes, name = int.from_bytes(head[:4]), head[4:]
        chunk = png[start : start + 12 + size_bytes]
        if not name[0] & ANCILLARY or (name == b"eXIf" and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])):
            yield chunk
        start += 12 + size_bytes
