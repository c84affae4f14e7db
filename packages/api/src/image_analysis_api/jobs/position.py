"""Where a job stands: its record and, while it waits, its place in the queue and how long that will take."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import structlog
from redis.asyncio import Redis

from image_analysis_api.responses import Position
from image_analysis_api.store.client import run_script
from image_analysis_common.errors import UnreadableRecord
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts import jobs

log = structlog.get_logger(__name__)


class Positions:
    """Finds jobs and their places."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def find(self, job_id: UUID) -> tuple[JobRecord, Position] | None:
        """Look in one round trip; None for a job that is not there.

        Raises:
            UnreadableRecord: another release wrote its record.
        """
        pairs, *place = await run_script(self._redis, jobs.find_position(str(job_id)))
        if not pairs:
            return None
        return JobRecord.from_hash(dict(zip(pairs[::2], pairs[1::2], strict=True))), Position(*place)

    async def find_all(self, job_ids: Sequence[UUID]) -> dict[UUID, tuple[JobRecord, Position]]:
        """Look for several jobs; those that are not there are left out.

        Raises:
            UnreadableRecord: another release wrote the records of all that are there.
        """
        faults = list[UnreadableRecord]()

        async def find(job_id: UUID) -> tuple[JobRecord, Position] | None:
            try:
                return await self.find(job_id)
            except UnreadableRecord as error:
                log.warning("record_unreadable", job_id=str(job_id), cause=repr(error.__cause__))
                faults.append(error)
                return None

        positions = await asyncio.gather(*map(find, job_ids))
        found = {job_id: place for job_id, place in zip(job_ids, positions, strict=True) if place}
        if faults and not found:
            raise faults[0]
        return found
