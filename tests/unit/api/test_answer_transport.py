"""The head of an answer is written together with its body, and never kept back for long."""

import asyncio
from unittest.mock import Mock

import pytest

from image_analysis_api.server.answer_transport import AnswerTransport

pytestmark = pytest.mark.anyio


class Socket:
    """Records what is written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_open = True

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return not self.is_open

    def close(self) -> None:
        self.is_open = False


def over(socket: Socket) -> AnswerTransport:
    return AnswerTransport(Mock(wraps=socket), asyncio.get_running_loop(), socket.close)


async def test_first_two_writes_are_one_and_later_ones_their_own() -> None:
    socket = Socket()
    transport = over(socket)
    for piece in (b"head", b"body", b"more", b"end"):
        transport.write(piece)

    assert socket.written == [b"headbody", b"more", b"end"]
    await asyncio.sleep(0)
    assert socket.written == [b"headbody", b"more", b"end"]


async def test_head_of_a_stream_does_not_wait_for_its_first_event() -> None:
    socket = Socket()
    transport = over(socket)
    transport.write(b"head")
    await asyncio.sleep(0)
    transport.write(b"event")

    assert socket.written == [b"head", b"event"]


async def test_head_without_a_body_is_written_before_the_connection_closes() -> None:
    socket = Socket()
    transport = over(socket)
    transport.write(b"head")
    transport.close()

    assert (socket.written, transport.is_closing()) == ([b"head"], True)


async def test_nothing_is_written_to_a_connection_that_was_lost() -> None:
    socket = Socket()
    transport = over(socket)
    transport.write(b"head")
    socket.close()
    await asyncio.sleep(0)

    assert socket.written == []
