"""The clients of this process that wait for a job's next step: one subscription and one read serve all of them.

A waiter has no queue of its own, only a position in the job's history: a slow client holds no messages in memory.
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
"""Proxies close a connection on which nothing comes for a minute, some for half of one."""

MAX_AGE_S = 600.0
"""A stream ends after this long, and its client comes again: on the way it may find a process with fewer of them."""

READ_AT_ONCE = 100
RETRY_S = 0.2


@dataclass(eq=False)
class Watched:
    """A job with waiting clients."""

    latest: Progress | None = None
    fault: JobNotFound | UnreadableRecord | None = None
    waiters: set["Waiter"] = field(default_factory=set)

    def show(self, found: Progress | UnreadableRecord | None) -> None:
        """Tell the waiters what was read; of two reads that cross, the later state stands."""
        if found is None:
            self.fault = JobNotFound()
        elif isinstance(found, UnreadableRecord):
            self.fault = found
        elif self.latest is None or len(found.history) > len(self.latest.history):
            self.latest = found
        else:
            return
        for waiter in self.waiters:
            waiter.wake()


class Waiter:
    """One waiting client."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._changed = asyncio.Event()
        self._is_dismissed = False

    @property
    def progress(self) -> Progress:
        """How far the job is known to have come.

        Raises:
            JobNotFound: it was forgotten meanwhile.
            UnreadableRecord: another release wrote its last step.
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
        """Return when the job has ended, in time or not.

        Raises:
            JobNotFound, UnreadableRecord
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        while not self.has_ended and await self._wait_for_change(deadline_s):
            pass

    async def steps(
        self, first: int = 0, *, keep_alive_s: float = KEEP_ALIVE_S, max_age_s: float = MAX_AGE_S
    ) -> AsyncIterator[int | None]:
        """Yield the number of each of the job's steps from `first` on, and None where nothing came for a while.

        Ends with the job's last step, after `max_age_s`, or when the waiter is dismissed.

        Raises:
            JobNotFound, UnreadableRecord
        """
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + max_age_s
        while True:
            while first < len(self.progress.history):
                yield first
                first += 1
            if self.has_ended or self._is_dismissed or clock() >= deadline_s:
                return
            if not await self._wait_for_change(min(clock() + keep_alive_s, deadline_s)):
                yield None

    async def _wait_for_change(self, deadline_s: float) -> bool:
        """Wait for a change; False when there is none in time, or none worth waiting for."""
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return not self._is_dismissed


class WaitingRoom:
    """Holds at most `max_waiters`, and of one client at most `max_per_client`."""

    def __init__(self, redis: Redis, store: JobRecords, *, max_waiters: int, max_per_client: int) -> None:
        self._store = store
        self._max_waiters = max_waiters
        self._max_per_client = max_per_client
        self._changes = Subscription(redis, self._note)
        self._watched: dict[str, Watched] = {}
        self._clients: Counter[str] = Counter()
        self._stale: set[str] = set()
        self._reading: asyncio.Task[None] | None = None
        self._is_closing = False

    def __len__(self) -> int:
        return self._clients.total()

    @asynccontextmanager
    async def enter(self, job_id: UUID, owner: str | None, client: str) -> AsyncIterator[Waiter]:
        """Wait for an owner's job while the block lasts; `client` is who has a share of the room.

        Raises:
            TooManyWaiters: the room, or the client's share of it, is full.
            JobNotFound: there is no such job of this owner's.
            UnreadableRecord: another release wrote its record.
            StoreUnavailable: Redis cannot be listened to.
        """
        if len(self) >= self._max_waiters or self._clients[client] >= self._max_per_client:
            raise TooManyWaiters
        identifier = str(job_id)
        watched = self._watched.setdefault(identifier, Watched())
        waiter = Waiter(watched)
        watched.waiters.add(waiter)
        self._clients[client] += 1
        try:
            # Listen first, then look: a step in between is not missed.
            await self._changes.listen()
            if watched.latest is None:
                watched.show((await self._store.find_progress([identifier]))[0])
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
        """End every wait, also those that begin later: the process is stopping."""
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
        """Read each job that has changed, once for all who wait for it."""
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
                        watched.show(progress)
        finally:
            self._reading = None


@asynccontextmanager
async def dismissed_on_disconnect(waiter: Waiter, receive: Receive) -> AsyncIterator[None]:
    """End the wait when the client hangs up; what it sends meanwhile is dropped."""

    async def listen() -> None:
        while not (await receive())["type"].endswith("disconnect"):
            pass
        waiter.dismiss()

    listening = asyncio.create_task(listen())
    try:
        yield
    finally:
        listening.cancel()
