"""HTTP as bytes on a socket: sends requests that no client library sends, and reads their answers."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

ANSWERED_S = 10.0
"""Shorter than every deadline of the API, so that a request that hangs fails the test."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value


@contextmanager
def connection(url: str, timeout_s: float = ANSWERED_S) -> Iterator[socket.socket]:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout_s) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield opened


def receive_all(opened: socket.socket) -> bytes:
    """Read until the other side closes; a reset counts as a close."""
    received = b""
    with suppress(ConnectionError):
        while piece := opened.recv(65536):
            received += piece
    return received


def read_answers(received: bytes) -> list[Answer]:
    """Split the received bytes into answers; each has a Content-Length."""
    answers = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        size = int(headers.get("content-length", 0))
        answers.append(Answer(int(status.split()[1]), headers, received[:size]))
        received = received[size:]
    return answers


def exchange(url: str, *packets: bytes) -> list[Answer]:
    """Send packets on one connection, which the API closes at the end; return its answers."""
    with connection(url) as opened:
        with suppress(ConnectionError):  # The API may close it before everything is sent.
            for packet in packets:
                opened.sendall(packet)
        return read_answers(receive_all(opened))
