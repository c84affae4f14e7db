"""Under two hundred hostile clients, the API's memory is bounded, honest calls are fast, and it stops as usual."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from stack import Stack
from support.api_processes import api_process
from support.honest_calls import others_served
from support.memory import forget_peak, peak_bytes
from support.raw_http import connection, read_answers, receive_all
from support.samples import base64_body, make_png
from support.waiting import wait_until

CONNECTIONS = 200
PEAK_BYTES = 150_000_000
SENT_S = 8.0
HELD_S = 1.0
MUCH = 1_000_000

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
JSON = b"POST /analyze-image HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + KEY
WEBSOCKET = b"GET /ws/analysis-status/x HTTP/1.1\r\nHost: x\r\n" + UPGRADE
PING = b"\x89\x80\0\0\0\0"

ATTACKS: dict[str, list[bytes]] = {
    "many headers": [LIVE + b"a:\r\n" * (MUCH // 4)],
    "a header without an end": [LIVE + b"a: " + b"b" * MUCH],
    "a head that stops at the limit": [LIVE + b"a: " + b"b" * 65_000],
    "a URL without an end": [b"GET /" + b"a" * MUCH],
    "trailers": [JSON + CHUNKED + b"0\r\n" + b"a: b\r\n" * (MUCH // 6)],
    "a trailer that stops at the limit": [JSON + CHUNKED + b"2\r\n{}\r\n0\r\na: " + b"b" * 65_000],
    "a chunk's extension": [JSON + CHUNKED + b"2;" + b"a" * MUCH],
    "chunks of one byte": [JSON + CHUNKED + b"1\r\na\r\n" * (MUCH // 6)],
    "chunks of one byte after the answer": [b"POST /x HTTP/1.1\r\n" + CHUNKED + b"1\r\na\r\n" * (MUCH // 6)],
    "pipelined requests": [(LIVE + b"\r\n") * (MUCH // len(LIVE))],
    "short pipelined requests": [b"GET / HTTP/1.1\r\n\r\n" * (MUCH // 18)],
    "a body after an upgrade": [JSON + b"Connection: upgrade\r\nUpgrade: h2c\r\n" + CHUNKED + b"1\r\n{\r\n"],
    "a WebSocket with a body": [LIVE + UPGRADE + b"Content-Length: 2\r\n\r\n{}"],
    "a WebSocket with many headers": [LIVE + UPGRADE + (b"a: " + b"b" * 8000 + b"\r\n") * 130 + b"\r\n"],
    "a WebSocket with a long line": [LIVE + UPGRADE + b"a: " + b"b" * 50_000 + b"\r\n\r\n"],
    "a WebSocket that sends too early": [WEBSOCKET + b"\r\n" + PING * (MUCH // 6)],
    "a WebSocket that sends too much": [WEBSOCKET + b"\r\n", PING * (MUCH // 6)],
}
"""The packets of each client. It sends one after the answer to the last one, and then stays connected."""


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[tuple[str, int]]:
    with api_process(stack.redis_url, RATE_LIMIT_MAX_REQUESTS="1000000", LOG_LEVEL="ERROR") as api:
        yield api


@contextmanager
def attacked(url: str, attack: str, clients: int) -> Iterator[None]:
    """Run an attack with many clients at once; they stay connected while the block runs."""
    first, *rest = ATTACKS[attack]
    with ExitStack() as exits:
        connections = [exits.enter_context(connection(url)) for _ in range(clients)]
        send_all(connections, first)
        for packet in rest:
            for opened in connections:
                opened.recv(1000)
            send_all(connections, packet)
        yield


def send_all(connections: list[socket.socket], packet: bytes) -> None:
    """Send to all connections, as fast as each accepts data, until everything is sent or the API has closed them."""
    left = {opened: memoryview(packet) for opened in connections}
    started_s = time.monotonic()

    def is_done() -> bool:
        for opened, rest in list(left.items()):
            opened.setblocking(False)
            with suppress(BlockingIOError):
                try:
                    left[opened] = rest[opened.send(rest[:65_536]) :]
                except ConnectionError:
                    left[opened] = rest[:0]
            opened.settimeout(10)
            if not left[opened]:
                del left[opened]
        return not left or time.monotonic() > started_s + SENT_S

    wait_until(is_done, "all is sent")


@pytest.mark.parametrize("attack", ATTACKS)
def test_two_hundred_hostile_clients_cost_little_memory_and_delay_no_others(api: tuple[str, int], attack: str) -> None:
    url, process = api
    forget_peak(process)

    with others_served(url, process), attacked(url, attack, CONNECTIONS):
        held_s = time.monotonic() + HELD_S
        wait_until(lambda: time.monotonic() > held_s, "the attack has lasted a while")
        peak = peak_bytes(process)

    print(f"{attack}: {peak / 1e6:.0f} MB")
    assert peak < PEAK_BYTES


def test_no_client_changes_how_the_process_stops(stack: Stack, tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    variables = {"RATE_LIMIT_MAX_REQUESTS": "1000000", "LOG_FORMAT": "json"}
    body = json.dumps(base64_body(make_png(760))).encode()
    start = b"POST /analyze-image HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with ExitStack() as exits:
        url, process = exits.enter_context(api_process(stack.redis_url, log, **variables))
        upload, unfinished = (exits.enter_context(connection(url)) for _ in range(2))
        for opened in (upload, unfinished):
            opened.sendall(start % len(body) + body[:100])
        for attack in ATTACKS:
            exits.enter_context(attacked(url, attack, 1))
        leave_unread(exits.enter_context(connection(url)))

        os.kill(process, signal.SIGTERM)
        wait_until(lambda: is_refused(url), "the API takes no new connection")
        upload.sendall(body[100:])
        [answer] = read_answers(receive_all(upload))
        [refusal] = read_answers(receive_all(unfinished))
        ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)  # its parent waits for it

    assert (answer.status, answer.headers["connection"]) == (202, "close")
    assert (refusal.status, refusal.json["code"]) == (503, "unavailable")
    assert ended is not None
    assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)
    assert [line for line in map(json.loads, log.read_text().splitlines()) if line["level"] == "error"] == []


def leave_unread(opened: socket.socket) -> None:
    """Request more than fits into the kernel's buffers, and read only a little of each answer."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(60):
        opened.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
        opened.recv(1000)


def is_refused(url: str) -> bool:
    try:
        with connection(url):
            return False
    except ConnectionRefusedError:
        return True
