"""A client's connection, bounded in time: uvicorn waits for ever for a request's head, and for its body.

What a body may take is told to the client by `intake`; here the connection ends whatever the client does.
"""

from asyncio import TimerHandle, Transport
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from image_analysis_api.server.problems import MEDIA_TYPE, describe
from image_analysis_common.errors import RequestError

HEAD_TIMEOUT_S = 10.0
"""From the connection, or from a request's first byte, to the end of its headers."""

LINGER_S = 5.0
LINGER_BYTES = 32_000_000
"""How much more of a body may come after the answer to it: cut off at once, a client might not see the answer."""


def bound(body_timeout_s: float) -> type[HttpToolsProtocol]:
    """Make uvicorn's protocol with a time limit for each part of a request, and for the time before it."""

    class BoundProtocol(HttpToolsProtocol):
        _deadline: TimerHandle | None = None
        _unused_bytes = 0

        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect(HEAD_TIMEOUT_S)

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect(None)
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._expect(HEAD_TIMEOUT_S)

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            self._expect(body_timeout_s + LINGER_S)

        def on_body(self, body: bytes) -> None:
            super().on_body(body)
            if self.cycle.response_complete:
                self._unused_bytes += len(body)
                if self._unused_bytes > LINGER_BYTES:
                    self.transport.abort()

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._expect(HEAD_TIMEOUT_S if self.cycle is None or self.cycle.response_complete else None)

        def handle_websocket_upgrade(self) -> None:
            self._expect(None)  # another protocol takes over, which asks the client for signs of life
            super().handle_websocket_upgrade()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.cycle.response_complete:  # no other request waits for its answer
                self._expect(LINGER_S if self.cycle.more_body else HEAD_TIMEOUT_S)

        def send_400_response(self, _msg: str) -> None:
            problem = describe(RequestError, "Malformed HTTP request.", uuid4().hex).model_dump_json().encode()
            head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[400] + head % (MEDIA_TYPE.encode(), len(problem)) + problem)
            self.transport.close()

        def _expect(self, timeout_s: float | None) -> None:
            """Give the client so much time for what comes next."""
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = self.loop.call_later(timeout_s, self.transport.abort) if timeout_s else None

    return BoundProtocol
