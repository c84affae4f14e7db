"""Clients that are slow, silent or disconnected get a proper answer, and all others are served as usual."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from image_analysis_api.server.connections import HEAD_TIMEOUT_S, LINGER_BYTES, LINGER_S
from stack import Stack
from support.api_processes import api_process
from support.honest_calls import others_served
from support.raw_http import receive_all
from support.waiting import PATIENCE_S, wait_until

BODY_TIMEOUT_S = 2
IDLE = 1000
LATE_S = 30
"""How much later than its limit a connection may be closed on a busy machine."""

HEAD = b"POST /analyze-image HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n"
Connect = Callable[[], socket.socket]


@pytest.fixture(scope="module")
def api_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients") / "api.log"


@pytest.fixture(scope="module")
def api(stack: Stack, api_log: Path) -> Iterator[tuple[str, int]]:
    variables = {"BODY_TIMEOUT_SECONDS": str(BODY_TIMEOUT_S), "RATE_LIMIT_MAX_REQUESTS": "1000000"}
    with api_process(stack.redis_url, api_log, LOG_LEVEL="INFO", LOG_FORMAT="json", **variables) as api:
        yield api


@pytest.fixture
def connect(api: tuple[str, int]) -> Iterator[Connect]:
    address = urlsplit(api[0])
    with ExitStack() as exits:
        yield lambda: exits.enter_context(socket.create_connection((address.hostname, address.port), PATIENCE_S))


def test_dripped_body_is_408_in_time(api: tuple[str, int], connect: Connect) -> None:
    with others_served(*api):
        drippers = [connect() for _ in range(50)]
        started_s = time.monotonic()
        for dripper in drippers:
            dripper.sendall(HEAD)
        sent = 0

        def drip() -> bool:
            nonlocal sent
            for dripper in drippers:
                with suppress(ConnectionError):
                    dripper.send(b" ")
            sent += 1
            return time.monotonic() > started_s + BODY_TIMEOUT_S + LINGER_S + 0.5

        wait_until(drip, "the time for a body is over")
        answers = [receive_all(dripper) for dripper in drippers]

    assert sent > 10
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 408"}
    assert {json.loads(answer.partition(b"\r\n\r\n")[2])["code"] for answer in answers} == {"request_timeout"}


def test_connection_dropped_in_the_midst_of_a_body_is_no_crash(
    api: tuple[str, int], connect: Connect, api_log: Path
) -> None:
    with others_served(*api):
        for _ in range(200):
            dropped = connect()
            dropped.sendall(HEAD + b'{"image_data": "')
            dropped.close()

        def ends() -> int:
            return sum(json.loads(line).get("status") == 400 for line in api_log.read_text().splitlines())

        wait_until(lambda: ends() == 200, "every dropped request has ended")

    assert "request_crashed" not in api_log.read_text()
    assert "Traceback" not in api_log.read_text()


def trickle(kept: socket.socket, start: bytes, more: bytes) -> float:
    """Send one request, start another without finishing it; return how long the connection stays open."""
    kept.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    kept.recv(1000)
    kept.sendall(start)
    started_s = time.monotonic()

    def is_closed() -> bool:
        with suppress(ConnectionError):
            kept.send(more)
            return False
        return True

    wait_until(is_closed, "the kept connection is closed", HEAD_TIMEOUT_S + LATE_S)
    return time.monotonic() - started_s


def test_idle_connections_kept_ones_and_unfinished_heads_are_closed(api: tuple[str, int], connect: Connect) -> None:
    with others_served(*api), ThreadPoolExecutor(2) as threads:
        started_s = time.monotonic()
        idle = [connect() for _ in range(IDLE)]
        for connection in idle[::2]:
            connection.sendall(HEAD[:-2])
        kept = [
            threads.submit(trickle, connect(), b"", b"\r\n"),
            threads.submit(trickle, connect(), HEAD[:-2] + b"A: ", b"0"),
        ]

        received = {receive_all(connection) for connection in idle}
        took_s = time.monotonic() - started_s

    assert received == {b""}
    assert HEAD_TIMEOUT_S - 1 < took_s < HEAD_TIMEOUT_S + LATE_S
    assert all(HEAD_TIMEOUT_S - 1 < future.result() < HEAD_TIMEOUT_S + LATE_S for future in kept)


def test_malformed_http_is_a_problem(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")

    head, _, body = receive_all(connection).partition(b"\r\n\r\n")

    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["status"] == 400


@pytest.mark.parametrize("framing", ["content-length: 999999999999", "transfer-encoding: chunked"])
def test_body_that_goes_on_after_its_refusal_is_cut_off(api: tuple[str, int], connect: Connect, framing: str) -> None:
    connection = connect()
    connection.sendall(f"POST /analyze-image HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
    block = b" " * 65536
    piece = block if "length" in framing else b"10000\r\n" + block + b"\r\n"
    sent_bytes = 0

    with others_served(*api), suppress(ConnectionError):
        while sent_bytes < 10 * LINGER_BYTES:
            sent_bytes += connection.send(piece)

    assert sent_bytes < 3 * LINGER_BYTES
