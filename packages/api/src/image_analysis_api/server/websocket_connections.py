"""Limits the time and the bytes of a client's WebSocket, on which only the service sends messages.

Uses private parts of uvicorn, as `connections` does.
"""

from asyncio import BaseTransport, TimerHandle, Transport
from http import HTTPStatus
from typing import cast

import structlog
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.server import ServerProtocol

HANDSHAKE_TIMEOUT_S = 10.0

MAX_RECEIVED_BYTES = 16_384
"""Most bytes that a client may send in ten minutes; pings and pongs every 20 s need half of them."""

log = structlog.get_logger(__name__)

BAD_HANDSHAKE = (
    "This is not a WebSocket handshake as in RFC 6455: a GET without a body, with lines of at most 8192 bytes, "
    "after the answers to all earlier requests on the connection."
)


def is_handshake(head: bytes) -> bool:
    """Ask `websockets` whether it accepts a request: uvicorn never answers one that `websockets` cannot parse."""
    handshake = ServerProtocol()
    handshake.receive_data(head)
    return any(
        isinstance(event, Request) and handshake.accept(event).status_code == HTTPStatus.SWITCHING_PROTOCOLS
        for event in handshake.events_received()
    )


class BoundWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, with limits on the handshake and on what the client sends."""

    _deadline: TimerHandle | None = None
    _received_bytes = 0

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HANDSHAKE_TIMEOUT_S, cast(Transport, transport).abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:
            super().data_received(data)  # the head, from the HTTP protocol
            return
        self._received_bytes += len(data)
        # RFC 6455: a client waits for the answer to its handshake. Parsing a frame takes 5 microseconds.
        if not self.handshake_complete or self._received_bytes > MAX_RECEIVED_BYTES:
            self.transport.abort()
        else:
            super().data_received(data)

    async def send(self, message: ASGISendEvent) -> None:
        if self.close_sent or self.transport.is_closing():  # the client disconnected or violated the protocol
            raise ClientDisconnected
        await super().send(message)
        if self.handshake_complete:
            self._end_deadline()

    def shutdown(self) -> None:
        try:
            super().shutdown()
        except Exception:
            # Last line of defence: an exception here would stop the shutdown of all other connections.
            log.exception("websocket_shutdown_failed")
            self.transport.abort()

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
