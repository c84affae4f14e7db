"""A TCP proxy between a service and its Redis whose two directions can be slow or cut, each by itself.

Without latency, some races of a network never happen on loopback.
"""

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]

PIECE_BYTES = 4096
POLL_S = 0.01


@dataclass
class Direction:
    """What a link does to the bytes of each connection in one direction; can be changed at any time."""

    delay_s: float = 0
    bytes_per_s: float = math.inf
    is_cut: bool = False
    """Whether nothing arrives. It arrives later, as on a network that sends lost packets again."""
    before: Callable[[bytes], None] = lambda piece: None
    """Called with each piece before it is put on the way."""


@dataclass
class Link:
    """Listens on `port` of 127.0.0.1; a connection is accepted even if a direction is cut."""

    port: int = 0
    to_redis: Direction = field(default_factory=Direction)
    to_service: Direction = field(default_factory=Direction)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def slow_down(self, delay_s: float, bytes_per_s: float) -> None:
        for direction in (self.to_redis, self.to_service):
            direction.delay_s, direction.bytes_per_s = delay_s, bytes_per_s

    @contextmanager
    def deaf(self, since: bytes = b"") -> Iterator[None]:
        """Let the service hear nothing of Redis, which hears the service, `since` it sends these bytes."""

        def cut(piece: bytes) -> None:
            if since in piece:
                self.to_service.is_cut = True

        cut(b"")
        self.to_redis.before = cut
        try:
            yield
        finally:
            self.to_redis.before = lambda piece: None
            self.to_service.is_cut = False

    async def join(self, near: Streams, connect: Connect) -> None:
        """Connect a service with Redis until one of them closes the connection."""
        writers = [near[1]]
        try:
            far = await connect()
            writers.append(far[1])
            await asyncio.gather(_pump(near[0], far[1], self.to_redis), _pump(far[0], near[1], self.to_service))
        except OSError:
            pass  # One side has closed, so close the other.
        finally:
            for writer in writers:
                writer.close()


@contextmanager
def open_link(connect: Connect, *, delay_s: float = 0) -> Iterator[Link]:
    """Give a link, with `delay_s` in each direction, to the server to which `connect` opens a connection."""
    link = Link(to_redis=Direction(delay_s), to_service=Direction(delay_s))
    is_listening, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        connections: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = asyncio.create_task(link.join((reader, writer), connect))
            connections.add(connection)
            connection.add_done_callback(connections.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        link.port = server.sockets[0].getsockname()[1]
        is_listening.set()
        await stop.wait()
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    with asyncio.Runner() as runner:
        thread = threading.Thread(target=runner.run, args=(serve(),))
        thread.start()
        is_listening.wait()
        try:
            yield link
        finally:
            runner.get_loop().call_soon_threadsafe(stop.set)
            thread.join()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
    """Pass each piece on when it has arrived, and also the end."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def receive() -> None:
        piece, sent_s = b"?", 0.0
        while piece:
            with suppress(ConnectionError):
                piece = b""
                piece = await reader.read(PIECE_BYTES)
            direction.before(piece)
            sent_s = max(sent_s, loop.time()) + len(piece) / direction.bytes_per_s
            pieces.put_nowait((sent_s + direction.delay_s, piece))

    receiving = asyncio.create_task(receive())
    try:
        while True:
            due_s, piece = await pieces.get()
            await asyncio.sleep(due_s - loop.time())
            while direction.is_cut:  # noqa: ASYNC110  another thread sets it
                await asyncio.sleep(POLL_S)
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    finally:
        receiving.cancel()
