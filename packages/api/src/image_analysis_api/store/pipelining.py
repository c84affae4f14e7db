"""A Redis client that sends the commands of concurrent requests in shared round trips."""

import asyncio
import math
from collections import deque
from typing import Any, NamedTuple, cast

from hiredis import pack_command
from redis.asyncio import Connection, Redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

ALONE_BYTES = 128 * 1024
"""A command with more bytes gets a separate connection, so that the others do not wait for it."""

MAX_COMMANDS = 128
"""Most commands in one round trip."""

FULL_BYTES = 512 * 1024
"""A round trip with more bytes takes no further command, because Redis answers all of it at its end."""

ROUND_TRIPS = 2
"""Most round trips at a time, if the commands that wait fill one: Redis works on one, while the event loop handles the
answers of the other."""


class _Command(NamedTuple):
    name: str
    packed: bytes
    options: dict[str, Any]
    answer: asyncio.Future[Any]

    def settle(self, result: object) -> None:
        """Give the caller its result or its error, unless it has one or was cancelled."""
        if self.answer.done():
            return
        if isinstance(result, Exception):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)

    def expire(self) -> None:
        self.settle(CommandTimeout())


class CommandTimeout(RedisTimeoutError, TimeoutError):
    """A command took too long; callers expect the error of redis-py or that of asyncio."""

    def __init__(self) -> None:
        super().__init__("Redis did not answer in time")


class PipeliningRedis(Redis):
    """Collects commands while a round trip is running, and sends them together in the next one.

    A round trip of redis-py takes the event loop 0.1 ms, however few commands it has. If one fails, the commands that
    wait for the next one fail too: a hung peer costs one timeout, not several.

    `timeout_s` limits all steps of a command together. A timer of the event loop takes a third of `asyncio.timeout`.
    """

    timeout_s: float

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting: deque[_Command] = deque()
        self._waiting_bytes = 0
        self._senders = set[asyncio.Task[None]]()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        # The name of a command may be two words, such as SCRIPT LOAD.
        packed = pack_command((*args[0].split(), *args[1:]))
        loop = asyncio.get_running_loop()
        command = _Command(args[0], packed, options, loop.create_future())
        if len(packed) > ALONE_BYTES:
            return await self._execute_alone(command)
        timer = loop.call_later(self.timeout_s, command.expire)
        self._waiting.append(command)
        self._waiting_bytes += len(packed)
        if len(self._senders) < (ROUND_TRIPS if self._waiting_bytes > FULL_BYTES else 1):
            self._senders.add(asyncio.create_task(self._send_waiting()))
        try:
            return await command.answer
        finally:
            timer.cancel()

    async def _execute_alone(self, command: _Command) -> Any:
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._exchange([command])
        except TimeoutError as error:
            raise CommandTimeout from error
        return await command.answer

    async def _send_waiting(self) -> None:
        try:
            while self._waiting:
                # A job whose client has got its 503 should not be queued.
                if batch := [command for command in self._take() if not command.answer.done()]:
                    await self._send(batch)
        finally:
            self._senders.remove(cast(asyncio.Task[None], asyncio.current_task()))

    def _take(self) -> list[_Command]:
        """Remove what fits into a round trip from the commands that wait."""
        batch, size_bytes = list[_Command](), 0
        while self._waiting and len(batch) < MAX_COMMANDS and size_bytes <= FULL_BYTES:
            batch.append(self._waiting.popleft())
            size_bytes += len(batch[-1].packed)
        self._waiting_bytes -= size_bytes
        return batch

    async def _send(self, batch: list[_Command]) -> None:
        try:
            await self._exchange(batch)
        except Exception as error:  # noqa: BLE001
            # Every caller gets the error, also those that wait for the next round trip: it would fail too.
            for command in (*batch, *self._waiting):
                command.settle(error)
            self._waiting.clear()
            self._waiting_bytes = 0

    async def _exchange(self, batch: list[_Command]) -> None:
        """Send commands and settle each as soon as its answer has come; that of one that Redis refuses is the error.

        A pipeline of redis-py does the same. It takes four times as long to write a command with a hundred words, and
        sets a timer for each answer.
        """
        connection = await self.connection_pool.get_connection()
        try:
            async with asyncio.timeout(connection.socket_timeout):
                await connection.send_packed_command([command.packed for command in batch])
                for command in batch:
                    command.settle(await self._read(connection, command))
        except TimeoutError as error:  # of asyncio
            raise CommandTimeout from error
        finally:
            await self.connection_pool.release(connection)

    async def _read(self, connection: Connection, command: _Command) -> Any:
        name, options = command.name, command.options
        try:
            if options or name in self.response_callbacks:
                return await self.parse_response(connection, name, **options)
            return await connection.read_response(timeout=math.inf)
        except ResponseError as error:
            return error
