"""The deliverer's main loop: claim due deliveries, attempt them, record the outcome."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from image_analysis_api.deliverer.backoff import choose_delay_s
from image_analysis_api.deliverer.courier import Courier, Report, Verdict
from image_analysis_api.deliverer.metrics import ATTEMPTS
from image_analysis_api.deliverer.outbox import Delivery, Outbox
from image_analysis_api.store.client import refuses_password
from image_analysis_common import keys
from image_analysis_common.errors import StoreUnavailable

MAX_CONCURRENT = 64
POLL_S = 0.2
"""Longest time until an idle deliverer finds a new delivery."""

GRACE_S = 5.0
"""Time that running attempts get when the process stops."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0
EXPIRED = "expired"

log = structlog.get_logger(__name__)


class Rounds:
    """Delivers until `stop`, with at most `max_concurrent` attempts at once; with 0, it only sends heartbeats."""

    def __init__(
        self,
        outbox: Outbox,
        courier: Courier,
        *,
        max_concurrent: int = MAX_CONCURRENT,
        grace_s: float = GRACE_S,
        choose_delay_s: Callable[[int, str], float] = choose_delay_s,
    ) -> None:
        self._outbox = outbox
        self._courier = courier
        self._max_concurrent = max_concurrent
        self._grace_s = grace_s
        self._choose_delay_s = choose_delay_s
        self._running: dict[asyncio.Task[None], Delivery] = {}
        self._has_changed = asyncio.Event()
        self._is_stopping = False
        self._is_redis_down = False
        self._is_refused = False
        self._last_heartbeat_s = -math.inf

    def stop(self) -> None:
        """Make `run` return."""
        self._is_stopping = True
        self._has_changed.set()

    async def run(self) -> None:
        """Deliver; after `stop`, give running attempts a few seconds, then make the unfinished deliveries due again."""
        retry_wait_s = FIRST_WAIT_S
        while not self._is_stopping:
            self._has_changed.clear()
            try:
                wait_s = await self._start_due()
            except StoreUnavailable as error:
                self._note_store(error)
                wait_s, retry_wait_s = retry_wait_s, min(retry_wait_s * 2, LONGEST_WAIT_S)
            else:
                self._note_store(None)
                retry_wait_s = FIRST_WAIT_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._has_changed.wait()
        if self._running:
            await asyncio.wait(self._running, timeout=self._grace_s)
        unfinished = dict(self._running)
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished)
        for delivery in unfinished.values():
            with suppress(StoreUnavailable):  # then its lease expires instead
                await self._outbox.retry(delivery, 0)

    async def _start_due(self) -> float:
        """Start the deliveries that are due; return the time until the next check."""
        if time.monotonic() - self._last_heartbeat_s >= keys.HEARTBEAT_INTERVAL_S:
            await self._outbox.beat()
            self._last_heartbeat_s = time.monotonic()
        free = self._max_concurrent - len(self._running)
        if free < 1:
            return POLL_S
        busy = Counter(delivery.receiver for delivery in self._running.values())
        # Hosts that hang are retried all day; half of the attempts are left for what was never tried.
        running_retries = sum(delivery.attempts > 1 for delivery in self._running.values())
        claimed, wait_s = await self._outbox.claim(free, busy, (self._max_concurrent + 1) // 2 - running_retries)
        for delivery in claimed:
            task = asyncio.create_task(self._deliver(delivery))
            self._running[task] = delivery
            task.add_done_callback(self._note_end)
        return POLL_S if wait_s is None else min(wait_s, POLL_S)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._has_changed.set()
        if not task.cancelled() and (error := task.exception()):
            # Its outcome could not be recorded: another attempt follows when the lease has expired.
            log.error("webhook_crashed", exc_info=error)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            report = await self._courier.attempt(delivery)
            delay_s = self._choose_delay_s(delivery.attempts, report.retry_after)
        except Exception as error:
            # Last line of defense: after any error, the delivery is retried like others, until its period ends.
            log.exception("webhook_crashed", job_id=delivery.job_id)
            report = Report(Verdict.RETRIED, type(error).__name__)
            delay_s = self._choose_delay_s(delivery.attempts, report.retry_after)
        is_last = report.verdict is Verdict.RETRIED and delivery.age_s + delay_s > keys.DELIVERY_PERIOD_S
        if report.verdict is Verdict.RETRIED and not is_last:
            await self._call_until_stored(lambda: self._outbox.retry(delivery, delay_s))
        else:
            await self._call_until_stored(lambda: self._outbox.drop(delivery))
        _note(delivery, report, EXPIRED if is_last else report.verdict, delay_s)

    async def _call_until_stored(self, call: Callable[[], Awaitable[None]]) -> None:
        """Call until Redis answers: a webhook whose outcome is not recorded would be delivered again."""
        while True:
            try:
                await call()
            except StoreUnavailable as error:
                self._note_store(error)
                await asyncio.sleep(LONGEST_WAIT_S)
            else:
                return

    def _note_store(self, error: StoreUnavailable | None) -> None:
        """Log when Redis goes down, when it refuses the password, and when it is back."""
        is_refused = error is not None and refuses_password(error)
        if error is not None and (not self._is_redis_down or (is_refused and not self._is_refused)):
            log.warning("store_unavailable", cause=f"{type(error.__cause__).__name__}: {error.__cause__}")
        if error is None and self._is_redis_down:
            log.info("store_available")
        self._is_redis_down = error is not None
        self._is_refused = self._is_redis_down and (self._is_refused or is_refused)


def _note(delivery: Delivery, report: Report, outcome: str, delay_s: float) -> None:
    ATTEMPTS.labels(outcome).inc()
    fields = {"receiver": delivery.receiver, "attempts": delivery.attempts, "cause": report.cause}
    match outcome:
        case Verdict.DELIVERED:
            log.info("webhook_delivered", job_id=delivery.job_id, **fields)
        case Verdict.RETRIED:
            log.info("webhook_retried", job_id=delivery.job_id, retry_in_s=round(delay_s, 1), **fields)
        case _:
            log.warning("webhook_given_up", job_id=delivery.job_id, outcome=outcome, **fields)
