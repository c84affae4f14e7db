"""What webhooks have still to be told, as it lies in Redis; any number of deliverers take from it.

A delivery is there from the job's end until it is made or given up. Who takes one moves its due time on by a lease, so
that it comes to another deliverer where this one dies.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from image_analysis_api.store.client import reaching_redis, run_script
from image_analysis_common import keys
from image_analysis_common.scripts import deliveries

LEASE_S = 30.0
"""Longer than an attempt takes."""

ASIDE_S = 2.0
"""How long deliveries step aside that would keep others from being seen."""


@dataclass(frozen=True)
class Delivery:
    """One attempt at telling a webhook: which one it is, to whom, what, and how long after the job's end."""

    job_id: str
    receiver: str
    attempts: int
    age_s: float
    record: Mapping[bytes, bytes]
    """The job's record as Redis holds it: another release may have written it."""


class Outbox:
    """Takes deliveries that are due, and notes what has become of them.

    Every method raises StoreUnavailable when Redis is away; all can be called again.
    """

    def __init__(self, redis: Redis, host: str, *, lease_s: float = LEASE_S) -> None:
        self._redis = redis
        self._host = host
        self._lease_s = lease_s

    async def claim(self, free: int, busy: Mapping[str, int]) -> tuple[list[Delivery], float | None]:
        """Take up to `free` deliveries, where `busy` says how many each receiver has under way.

        The second value is the time until it is worth while to ask again, if that is known.
        """
        call = deliveries.claim_deliveries(free, busy, lease_s=self._lease_s, aside_s=ASIDE_S)
        found, now, wait = await run_script(self._redis, call)
        claimed = []
        for job_id, receiver, pairs in found:
            record = dict(zip(pairs[::2], pairs[1::2], strict=True))
            try:
                age_s = float(now) - float(record[b"ended_s"])
            except (KeyError, ValueError):  # another release wrote it: its copy lives no longer than the period
                age_s = 0
            claimed.append(Delivery(job_id.decode(), receiver.decode(), int(record[b"attempts"]), age_s, record))
        return claimed, max(float(wait), 0) if wait else None

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        """Let a delivery be due again after a while, unless another deliverer has it or it was forgotten."""
        call = deliveries.retry_delivery(delivery.job_id, delivery.attempts, delay_s=delay_s)
        await run_script(self._redis, call)

    async def drop(self, delivery: Delivery) -> None:
        """Forget a delivery that was made or given up."""
        async with reaching_redis(), self._redis.pipeline() as pipeline:
            pipeline.delete(keys.delivery(delivery.job_id))
            pipeline.zrem(keys.DELIVERIES, delivery.job_id)
            await pipeline.execute()

    async def beat(self) -> None:
        """Say that this host's deliverer is there."""
        async with reaching_redis():
            await self._redis.set(keys.deliverer(self._host), "", ex=keys.WORKER_TTL_S)
