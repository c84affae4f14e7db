"""Writes the head of an answer together with its body."""

from asyncio import AbstractEventLoop, Handle, Transport
from collections.abc import Callable


class AnswerTransport:
    """The transport of one request's answer.

    uvicorn writes head and body separately, and uvloop sends each write at once: two packets, and 12 microseconds more.
    So the first write waits for the second one, at most until the event loop's next turn.
    """

    def __init__(self, transport: Transport, loop: AbstractEventLoop, close: Callable[[], None]) -> None:
        self._transport = transport
        self._loop = loop
        self._close = close
        self._first = b""
        self._turn: Handle | None = None

    def write(self, data: bytes) -> None:
        if self._turn is None:
            self._first, self._turn = data, self._loop.call_soon(self.flush)
        elif self._first:
            self._turn.cancel()
            first, self._first = self._first, b""
            self._transport.write(first + data)
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send what waits."""
        if self._first and not self._transport.is_closing():
            self._transport.write(self._first)
        self._first = b""

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self.flush()
        self._close()
