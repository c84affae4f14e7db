"""Lists the jobs of an owner, newest first, until they expire."""

import re
from datetime import UTC, datetime
from uuid import UUID

import structlog
from redis.asyncio import Redis

from image_analysis_api.responses import AnalysisStatus, ListedAnalysis
from image_analysis_api.store.client import run_script
from image_analysis_common.errors import RequestError, UnreadableRecord
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts import jobs

CURSOR = "[0-9]{1,15}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""The time and the ID of a page's last job. Clients send it back and need not know its format."""

log = structlog.get_logger(__name__)


class Listing:
    """Reads pages of jobs."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def page(
        self, owner: str, *, limit: int, status: JobStatus | None = None, cursor: str | None = None
    ) -> tuple[list[ListedAnalysis], str | None]:
        """Read up to `limit` of an owner's jobs, and the cursor of the next page, None at the end.

        Jobs that another release wrote in an unknown form are left out.

        Raises:
            RequestError: the cursor is malformed.
        """
        newest, after = _read_cursor(cursor) if cursor is not None else ("+inf", "")
        call = jobs.list_jobs(owner, limit=limit, status=status, newest=newest, after=after)
        found, last = await run_script(self._redis, call)
        listed = []
        for job_id, time_ms, pairs in found:
            try:
                record = JobRecord.from_hash(dict(zip(pairs[::2], pairs[1::2], strict=True)))
            except UnreadableRecord as error:
                log.warning("record_unreadable", job_id=job_id.decode(), cause=repr(error.__cause__))
                continue
            status_now = AnalysisStatus.of(UUID(job_id.decode()), record)
            submitted_at = datetime.fromtimestamp(float(time_ms) / 1000, UTC)
            listed.append(ListedAnalysis(**dict(status_now), submitted_at=submitted_at))
        return listed, b"_".join(last).decode() if last else None


def _read_cursor(cursor: str) -> tuple[str, str]:
    if not re.fullmatch(CURSOR, cursor, re.ASCII):
        raise RequestError("cursor must be the next_cursor of an earlier answer.")
    time_ms, _, job_id = cursor.partition("_")
    return time_ms, job_id
