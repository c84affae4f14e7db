"""The bytes of a fetched image are counted while they arrive."""

from collections.abc import AsyncIterator

import httpx
import pytest

from image_analysis_common.errors import ImageTooLarge, Unavailable
from support.fakes import make_fetcher

pytestmark = pytest.mark.anyio

URL = "http://site.test/"
PIECES = 6
PIECE_BYTES = 200


class Pieces(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(PIECES):
            yield b"x" * PIECE_BYTES


async def resolve(host: str, port: int) -> list[str]:
    return ["93.184.216.34"]


class Budget:
    """Holds at most some bytes; remembers each change."""

    def __init__(self, limit_bytes: int) -> None:
        self.changes: list[int] = []
        self._limit_bytes = limit_bytes

    def hold(self, size_bytes: int) -> None:
        if sum(self.changes) + size_bytes > self._limit_bytes:
            raise Unavailable
        self.changes.append(size_bytes)


async def fetch(budget: Budget, max_bytes: int) -> bytes:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Pieces()))
    fetcher = make_fetcher(max_bytes=max_bytes, timeout_s=60, resolve=resolve, transport=transport)
    return await fetcher.fetch(URL, "198.51.100.7", budget.hold)


async def test_each_piece_counts_when_it_arrives() -> None:
    budget = Budget(2000)

    body = await fetch(budget, max_bytes=2000)

    assert len(body) == PIECES * PIECE_BYTES
    assert budget.changes == [PIECE_BYTES] * PIECES


@pytest.mark.parametrize(
    ("limit_bytes", "error", "pieces"), [(2000, ImageTooLarge, PIECES), (500, Unavailable, 500 // PIECE_BYTES)]
)
async def test_bytes_of_a_failed_fetch_count_no_longer(limit_bytes: int, error: type[Exception], pieces: int) -> None:
    budget = Budget(limit_bytes)

    with pytest.raises(error):
        await fetch(budget, max_bytes=1000)

    assert budget.changes == [PIECE_BYTES] * pieces + [-PIECE_BYTES * pieces]
