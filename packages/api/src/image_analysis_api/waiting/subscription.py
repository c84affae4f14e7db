"""The process's subscription to the changes of all jobs. Does not know the waiting clients."""

import asyncio
import time
from collections.abc import Callable

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys

SILENCE_S = 2.0
"""After this time without a message, Redis gets a PING; after the same time without an answer, the connection ends."""

RECONNECT_S = 0.2
IDLE_S = 10.0
"""The subscription ends after this time without a waiting client, because nobody needs its messages."""

log = structlog.get_logger(__name__)


class Subscription:
    """Calls `note` with the ID of each job that has changed, and with None if changes may have been missed."""

    def __init__(self, redis: Redis, note: Callable[[str | None], None], *, idle_s: float = IDLE_S) -> None:
        self._redis = redis
        self._note = note
        self._idle_s = idle_s
        self._is_listening = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self._idle_since_s: float | None = None

    async def listen(self) -> None:
        """Report every change from now on.

        Raises:
            StoreUnavailable: the subscription to Redis failed.
        """
        self._idle_since_s = None
        if self._listening is None:
            self._listening = asyncio.create_task(self._run())
        if not self._is_listening.is_set():
            async with reaching_redis():
                await self._is_listening.wait()

    def rest(self) -> None:
        """End the subscription after `idle_s`, unless `listen` is called before: no client waits any more."""
        self._idle_since_s = time.monotonic()

    async def aclose(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])

    @property
    def _is_idle(self) -> bool:
        return self._idle_since_s is not None and time.monotonic() - self._idle_since_s > self._idle_s

    async def _run(self) -> None:
        while not self._is_idle:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                log.warning("subscription_interrupted", cause=f"{type(error).__name__}: {error}")
                await asyncio.sleep(RECONNECT_S)
            except Exception:
                # The last line of defense: if this task ended, every later wait would be refused until a restart.
                log.exception("subscription_crashed")
                await asyncio.sleep(RECONNECT_S)
        self._listening = None

    async def _listen(self) -> None:
        async with self._redis.pubsub() as subscription:
            await subscription.subscribe(keys.CHANGES)
            is_asked = True  # SUBSCRIBE also has an answer.
            try:
                while not self._is_idle:
                    message = await subscription.get_message(timeout=SILENCE_S)
                    if message is None:
                        if is_asked:
                            raise TimeoutError("Redis keeps the connection open but does not answer")
                        await subscription.ping()
                    elif message["type"] == "message":
                        # The message can be anything; if it is not the ID of a job, no waiter matches it.
                        self._note(message["data"].decode(errors="replace"))
                    elif message["type"] == "subscribe":
                        self._is_listening.set()
                        self._note(None)
                    is_asked = message is None
            finally:
                self._is_listening.clear()
