"""The pending webhook deliveries in Redis, which any number of deliverers share.

A delivery is pending from the job's end until it succeeds or is given up. Claiming a delivery postpones it by a lease;
if this deliverer dies, another retries it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from image_analysis_api.store.client import run_script
from image_analysis_common import keys
from image_analysis_common.scripts import deliveries
from image_analysis_common.scripts.queues import run_commands

LEASE_S = 30.0
"""Longer than the longest attempt."""

POSTPONE_S = 2.0
"""How long deliveries to a busy receiver are postponed, so that others are found."""


@dataclass(frozen=True)
class Delivery:
    """One attempt at a delivery: its job, its receiver, its number, and the time since the job's end."""

    job_id: str
    receiver: str
    attempts: int
    age_s: float
    record: Mapping[bytes, bytes]
    """The job's record as it is in Redis, not parsed: another release may have written it."""


class Outbox:
    """Claims deliveries that are due, and records their outcomes.

    Every method raises StoreUnavailable if Redis is down, and can be called again. All work while Redis is full: what
    was delivered makes room.
    """

    def __init__(self, redis: Redis, host: str, *, lease_s: float = LEASE_S) -> None:
        self._redis = redis
        self._host = host
        self._lease_s = lease_s

    async def claim(
        self, free: int, busy: Mapping[str, int], retries: int | None = None
    ) -> tuple[list[Delivery], float | None]:
        """Claim up to `free` due deliveries, of which `retries` at most were claimed before.

        `busy` is the number of running attempts for each receiver.

        The second value is the time in seconds until the next delivery is due; None if that is unknown.
        """
        retries = free if retries is None else retries
        call = deliveries.claim_deliveries(free, busy, retries=retries, lease_s=self._lease_s, aside_s=POSTPONE_S)
        found, now, wait = await run_script(self._redis, call)
        claimed = []
        for job_id, receiver, pairs in found:
            record = dict(zip(pairs[::2], pairs[1::2], strict=True))
            try:
                age_s = float(now) - float(record[b"ended_s"])
            except (KeyError, ValueError):  # another release wrote it: it expires after the delivery period anyway
                age_s = 0
            claimed.append(Delivery(job_id.decode(), receiver.decode(), int(record[b"attempts"]), age_s, record))
        return claimed, max(float(wait), 0) if wait else None

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        """Make a delivery due again after a delay, unless another deliverer has claimed it or it was deleted."""
        call = deliveries.retry_delivery(delivery.job_id, delivery.attempts, delay_s=delay_s)
        await run_script(self._redis, call)

    async def drop(self, delivery: Delivery) -> None:
        """Delete a delivery that succeeded or was given up."""
        commands = [("DEL", keys.delivery(delivery.job_id)), ("ZREM", keys.DELIVERIES, delivery.job_id)]
        await run_script(self._redis, run_commands(commands))

    async def beat(self) -> None:
        """Send a heartbeat for this host's deliverer."""
        command = ("SET", keys.deliverer(self._host), "", "EX", keys.WORKER_TTL_S)
        await run_script(self._redis, run_commands([command]))
