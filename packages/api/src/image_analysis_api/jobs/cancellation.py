"""Cancels jobs that have not ended, and forgets those that have."""

from enum import StrEnum
from uuid import UUID

from redis.asyncio import Redis

from image_analysis_api.store.client import run_script
from image_analysis_common.errors import JobNotFound
from image_analysis_common.scripts import runs


class Outcome(StrEnum):
    """What a cancellation did to the job."""

    CANCELLED = "CANCELLED"
    ENDING = "ENDING"
    """A worker runs it: it will be CANCELLED when it ends."""
    FORGOTTEN = "FORGOTTEN"
    """It had ended: its record was deleted."""


class Cancellation:
    """Cancels or forgets jobs."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def cancel(self, job_id: UUID, owner: str | None) -> Outcome:
        """Cancel an owner's job if it has not ended, otherwise forget it.

        Raises:
            JobNotFound: it does not exist, has expired, or has another owner.
        """
        outcome = await run_script(self._redis, runs.cancel(str(job_id), owner))
        if outcome == b"UNKNOWN":
            raise JobNotFound
        return Outcome(outcome.decode())
