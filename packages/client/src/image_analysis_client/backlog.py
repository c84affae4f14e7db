"""The images that are not accepted yet: read from the sources as they are needed, or put back to be sent again."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from image_analysis_client.sources import Image
from image_analysis_client.values import Outcome, Source

MAX_BATCH_IMAGES = 64
"""The API's usual limit. Where it is lower, the first batch is refused, and the next ones are smaller."""

MAX_BATCH_BYTES = 16_000_000
"""So much of the sources is in memory at once, or one image if that is larger."""


@dataclass(frozen=True)
class Item:
    """A source that is read and not yet accepted; since when the service has had no room for it."""

    source: Source
    image: Image
    refused_at: float | None = None


class Backlog:
    """Gives images in batches. The outcomes of sources that cannot be read go to `ended`."""

    def __init__(
        self, sources: Iterator[Source], read: Callable[[Source], Awaitable[Image]], ended: list[Outcome]
    ) -> None:
        self._sources: Iterator[Source] | None = sources
        self._read = read
        self._ended = ended
        self._items: deque[Item] = deque()

    def __bool__(self) -> bool:
        return bool(self._items) or self._sources is not None

    async def take(self, most: int) -> list[Item]:
        """Return the next batch of `most` images or fewer, in the order of a form: the files come first."""
        items: list[Item] = []
        size_bytes = 0
        while len(items) < most and (item := await self._next()):
            size_bytes += item.image.size_bytes
            if items and size_bytes > MAX_BATCH_BYTES:
                self._items.appendleft(item)
                break
            items.append(item)
        return sorted(items, key=lambda item: item.image.url is not None)

    def put_back(self, items: list[Item]) -> None:
        """Give these images again, before all others."""
        self._items.extendleft(reversed(items))

    def put_last(self, items: Iterable[Item]) -> None:
        """Give these images again, after the others that are read."""
        self._items.extend(items)

    async def _next(self) -> Item | None:
        """Return the next source that can be read; None if there is none, or after many that cannot."""
        if self._items:
            return self._items.popleft()
        while self._sources is not None:
            try:
                source = next(self._sources)
            except StopIteration:
                self._sources = None
                break
            try:
                return Item(source, await self._read(source))
            except Exception as error:  # noqa: BLE001 -- a source is the caller's object: Pillow raises SyntaxError, too
                self._ended.append(Outcome(source, error=error))
                if len(self._ended) == MAX_BATCH_IMAGES:
                    break
        return None
