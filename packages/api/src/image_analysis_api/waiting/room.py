"""The clients of this process that wait for changes of jobs; they share one subscription and one read of each job.

A waiter has a position in the job's history instead of a queue of messages, so a slow client uses no memory.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from redis.asyncio import Redis
from starlette.types import Receive

from image_analysis_api.jobs.records import JobRecords
from image_analysis_api.waiting.subscription import Subscription
from image_analysis_common.errors import JobNotFound, StoreUnavailable, TooManyWaiters, UnreadableRecord
from image_analysis_common.records import Progress

KEEP_ALIVE_S = 15.0
"""Proxies close a connection that is silent for a minute, some after half a minute."""

MAX_AGE_S = 600.0
"""A stream ends after this time. Its client reconnects, perhaps to a process with fewer streams."""

READ_AT_ONCE = 100
RETRY_S = 0.2


@dataclass(eq=False)
class WatchedJob:
    """A job with waiting clients."""

    latest: Progress | None = None
    fault: JobNotFound | UnreadableRecord | None = None
    waiters: set["Waiter"] = field(default_factory=set)

    def update(self, found: Progress | UnreadableRecord | None) -> None:
        """Store what was read and wake the waiters; an older state than the stored one is ignored.

        The end counts even with a shorter history: a failover of Redis can undo steps.
        """
        if found is None:
            self.fault = JobNotFound()
        elif isinstance(found, UnreadableRecord):
            self.fault = found
        elif self.latest is None or found.record.status.is_final or len(found.history) > len(self.latest.history):
            self.latest = found
        else:
            return
        for waiter in self.waiters:
            waiter.wake()


class Waiter:
    """One waiting client."""

    def __init__(self, watched: WatchedJob) -> None:
        self._watched = watched
        self._changed = asyncio.Event()
        self._is_dismissed = False

    @property
    def progress(self) -> Progress:
        """The latest known progress of the job.

        Raises:
            JobNotFound: it was forgotten during the wait.
            UnreadableRecord: another release wrote its record.
        """
        if fault := self._watched.fault:
            raise type(fault) from fault.__cause__
        if self._watched.latest is None:
            raise JobNotFound
        return self._watched.latest

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.progress.record.status.is_final

    def wake(self) -> None:
        self._changed.set()

    def dismiss(self) -> None:
        """End the wait: the client has disconnected, or the process is stopping."""
        self._is_dismissed = True
        self.wake()

    async def wait_for_end(self, timeout_s: float) -> None:
        """Return when the job has ended, or after `timeout_s`.

        Raises:
            JobNotFound, UnreadableRecord
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        while not self.has_ended and await self._wait_for_change(deadline_s):
            pass

    async def steps(
        self, first: int = 0, *, keep_alive_s: float = KEEP_ALIVE_S, max_age_s: float = MAX_AGE_S
    ) -> AsyncIterator[int | None]:
        """Yield the number of each step in the job's history from `first` on; None after `keep_alive_s` of silence.

        It ends with the job's last step, after `max_age_s`, or when the waiter is dismissed.

        Raises:
            JobNotFound, UnreadableRecord
        """
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + max_age_s
        # After a failover, the end can be an earlier step than the last one that was yielded.
        lacks_end = not self.has_ended or first < len(self.progress.history)
        while True:
            while first < len(self.progress.history) or (lacks_end and self.has_ended):
                first = min(first, len(self.progress.history) - 1)
                lacks_end = not self.has_ended or first + 1 < len(self.progress.history)
                yield first
                first += 1
            if self.has_ended or self._is_dismissed or clock() >= deadline_s:
                return
            if not await self._wait_for_change(min(clock() + keep_alive_s, deadline_s)):
                yield None

    async def _wait_for_change(self, deadline_s: float) -> bool:
        """Wait for a change; return False if there was none in time, or if the waiter was dismissed."""
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return not self._is_dismissed


class WaitingRoom:
    """Holds at most `max_waiters`, and at most `max_per_client` of one client."""

    def __init__(self, redis: Redis, store: JobRecords, *, max_waiters: int, max_per_client: int) -> None:
        self._store = store
        self._max_waiters = max_waiters
        self._max_per_client = max_per_client
        self._changes = Subscription(redis, self._note)
        self._watched: dict[str, WatchedJob] = {}
        self._clients: Counter[str] = Counter()
        self._stale: set[str] = set()
        self._reading: asyncio.Task[None] | None = None
        self._is_closing = False

    def __len__(self) -> int:
        return self._clients.total()

    @asynccontextmanager
    async def enter(self, job_id: UUID, owner: str | None, client: str) -> AsyncIterator[Waiter]:
        """Make a waiter for an owner's job while the block runs; `client` is the owner or address that it counts for.

        Raises:
            TooManyWaiters: too many clients wait, or this client waits too often.
            JobNotFound: the job does not exist, has expired, or has another owner.
            UnreadableRecord: another release wrote its record.
            StoreUnavailable: the subscription to Redis failed.
        """
        if len(self) >= self._max_waiters or self._clients[client] >= self._max_per_client:
            raise TooManyWaiters
        identifier = str(job_id)
        watched = self._watched.setdefault(identifier, WatchedJob())
        waiter = Waiter(watched)
        watched.waiters.add(waiter)
        self._clients[client] += 1
        try:
            # Subscribe before the first read, so that no step is missed between the two.
            await self._changes.listen()
            if watched.latest is None:
                watched.update((await self._store.find_progress([identifier]))[0])
            if waiter.progress.record.owner != owner:
                raise JobNotFound
            if self._is_closing:
                waiter.dismiss()
            yield waiter
        finally:
            self._leave(identifier, waiter, client)

    def _leave(self, identifier: str, waiter: Waiter, client: str) -> None:
        watched = self._watched[identifier]
        watched.waiters.discard(waiter)
        if not watched.waiters:
            del self._watched[identifier]
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]
        if not self._watched:
            self._changes.rest()

    def dismiss(self) -> None:
        """End every wait, now and in the future: the process is stopping."""
        self._is_closing = True
        for watched in self._watched.values():
            for waiter in watched.waiters:
                waiter.dismiss()

    async def aclose(self) -> None:
        self.dismiss()
        await self._changes.aclose()

    def _note(self, job_id: str | None) -> None:
        if job_id is None:
            self._stale.update(self._watched)
        elif job_id in self._watched:
            self._stale.add(job_id)
        if self._stale and self._reading is None:
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        """Read each changed job once for all its waiters."""
        try:
            while self._stale:
                job_ids = [self._stale.pop() for _ in range(min(len(self._stale), READ_AT_ONCE))]
                try:
                    found = await self._store.find_progress(job_ids)
                except StoreUnavailable:
                    self._stale.update(job_ids)
                    await asyncio.sleep(RETRY_S)
                    self._stale &= self._watched.keys()
                    continue
                for job_id, progress in zip(job_ids, found, strict=True):
                    if watched := self._watched.get(job_id):
                        watched.update(progress)
        finally:
            self._reading = None


@asynccontextmanager
async def dismissed_on_disconnect(waiter: Waiter, receive: Receive) -> AsyncIterator[None]:
    """End the wait when the client disconnects; anything that it sends is dropped."""

    async def listen() -> None:
        try:
            while not (await receive())["type"].endswith("disconnect"):
                pass
        finally:  # After an error, nobody would notice that the client disconnects.
            waiter.dismiss()

    listening = asyncio.create_task(listen())
    try:
        yield
    finally:
        listening.cancel()
