"""Limits the time and the bytes of a client's connection: uvicorn limits neither a request's head nor its trailers.

Has every time limit of a connection, and handles requests for another protocol. `framing` counts the bytes around a
body, `intake` limits the body. Uses private parts of uvicorn, which is pinned to the minor version.
"""

from asyncio import TimerHandle, Transport

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from image_analysis_api.server.answer_transport import AnswerTransport
from image_analysis_api.server.deadline import Deadline
from image_analysis_api.server.framing import HAS_ARRIVED, Framing, Part, check_headers, check_url
from image_analysis_api.server.request_context import refuse
from image_analysis_api.server.websocket_connections import BAD_HANDSHAKE, is_handshake
from image_analysis_common.errors import RequestError, ServiceError, Unavailable

HEAD_TIMEOUT_S = 10.0
"""Time from the connection, or from a request's first byte, to the end of its headers."""

UNREAD_TIMEOUT_S = 60.0
"""How long a client may leave 64 KiB of its answers unread."""

STOP_TIMEOUT_S = 8.0
"""How long a client may keep a stopping process waiting: after 10 s uvicorn cancels what still runs."""

LINGER_S = 5.0
LINGER_BYTES = 32_000_000
"""Most bytes read after an early answer: if the connection closed at once, the client might not receive the answer."""

MAX_PIPELINED = 5
"""Most requests that wait for the answer to an earlier one. A request of 18 bytes takes 3 kB of memory."""


class BoundProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, with limits on each part of a request and on the time between requests."""

    body_timeout_s: float

    _unread_deadline: TimerHandle | None = None
    _is_reading = True
    _refusal: ServiceError | None = None
    _unused_bytes = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._framing = Framing()
        self._deadline = Deadline(self.loop)
        self._unanswered: list[RequestResponseCycle] = []  # requests without a complete answer, the oldest first
        self._set_deadline(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self.resume_writing()
        for cycle in self._unanswered:  # uvicorn notifies only the last one
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        rest = memoryview(data)
        while rest and self._is_reading:
            rest = rest[self._parse(rest[: self._framing.room_bytes]) :]
        if not rest:
            return
        if (successor := self.transport.get_protocol()) is not self:
            successor.data_received(bytes(rest))  # type: ignore[attr-defined]
        else:
            self._drop(len(rest))

    def _parse(self, piece: memoryview) -> int:
        """Parse a piece; return how many of its bytes were parsed."""
        try:
            self.parser.feed_data(piece)
            self._framing.end_piece(len(piece))
        except HttpParserUpgrade as upgrade:
            self._change_protocol()
            return int(upgrade.args[0])
        except HttpParserError as error:
            cause = error.__context__  # what a callback raised
            self._refuse(cause if isinstance(cause, ServiceError) else RequestError("Malformed HTTP request."))
        except ServiceError as error:
            self._refuse(error)
        return len(piece)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._framing.begin(Part.HEAD)
        self._set_deadline(HEAD_TIMEOUT_S)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        check_url(self.url)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        check_headers(self.headers)

    def on_headers_complete(self) -> None:
        if not self.parser.should_upgrade():
            if len(self._unanswered) > MAX_PIPELINED:
                raise Unavailable("Too many requests on this connection wait for their answers: send fewer at once.")
            super().on_headers_complete()
            close = self.transport.close if self.cycle.keep_alive else self._close
            self.cycle.transport = AnswerTransport(self.transport, self.loop, close)  # type: ignore[assignment]
            self._unanswered.append(self.cycle)
            self.headers = []  # for the trailers, which uvicorn would add to the request's headers
            self._framing.begin(Part.BODY)
            self._set_deadline(self.body_timeout_s + LINGER_S)

    def on_chunk_header(self) -> None:
        self._framing.count_chunk()

    def on_body(self, body: bytes) -> None:
        self._framing.count_body(len(body))
        super().on_body(body)
        if self.cycle.response_complete:
            self._drop(len(body))

    def on_message_complete(self) -> None:
        self._framing.begin(Part.NONE)
        if not self.parser.should_upgrade():
            super().on_message_complete()
            self.scope["state"][HAS_ARRIVED] = True
            self._set_deadline(None if self._unanswered else HEAD_TIMEOUT_S)

    def on_response_complete(self) -> None:
        answered = self._unanswered.pop(0)
        answered.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()
        if self._unanswered:
            return
        if self._refusal and not self.transport.is_closing():
            self._answer(self._refusal)
        else:
            self._set_deadline(LINGER_S if self.cycle.more_body else HEAD_TIMEOUT_S)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_deadline = self.loop.call_later(UNREAD_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_deadline is not None:
            self._unread_deadline.cancel()
            self._unread_deadline = None

    def shutdown(self) -> None:
        super().shutdown()
        if self._refusal and not self._unanswered:
            self.transport.close()
        elif not self.transport.is_closing():
            self._deadline.set(STOP_TIMEOUT_S, self._stop)

    def _stop(self) -> None:
        """End a request that waits for its client, so that the process can stop."""
        if self._framing.part is Part.BODY:
            self._refuse(Unavailable("The service is stopping: send the request again."))
            self.transport.close()
        elif self.flow.write_paused:
            self.transport.abort()

    def _change_protocol(self) -> None:
        """Hand over a WebSocket; ignore a request for any other protocol and read its body (RFC 9110, section 7.8)."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        wanted = [value.lower() for name, value in self.headers if name == b"upgrade"]
        is_websocket = wanted == [b"websocket"] and version == "1.1"
        lines = [b"%b: %b" % (name, value) for name, value in self.headers if is_websocket or name != b"upgrade"]
        head = b"\r\n".join([b"%b %b HTTP/%b" % (method, self.url, version.encode()), *lines, b"", b""])
        if method == b"CONNECT":
            self._refuse(RequestError("This service is not a proxy: it takes no CONNECT."))
        elif not is_websocket:
            # The parser cannot leave the new protocol; a new one parses the request without its Upgrade header.
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._parse(memoryview(head))
        elif self._unanswered or not is_handshake(head):
            self._refuse(RequestError(BAD_HANDSHAKE))
        else:
            self._is_reading = False
            self._deadline.cancel()  # the WebSocket's protocol has its own one
            self.scope["method"] = method.decode()
            self.handle_websocket_upgrade()

    def _refuse(self, error: ServiceError) -> None:
        """Stop reading; answer with the error once every earlier request has its answer."""
        self._is_reading = False
        self._refusal = error.with_traceback(None)  # the frames in it hold received data
        self.parser, self.url, self.headers = None, b"", []  # type: ignore[assignment]
        if self.transport.is_closing():
            return
        if self._framing.part is Part.BODY:  # the app runs for this request, or will
            if self.cycle.response_complete:
                self._linger()
                return
            if self.cycle.response_started:
                self.transport.close()
                return
            self._unanswered.pop()
            if self.pipeline:
                self.pipeline.popleft()
            else:
                self.cycle.disconnected = True
                self.cycle.waiting_for_100_continue = False
                self.cycle.message_event.set()
        if self._unanswered:
            self._set_deadline(None)
        else:
            self._answer(error)

    def _answer(self, error: ServiceError) -> None:
        response = refuse(error)
        headers = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", response.body]))
        self._linger()

    def _close(self) -> None:
        """Close the connection after its last answer, but not under a client that still sends: it would get a reset."""
        if self.cycle.more_body and not self.transport.is_closing():
            self._is_reading = False
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        self.transport.write_eof()
        self._set_deadline(LINGER_S)

    def _drop(self, size_bytes: int) -> None:
        self._unused_bytes += size_bytes
        if self._unused_bytes > LINGER_BYTES:
            self.transport.abort()

    def _set_deadline(self, timeout_s: float | None) -> None:
        """Set the time limit for what the client does next."""
        self._deadline.set(timeout_s, self.transport.abort)


def bound(timeout_s: float) -> type[BoundProtocol]:
    """Make the protocol with a time limit for bodies."""

    class Bound(BoundProtocol):
        body_timeout_s = timeout_s

    return Bound
