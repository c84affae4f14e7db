"""Taking a job back: out of the queue, at the end of its run, or out of memory."""

from enum import StrEnum
from uuid import UUID

from redis.asyncio import Redis

from image_analysis_api.store.client import run_script
from image_analysis_common.errors import JobNotFound
from image_analysis_common.scripts import runs


class Outcome(StrEnum):
    """What has become of a job that its owner took back."""

    CANCELLED = "CANCELLED"
    ENDING = "ENDING"
    """A worker has it: it is CANCELLED when it ends."""
    FORGOTTEN = "FORGOTTEN"


class Cancellation:
    """Takes jobs back."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def cancel(self, job_id: UUID, owner: str | None) -> Outcome:
        """Take an owner's job back, in one step.

        Raises:
            JobNotFound: there is no such job of this owner's.
        """
        outcome = await run_script(self._redis, runs.cancel(str(job_id), owner))
        if outcome == b"UNKNOWN":
            raise JobNotFound
        return Outcome(outcome.decode())
