"""Web servers on loopback whose answers a test chooses."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

Answer = Callable[["Listener", asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """A web server on loopback that counts connections and records the requests' heads."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connects = 0
        self.heads: list[str] = []
        self.port = 0
        self.gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connects += 1
        try:
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            await self.answer(self, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.gone.set()

    async def send(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        writer.write(piece)
        await writer.drain()


@contextlib.asynccontextmanager
async def listening(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Listener]:
    """Listen on a free port of 127.0.0.1."""
    listener = Listener(answer)
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0, ssl=tls)
    listener.port = server.sockets[0].getsockname()[1]
    async with server:
        yield listener


async def image(listener: Listener, writer: asyncio.StreamWriter) -> None:
    """Answer with five bytes."""
    await listener.send(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nimage")
