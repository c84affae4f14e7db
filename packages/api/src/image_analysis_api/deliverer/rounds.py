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
from image_analysis_common import keys
from image_analysis_common.errors import StoreUnavailable

MAX_CONCURRENT = 64
POLL_S = 0.2
"""The longest that a new delivery waits for an idle deliverer."""

GRACE_S = 5.0
"""Time for attempts under way when the process has to stop."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0
EXPIRED = "expired"

log = structlog.get_logger(__name__)


class Rounds:
    """Delivers until `stop`, `max_concurrent` attempts at a time; with 0 it only sends heartbeats."""

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
        self._under_way: dict[asyncio.Task[None], Delivery] = {}
        self._has_news = asyncio.Event()
        self._is_stopping = False
        self._is_away = False
        self._beaten_s = -math.inf

    def stop(self) -> None:
        """Let `run` come to its end."""
        self._is_stopping = True
        self._has_news.set()

    async def run(self) -> None:
        """Deliver; after `stop`, give attempts under way a few seconds and put back what is left."""
        away_wait_s = FIRST_WAIT_S
        while not self._is_stopping:
            self._has_news.clear()
            try:
                wait_s = await self._go_round()
            except StoreUnavailable as error:
                self._note_store(error)
                wait_s, away_wait_s = away_wait_s, min(away_wait_s * 2, LONGEST_WAIT_S)
            else:
                self._note_store(None)
                away_wait_s = FIRST_WAIT_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._has_news.wait()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._grace_s)
        unfinished = dict(self._under_way)
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished)
        for delivery in unfinished.values():
            with suppress(StoreUnavailable):  # the lease runs out all the same
                await self._outbox.retry(delivery, 0)

    async def _go_round(self) -> float:
        """Begin what is due; return how long there is nothing to do."""
        if time.monotonic() - self._beaten_s >= keys.HEARTBEAT_INTERVAL_S:
            await self._outbox.beat()
            self._beaten_s = time.monotonic()
        free = self._max_concurrent - len(self._under_way)
        if free < 1:
            return POLL_S
        busy = Counter(delivery.receiver for delivery in self._under_way.values())
        claimed, wait_s = await self._outbox.claim(free, busy)
        for delivery in claimed:
            task = asyncio.create_task(self._deliver(delivery))
            self._under_way[task] = delivery
            task.add_done_callback(self._note_end)
        return POLL_S if wait_s is None else min(wait_s, POLL_S)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._has_news.set()
        if not task.cancelled() and (error := task.exception()):
            # The attempt's end could not be noted: another attempt follows when the lease has run out.
            log.error("webhook_crashed", exc_info=error)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            report = await self._courier.attempt(delivery)
            delay_s = self._choose_delay_s(delivery.attempts, report.retry_after)
        except Exception as error:
            # The last line of defense: whatever it is, the delivery backs off like any other, and ends with its day.
            log.exception("webhook_crashed", job_id=delivery.job_id)
            report = Report(Verdict.RETRIED, type(error).__name__)
            delay_s = self._choose_delay_s(delivery.attempts, report.retry_after)
        is_last = report.verdict is Verdict.RETRIED and delivery.age_s + delay_s > keys.DELIVERY_PERIOD_S
        if report.verdict is Verdict.RETRIED and not is_last:
            await self._insist(lambda: self._outbox.retry(delivery, delay_s))
        else:
            await self._insist(lambda: self._outbox.drop(delivery))
        _note(delivery, report, EXPIRED if is_last else report.verdict, delay_s)

    async def _insist(self, call: Callable[[], Awaitable[None]]) -> None:
        """Call until Redis answers: what was delivered must not be delivered again because nobody could note it."""
        while True:
            try:
                await call()
            except StoreUnavailable as error:
                self._note_store(error)
                await asyncio.sleep(LONGEST_WAIT_S)
            else:
                return

    def _note_store(self, error: StoreUnavailable | None) -> None:
        """Take note of how a call to Redis went; a change is a log line."""
        if error is not None and not self._is_away:
            log.warning("store_unavailable", cause=repr(error.__cause__))
        if error is None and self._is_away:
            log.info("store_available")
        self._is_away = error is not None


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
