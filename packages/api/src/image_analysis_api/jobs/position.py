"""Reads jobs: the record and, while the job waits, its position in the queue and its estimated wait."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import structlog
from redis.asyncio import Redis

from image_analysis_api.access.admission import Charge
from image_analysis_api.responses import Position
from image_analysis_api.store.client import run_script
from image_analysis_common.errors import UnreadableRecord
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts import jobs
from image_analysis_common.scripts.limits import NO_QUOTA

log = structlog.get_logger(__name__)


class Positions:
    """Finds jobs and their positions."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def find(self, job_id: UUID, charge: Charge | None = None) -> tuple[JobRecord, Position] | None:
        """Read a job in one round trip; return None if it does not exist. The same script settles a charge.

        Raises:
            UnreadableRecord: another release wrote its record.
        """
        quota = charge.take() if charge else NO_QUOTA
        verdict, pairs, *position = await run_script(self._redis, jobs.find_position(str(job_id), quota))
        if charge and quota.key:
            charge.note(verdict)
        if not pairs:
            return None
        return JobRecord.from_hash(dict(zip(pairs[::2], pairs[1::2], strict=True))), Position(*position)

    async def find_all(self, job_ids: Sequence[UUID]) -> dict[UUID, tuple[JobRecord, Position]]:
        """Read several jobs; those that do not exist or cannot be read are left out.

        Raises:
            UnreadableRecord: none can be read, because another release wrote their records.
        """
        faults = list[UnreadableRecord]()

        async def find(job_id: UUID) -> tuple[JobRecord, Position] | None:
            try:
                return await self.find(job_id)
            except UnreadableRecord as error:
                log.warning("record_unreadable", job_id=str(job_id), cause=repr(error.__cause__))
                faults.append(error)
                return None

        jobs_found = await asyncio.gather(*map(find, job_ids))
        found = {job_id: job for job_id, job in zip(job_ids, jobs_found, strict=True) if job}
        if faults and not found:
            raise faults[0]
        return found
