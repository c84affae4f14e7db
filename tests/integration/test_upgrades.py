"""Requests for another protocol: a WebSocket is served; any other is ignored, and the body is read."""

import json
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import httpx
import pytest
from redis import Redis
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from support.api_processes import one_api
from support.raw_http import ANSWERED_S, Answer, connection, exchange, receive_all
from support.samples import base64_body, make_png
from support.steps import Steps
from support.waiting import wait_until

TRIES = 20

H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
IGNORED = {
    "h2c": (H2C, b"1.1"),
    "TLS": (b"Connection: upgrade\r\nUpgrade: TLS/1.2\r\n", b"1.1"),
    "several": (b"Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket, foo\r\n", b"1.1"),
    "a WebSocket over HTTP/1.0": (b"Connection: upgrade, keep-alive\r\nUpgrade: websocket\r\n", b"1.0"),
}
LAST = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
# Invalid as a body, with another answer than an empty body; a complete request, if it is not read as a body.
BODY = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKS = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
FRAMINGS = {
    "by its length": b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "in chunks": b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"0\r\n\r\n",
}

HANDSHAKE = [
    b"GET /health/live HTTP/1.1",
    b"Host: x",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
]
LONG_LINE = b"A: " + b"a" * 9000


def head(*lines: bytes, start: bytes = HANDSHAKE[0], body: bytes = b"", without: bytes = b"none") -> bytes:
    kept = [line for line in HANDSHAKE[1:] if not line.startswith(without)]
    return b"\r\n".join([start, *kept, *lines, b"", body])


BROKEN = {
    "a body": head(b"Content-Length: 2", body=b"{}"),
    "a body that never comes": head(b"Content-Length: 2"),
    "a body in chunks": head(b"Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n"),
    "a line over 8 kB": head(LONG_LINE),
    "POST": head(b"Content-Length: 0", start=b"POST /analyze-image HTTP/1.1"),
    "no key": head(without=b"Sec-WebSocket-Key"),
    "another key": head(b"Sec-WebSocket-Key: dGhl"),
    "no version": head(without=b"Sec-WebSocket-Version"),
    "another version": head(b"Sec-WebSocket-Version: 8", without=b"Sec-WebSocket-Version"),
    "a broken list": head(b"Connection: Upgrade, ,;"),
}
MANY_HEADERS = head(*[b"A: b"] * 130)


@pytest.fixture(scope="module")
def api(redis_url: str) -> Iterator[str]:
    with one_api(redis_url, RATE_LIMIT_MAX_REQUESTS="1000000") as url:
        yield url


def cut(request: bytes, way: str) -> list[bytes]:
    """Cut a request into one packet, two (head and body), or one for each of its bytes."""
    start, end, body = request.partition(b"\r\n\r\n")
    match way:
        case "in one packet":
            return [request]
        case "in two":
            return [start + end, body]
        case _:
            return [request[at : at + 1] for at in range(len(request))]


def summarize(answers: list[Answer]) -> list[tuple[int, str | None]]:
    return [(answer.status, answer.json.get("detail")) for answer in answers]


@pytest.mark.parametrize("way", ["in one packet", "in two", "byte by byte"])
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("upgrade", IGNORED)
def test_upgrade_request_for_an_unknown_protocol_is_read_like_any_other(
    api: str, upgrade: str, framing: str, way: str
) -> None:
    asked, version = IGNORED[upgrade]
    start = b"POST /analyze-image HTTP/%b\r\nHost: x\r\nContent-Type: application/json\r\n" % version
    usual, asking = start + FRAMINGS[framing], start + asked + FRAMINGS[framing]
    again = [usual + LAST] if version == b"1.1" else []  # the connection is closed after HTTP/1.0

    expected = exchange(api, usual, *again)
    answers = exchange(api, *cut(asking, way), *again)
    in_advance = exchange(api, *cut(asking + b"".join(again), way))

    assert (expected[0].status, len(expected)) == (400, 1 + 2 * len(again))
    assert "empty" not in expected[0].json["detail"]
    assert summarize(answers) == summarize(in_advance) == summarize(expected)


@pytest.mark.parametrize("packets", [1, 2])
@pytest.mark.parametrize("broken", BROKEN)
def test_handshake_that_cannot_be_read_is_refused_at_once(api: str, broken: str, packets: int) -> None:
    sent = BROKEN[broken]
    middle = len(sent) // packets

    [answer] = exchange(api, sent[:middle], sent[middle:])

    problem = answer.json
    assert (answer.status, problem["status"], problem["code"]) == (400, 400, "invalid_request")
    assert answer.headers["content-type"] == "application/problem+json"


def test_handshake_with_many_headers_is_refused_as_any_head(api: str) -> None:
    [answer] = exchange(api, MANY_HEADERS)

    assert (answer.status, answer.json["code"]) == (431, "headers_too_large")


def test_handshake_is_refused_after_the_answers_before_it(api: str) -> None:
    live = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"

    first, second, refused = exchange(api, live + live + BROKEN["a body"])

    assert (first.status, second.status, refused.status) == (200, 200, 400)


@pytest.mark.parametrize("packets", [1, 2])
def test_client_that_sends_data_before_the_handshakes_answer_is_disconnected(api: str, packets: int) -> None:
    sent = head(start=b"GET /ws/analysis-status/x HTTP/1.1", body=b"\x89\x80\0\0\0\0")
    middle = len(sent) - 6 if packets == 2 else 0
    with connection(api, 3 * ANSWERED_S) as opened:  # uvicorn waits 10 s for the answer to its close frame
        opened.sendall(sent[:middle])
        opened.sendall(sent[middle:])
        received = receive_all(opened)

    # If the data comes after the answer, it is too late to be a fault, and a close frame follows.
    assert not received or received.startswith(b"HTTP/1.1 101 ")


def test_handshake_is_answered_and_then_the_route_decides(api: str) -> None:
    with (
        connect(f"{api.replace('http', 'ws')}/ws/analysis-status/x", proxy=None) as socket,
        pytest.raises(ConnectionClosed) as closed,
    ):
        socket.recv()

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4400, "invalid_request")


LEAVES = {
    "before the answer": b"",
    "with a close frame": b"\x88\x82\0\0\0\0\x03\xe8",
    "with a message that is too large": b"\x81\xfe\x04\x01\0\0\0\0" + b"a" * 1025,
    "with a reset": b"",
}


def test_client_that_disconnects_its_websocket_is_no_error(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with one_api(redis_url, log, LOG_LEVEL="INFO", LOG_FORMAT="json", RATE_LIMIT_MAX_REQUESTS="1000000") as url:
        for number in range(TRIES):
            job_id = httpx.post(f"{url}/analyze-image", json=base64_body(make_png(number))).json()["job_id"]
            start = b"GET /ws/analysis-status/%b HTTP/1.1" % job_id.encode()
            with ExitStack() as exits:
                for leave, last in LEAVES.items():
                    client = exits.enter_context(connection(url))
                    client.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                    client.sendall(head(start=start))
                    if leave != "before the answer":
                        client.recv(1)
                        client.sendall(last)
                Steps(redis).begin(job_id)
            Steps(redis).complete(job_id)

        def lines() -> list[dict[str, Any]]:
            return [json.loads(line) for line in log.read_text().splitlines()]

        def ended() -> int:
            return sum(line["event"] == "request_ended" and line["method"] == "WEBSOCKET" for line in lines())

        wait_until(lambda: ended() == TRIES * len(LEAVES), "every WebSocket has ended")

    assert {line["level"] for line in lines()} == {"info"}
