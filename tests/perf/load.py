"""A load generator for HTTP/1.1 on loopback. Requests are prepared bytes; of an answer, it reads status and length.

There are two kinds of load. Closed: each connection sends its next request when the last one is answered, which finds
the peak rate. Open: each request is due at a fixed time, and its latency counts from then, including the wait for a
free connection. So requests that a slow server delays count as slow.
"""

import asyncio
import gc
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from statistics import quantiles
from typing import cast

import uvloop

HEAD_END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length: "
SILENCE_S = 60.0
"""After this time without an answer, the server is considered to hang."""


class LoadError(Exception):
    """The server closed a connection, or stopped answering."""


@dataclass
class Load:
    """The result of a load: when calls ended, how long they took, and the answers."""

    started_s: float = 0.0
    ends_s: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    client_share: float = 0.0
    """The share of one core that the generator used; near 1, the generator was the bottleneck."""

    @property
    def calls_per_s(self) -> float:
        return len(self.ends_s) / (self.ends_s[-1] - self.started_s)

    def percentile_ms(self, percent: int) -> float:
        return quantiles(self.latencies_s, n=100)[percent - 1] * 1000


def closed_loop(port: int, requests: Iterator[bytes], *, connections: int, duration_s: float = float("inf")) -> Load:
    """Keep every connection busy until all requests are sent or the time is over.

    Raises:
        LoadError
    """

    async def run() -> Load:
        pool = Pool(port, connections)
        await pool.connect()
        return await pool.measure(lambda: pool.send_closed(requests, duration_s))

    return uvloop.run(run())


def open_loop(port: int, requests: Iterator[bytes], *, connections: int, duration_s: float, rate_per_s: float) -> Load:
    """Send requests at random times, `rate_per_s` on average, as independent clients do.

    Raises:
        LoadError
    """

    async def run() -> Load:
        pool = Pool(port, connections)
        await pool.connect()
        return await pool.measure(lambda: pool.send_open(requests, duration_s, rate_per_s))

    return uvloop.run(run())


class Connection(asyncio.Protocol):
    """One connection with at most one request on it."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._transport: asyncio.WriteTransport | None = None
        self._answer = b""
        self._is_waiting = False
        self.due_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's class is not a subclass of asyncio's

    def send(self, request: bytes, due_s: float) -> None:
        assert self._transport is not None
        self.due_s = due_s
        self._is_waiting = True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, separator, body = self._answer.partition(HEAD_END)
        if not separator or len(body) < int(head.lower().partition(LENGTH)[2].partition(b"\r")[0]):
            return
        self._answer = b""
        self._is_waiting = False
        self._pool.on_answer(self, int(head[9:12]))

    def connection_lost(self, _error: Exception | None) -> None:
        if self._is_waiting:  # servers close idle connections
            self._pool.on_loss()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Pool:
    """The connections of one load, and their results."""

    def __init__(self, port: int, size: int) -> None:
        self._port = port
        self._size = size
        self._idle: deque[Connection] = deque()
        self._load = Load()
        self._next: Callable[[Connection], None] = self._idle.append
        self._is_lost = False

    async def connect(self) -> None:
        for _ in range(self._size):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self), "127.0.0.1", self._port
            )
            self._idle.append(connection)

    async def measure(self, send: Callable[[], Awaitable[None]]) -> Load:
        """Send, wait for the last answer, close the connections."""
        gc.collect()
        gc.disable()  # a pause here would look like a pause of the server
        try:
            cpu_s = time.process_time()
            self._load.started_s = time.perf_counter()
            await send()
            await self._wait()
        finally:
            gc.enable()
        self._load.client_share = (time.process_time() - cpu_s) / (time.perf_counter() - self._load.started_s)
        for connection in self._idle:
            connection.close()
        return self._load

    async def send_closed(self, requests: Iterator[bytes], duration_s: float) -> None:
        deadline_s = self._load.started_s + duration_s

        def send_next(connection: Connection) -> None:
            now_s = time.perf_counter()
            request = next(requests, None) if now_s < deadline_s else None
            if request is None:
                self._idle.append(connection)
            else:
                connection.send(request, now_s)

        self._next = send_next
        for _ in range(self._size):
            send_next(self._idle.popleft())

    async def send_open(self, requests: Iterator[bytes], duration_s: float, rate_per_s: float) -> None:
        waiting_s: deque[float] = deque()

        def send_next(connection: Connection) -> None:
            if waiting_s:
                connection.send(next(requests), waiting_s.popleft())
            else:
                self._idle.append(connection)

        self._next = send_next
        clock = random.Random(0)
        due_s = self._load.started_s
        while due_s < self._load.started_s + duration_s:
            if (delay_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(delay_s)
            if self._idle:
                self._idle.popleft().send(next(requests), due_s)
            else:
                waiting_s.append(due_s)
            due_s += clock.expovariate(rate_per_s)

    def on_answer(self, connection: Connection, status: int) -> None:
        now_s = time.perf_counter()
        self._load.ends_s.append(now_s)
        self._load.latencies_s.append(now_s - connection.due_s)
        self._load.statuses[status] += 1
        self._next(connection)

    def on_loss(self) -> None:
        self._is_lost = True

    async def _wait(self) -> None:
        while len(self._idle) < self._size:
            latest_s = self._load.ends_s[-1] if self._load.ends_s else self._load.started_s
            if self._is_lost or time.perf_counter() - latest_s > SILENCE_S:
                raise LoadError(f"{'It hung up' if self._is_lost else 'No answer'}, after {self._load.statuses}")
            await asyncio.sleep(0.002)
