"""Limits the parts of a JPEG or a GIF before its picture, of which Pillow keeps each one.

A JPEG of 10 MB with 500,000 segments took Pillow minutes, and a GIF's comment 40 times its size in memory. The walks
here find the same parts as Pillow's readers. What they cannot read is left to Pillow to refuse.
"""

import re

from image_analysis_common.errors import UnsupportedImage

MAX_SEGMENTS = 1000
"""Of a JPEG, 64 KB each. Large color profiles and metadata fill a few hundred."""

MAX_TABLES_BYTES = 64 * 1024
"""Of a JPEG's quantization tables and frame headers. Real ones have less than 1 KB."""

MAX_RESOURCES = 10_000
"""Of Photoshop's metadata in a JPEG; each takes Pillow a microsecond."""

MAX_BLOCKS = 50_000
"""Of a GIF's extensions. Metadata of 3 MB fills as many, because its bytes are taken for the sizes of blocks."""

MAX_SKIPPED_BYTES = 32 * 1024
"""Of padding. Pillow skips it byte by byte."""

TOO_MANY = "The image has too many parts before its picture, such as comments: save it again without metadata."

_JPEG = b"\xff\xd8\xff"
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_LOWEST_MARKER, _START_OF_SCAN, _PHOTOSHOP = 0xC0, 0xDA, 0xED
_WITHOUT_LENGTH = frozenset({0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})
_RESOURCE = b"8BIM"
_TABLES = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDE}) - {0xC4, 0xC8, 0xCC}

_GIF = (b"GIF87a", b"GIF89a")
_BLOCK = re.compile(rb"[!,;]")
_EXTENSION, _COMMENT, _APPLICATION = b"!", 0xFE, 0xFF
_LOOP, _LOOP_SIZE = b"NETSCAPE2.0", b"\x0b"


def check_parts(body: bytes) -> None:
    """Check that a JPEG or a GIF has no more parts before its picture than any real one has.

    Raises:
        UnsupportedImage: it has more.
    """
    if body.startswith(_JPEG):
        _check_jpeg(body)
    elif body.startswith(_GIF):
        _check_gif(body)


def _check_jpeg(body: bytes) -> None:
    at, segments, tables_bytes, resources, skipped_bytes = 2, 0, 0, 0, 0
    while at < len(body):
        found = _MARKER.search(body, at)
        skipped_bytes += (found.start() if found else len(body)) - at
        if skipped_bytes > MAX_SKIPPED_BYTES:
            raise UnsupportedImage(TOO_MANY)
        if found is None:
            return
        at, marker = found.end(), body[found.end() - 1]
        if marker == _START_OF_SCAN or marker < _LOWEST_MARKER:
            return
        segments += 1
        if marker not in _WITHOUT_LENGTH:
            size_bytes = max(int.from_bytes(body[at : at + 2]), 2)
            if marker in _TABLES:
                tables_bytes += size_bytes
            elif marker == _PHOTOSHOP:
                resources += body.count(_RESOURCE, at, at + size_bytes)
            at += size_bytes
        if segments > MAX_SEGMENTS or tables_bytes > MAX_TABLES_BYTES or resources > MAX_RESOURCES:
            raise UnsupportedImage(TOO_MANY)


def _check_gif(body: bytes) -> None:
    flags = body[10] if len(body) > 10 else 0
    at, blocks, skipped_bytes = 13 + (6 << (flags & 7) if flags & 0x80 else 0), 0, 0
    while at < len(body):
        found = _BLOCK.search(body, at)
        skipped_bytes += (found.start() if found else len(body)) - at
        if skipped_bytes > MAX_SKIPPED_BYTES:
            raise UnsupportedImage(TOO_MANY)
        if found is None or found[0] != _EXTENSION or found.end() == len(body):
            return
        at, blocks = _skip_extension(body, found.end(), blocks)


def _skip_extension(body: bytes, at: int, blocks: int) -> tuple[int, int]:
    """Return where the extension whose label is at `at` ends, and the number of all blocks until there."""
    label, at, read = body[at], at + 1, 0
    # Blocks that Pillow reads before it looks for the empty one that ends an extension.
    first = 0 if label == _COMMENT else 1
    if label == _APPLICATION and body[at : at + 1] >= _LOOP_SIZE and body.startswith(_LOOP, at + 1):
        first = 2
    while at < len(body):
        size_bytes = body[at]
        at, read = at + 1 + size_bytes, read + 1
        if blocks + read > MAX_BLOCKS:
            raise UnsupportedImage(TOO_MANY)
        if not size_bytes and read > first:
            break
    return at, blocks + read
