"""The lines of an event stream, from text that comes in chunks of any size."""

import re
from collections import deque
from collections.abc import Awaitable, Callable

LINE_END = re.compile(r"\r\n|\n|\r")
"""What ends a line of Server-Sent Events. `str.splitlines` knows more, such as U+2028, which a label may have."""


class Lines:
    """Gives the lines of a text; `next_text` gives its chunks, and None at the end."""

    def __init__(self, next_text: Callable[[], Awaitable[str | None]]) -> None:
        self._next_text = next_text
        self._ended: deque[str] = deque()
        self._begun: list[str] = []
        self._is_after_return = False

    async def next(self) -> str | None:
        """Return the next line; None at the end. A last line that does not end is dropped, as is the event it is in."""
        while not self._ended:
            text = await self._next_text()
            if text is None:
                return None
            if text:
                self._split(text)
        return self._ended.popleft()

    def _split(self, text: str) -> None:
        if self._is_after_return:  # the carriage return has ended its line, whatever follows
            text = text.removeprefix("\n")
        self._is_after_return = text.endswith("\r")
        first, *others = LINE_END.split(text)
        self._begun.append(first)
        for part in others:
            self._ended.append("".join(self._begun))
            self._begun = [part]
