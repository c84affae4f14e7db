"""The app sees the same requests, and the client the same answers, for any division into packets."""

import asyncio
import json
from itertools import pairwise
from typing import Any

import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from image_analysis_api.server.connections import MAX_PIPELINED, bound
from image_analysis_api.server.websocket_connections import BoundWebSocket
from support.raw_http import read_answers

REQUEST = b"GET /another HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADES = [b"", b"Connection: Upgrade, X\r\nUpgrade: h2c\r\n", b"Upgrade: foo, websocket\r\nConnection: upgrade\r\n"]
BROKEN = [b"", b"GET / HTTP/3\r\n\r\n", b"GET /\x00", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nz"]
TURNS = 10 * MAX_PIPELINED
"""Turns of the event loop, more than the app needs for all requests."""

Seen = tuple[str, bytes]


class Wire(asyncio.Transport):
    """A connection without a socket that records what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_open = True
        self.protocol: asyncio.BaseProtocol | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert self.is_open
        self.written += data

    def write_eof(self) -> None:
        self.is_open = False

    def close(self) -> None:
        self.is_open = False

    abort = close

    def is_closing(self) -> bool:
        return not self.is_open

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def receive(packets: list[bytes]) -> tuple[list[Seen], list[Any]]:
    """Give packets to a connection; return what the app saw, and the statuses and bodies of the answers."""
    seen: list[Seen] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        seen.append((scope["path"], body))
        answer = json.dumps(len(seen)).encode()
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    wire, state = Wire(), ServerState()
    protocol = bound(60)(uvicorn.Config(app, ws=BoundWebSocket, log_config=None, lifespan="off"), state, {})
    wire.protocol = protocol
    protocol.connection_made(wire)
    for packet in packets:
        protocol.data_received(packet)
        await asyncio.sleep(0)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    answers = read_answers(wire.written)
    return seen, [(answer.status, answer.json if answer.status == 200 else answer.json["code"]) for answer in answers]


def write(number: int, upgrade: bytes, body: bytes | None, sizes: list[int]) -> bytes:
    start = b"POST /%d HTTP/1.1\r\nHost: x\r\n%b" % (number, upgrade)
    if body is None:
        return start + b"\r\n"
    if not sizes:
        return start + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    chunks: list[bytes] = []
    while body:
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(b"%x\r\n%b\r\n" % (len(body[:size]), body[:size]))
        body = body[size:]
    return start + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\nTrailer: x\r\n\r\n"


bodies = st.none() | st.sampled_from([b"", REQUEST, REQUEST * 3]) | st.binary(max_size=100)
requests = st.tuples(st.sampled_from(UPGRADES), bodies, st.lists(st.integers(1, 50), max_size=3))


@settings(max_examples=200, deadline=None)
@given(st.lists(requests, max_size=MAX_PIPELINED), st.sampled_from(BROKEN), st.lists(st.integers(0, 2000), max_size=20))
def test_requests_are_read_alike_however_they_are_cut(
    asked: list[tuple[bytes, bytes | None, list[int]]], broken: bytes, cuts: list[int]
) -> None:
    sent = b"".join(write(number, *request) for number, request in enumerate(asked)) + broken
    bounds = [0, *sorted(cuts), len(sent)]
    packets = [sent[start:end] for start, end in pairwise(bounds) if sent[start:end]]

    seen, answers = asyncio.run(receive(packets))

    assert seen == [(f"/{number}", body or b"") for number, (_, body, _) in enumerate(asked)]
    refusals = [(400, "invalid_request")] if broken else []
    assert answers == [*((200, number + 1) for number in range(len(asked))), *refusals]
