"""Limits on what comes around a request's body, counted while it arrives: head, trailers, the framing of chunks."""

from enum import Enum, auto

from image_analysis_common.errors import HeadersTooLarge, UrlTooLong

MAX_HEAD_BYTES = 65_536
"""For a request's first line and headers; the same again for a body's trailers and the framing of its chunks."""

MAX_HEADERS = 100
"""And as many trailers."""

MAX_URL_BYTES = 8000
"""The length that RFC 9110 asks every server to support."""

CHUNK_BYTES = 32
"""Bytes that each chunk counts on top of its framing: parsing one takes 2 microseconds, however small it is."""

TOO_LARGE = f"The headers, or the trailers and the framing of chunks, are over {MAX_HEAD_BYTES} bytes: send less."


class Part(Enum):
    """The part of a request that is being read."""

    NONE = auto()
    HEAD = auto()
    BODY = auto()


class Framing:
    """Counts a connection's bytes piece by piece, each of at most `room_bytes`."""

    def __init__(self) -> None:
        self.part = Part.NONE
        self._size_bytes = 0
        self._body_bytes = 0
        self._has_turned = False

    @property
    def room_bytes(self) -> int:
        """How long the next piece may be."""
        return MAX_HEAD_BYTES - self._size_bytes

    def end_piece(self, size_bytes: int) -> None:
        """Count a piece that was parsed.

        Raises:
            HeadersTooLarge
        """
        if self.part is not Part.NONE:
            # Where in a piece a part began is unknown: counting starts with the next piece.
            around_bytes = 0 if self._has_turned else size_bytes - self._body_bytes
            # Each byte of body allows one byte around it, so a large body may come in many chunks.
            self._size_bytes = max(0, self._size_bytes + around_bytes - self._body_bytes)
            self._check()
        self._has_turned, self._body_bytes = False, 0

    def begin(self, part: Part) -> None:
        """Note that a part begins in this piece."""
        if part is not Part.HEAD:  # another part ends there
            self._size_bytes, self._has_turned = 0, True
        self.part = part

    def count_chunk(self) -> None:
        """Count a chunk before its bytes.

        Raises:
            HeadersTooLarge
        """
        self._size_bytes += CHUNK_BYTES
        self._check()

    def count_body(self, size_bytes: int) -> None:
        self._body_bytes += size_bytes

    def _check(self) -> None:
        if self._size_bytes >= MAX_HEAD_BYTES:
            raise HeadersTooLarge(TOO_LARGE)


def check_headers(headers: list[tuple[bytes, bytes]]) -> None:
    """Check how many headers, or trailers, have arrived.

    Raises:
        HeadersTooLarge
    """
    if len(headers) > MAX_HEADERS:
        raise HeadersTooLarge(limit=MAX_HEADERS)


def check_url(url: bytes) -> None:
    """Check as much of a URL as has arrived.

    Raises:
        UrlTooLong
    """
    if len(url) > MAX_URL_BYTES:
        raise UrlTooLong(limit=MAX_URL_BYTES)
