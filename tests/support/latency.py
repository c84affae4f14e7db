"""A TCP proxy that adds latency: on loopback, the races of a network never happen."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]


@contextmanager
def delaying_proxy(connect: Connect, delay_s: float) -> Iterator[int]:
    """Listen on a free port of 127.0.0.1 and delay every byte by `delay_s` in each direction; give the port.

    `connect` opens a connection to the server behind it. Bandwidth stays as it is.
    """
    ports: list[int] = []
    is_listening, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        links: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            link = asyncio.create_task(_link((reader, writer), connect, delay_s))
            links.add(link)
            link.add_done_callback(links.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        is_listening.set()
        await stop.wait()
        server.close()
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    with asyncio.Runner() as runner:
        thread = threading.Thread(target=runner.run, args=(serve(),))
        thread.start()
        is_listening.wait()
        try:
            yield ports[0]
        finally:
            runner.get_loop().call_soon_threadsafe(stop.set)
            thread.join()


async def _link(near: Streams, connect: Connect, delay_s: float) -> None:
    writers = [near[1]]
    try:
        far = await connect()
        writers.append(far[1])
        await asyncio.gather(_pump(near[0], far[1], delay_s), _pump(far[0], near[1], delay_s))
    except OSError:
        pass  # One side is gone: so is the other.
    finally:
        for writer in writers:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Pass each piece on when it is due; the end too."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def receive() -> None:
        piece = b"?"
        while piece:
            with suppress(ConnectionError):
                piece = b""
                piece = await reader.read(65536)
            pieces.put_nowait((loop.time() + delay_s, piece))

    receiving = asyncio.create_task(receive())
    try:
        while True:
            due_s, piece = await pieces.get()
            await asyncio.sleep(due_s - loop.time())
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    finally:
        receiving.cancel()
