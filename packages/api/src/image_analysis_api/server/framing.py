"""Limits the bytes around a request's body while they arrive: head, trailers, the framing of chunks."""

from enum import Enum, auto

from image_analysis_common.errors import HeadersTooLarge, UrlTooLong

MAX_HEAD_BYTES = 65_536
"""Limit for a request's first line and headers, and again for its trailers and the framing of its chunks."""

MAX_HEADERS = 100
"""The limit for headers, and for trailers."""

MAX_URL_BYTES = 8000
"""The length that RFC 9110 asks every server to support."""

CHUNK_BYTES = 32
"""Bytes counted for each chunk in addition to its framing: parsing it takes 2 microseconds, however small it is."""

HAS_ARRIVED = "has_arrived"
"""In the state of a request: whether its whole body has arrived. Then reading it needs no time limit."""

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
        self._part_changed = False

    @property
    def room_bytes(self) -> int:
        """Most bytes of the next piece."""
        return MAX_HEAD_BYTES - self._size_bytes

    def end_piece(self, size_bytes: int) -> None:
        """Count a piece that was parsed.

        Raises:
            HeadersTooLarge
        """
        if self.part is not Part.NONE:
            # It is unknown where in the piece a part began, so counting starts with the next piece.
            around_bytes = 0 if self._part_changed else size_bytes - self._body_bytes
            # Each byte of body allows one byte around it, so a large body may come in many chunks.
            self._size_bytes = max(0, self._size_bytes + around_bytes - self._body_bytes)
            self._check()
        self._part_changed, self._body_bytes = False, 0

    def begin(self, part: Part) -> None:
        """Note that a part begins in this piece."""
        if part is not Part.HEAD:  # the part before ends in this piece
            self._size_bytes, self._part_changed = 0, True
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
