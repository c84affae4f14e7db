"""The jobs of each owner, newest first, as long as there is something to ask for."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import structlog
from redis.asyncio import Redis

from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys
from image_analysis_common.errors import RequestError, UnreadableRecord
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord

CURSOR = "[0-9]{1,15}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""The last job's time and ID; clients are told nothing of it but that they send it back."""

log = structlog.get_logger(__name__)

MAX_SCANNED = 1000
"""So many jobs are looked at in one step: where few have the status asked for, a page holds less than it may."""

# From the place after the cursor on, of jobs of one millisecond those with lesser IDs. Expired ones are struck off.
LIST = f"""
local limit, wanted, newest, after = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local found, gone, scanned, offset, last = {{}}, {{}}, 0, 0, nil
while not last do
  local page = redis.call('ZREVRANGEBYSCORE', KEYS[1], newest, '-inf', 'WITHSCORES', 'LIMIT', offset, 100)
  for at = 1, #page, 2 do
    local job_id, time = page[at], page[at + 1]
    if not (time == newest and job_id >= after) then
      local record = redis.call('HGETALL', '{keys.job("")}' .. job_id)
      if #record == 0 then
        table.insert(gone, job_id)
      elseif wanted == '' or redis.call('HGET', '{keys.job("")}' .. job_id, 'status') == wanted then
        table.insert(found, {{job_id, time, record}})
      end
      scanned = scanned + 1
      if #found == limit or scanned == {MAX_SCANNED} then
        last = {{time, job_id}}
        break
      end
    end
  end
  offset = offset + 100
  if #page < 200 then break end
end
for _, job_id in ipairs(gone) do redis.call('ZREM', KEYS[1], job_id) end
return {{found, last or {{}}}}
"""


@dataclass(frozen=True)
class Entry:
    """A job in a list."""

    job_id: UUID
    submitted_at: datetime
    record: JobRecord


class Listing:
    """Lists owners' jobs."""

    def __init__(self, redis: Redis) -> None:
        self._list = redis.register_script(LIST)

    async def page(
        self, owner: str, *, limit: int, status: JobStatus | None = None, cursor: str | None = None
    ) -> tuple[list[Entry], str | None]:
        """Read up to `limit` of an owner's jobs, and the cursor of what comes after them, if anything may.

        Those that another release wrote are left out.

        Raises:
            RequestError: the cursor is none of ours.
        """
        newest, after = _read_cursor(cursor) if cursor is not None else ("+inf", "")
        async with reaching_redis():
            found, last = await self._list(keys=[keys.jobs_of(owner)], args=[limit, status or "", newest, after])
        entries = []
        for job_id, time_ms, pairs in found:
            try:
                record = JobRecord.from_hash(dict(zip(pairs[::2], pairs[1::2], strict=True)))
            except UnreadableRecord as error:
                log.warning("record_unreadable", job_id=job_id.decode(), cause=repr(error.__cause__))
                continue
            submitted_at = datetime.fromtimestamp(float(time_ms) / 1000, UTC)
            entries.append(Entry(UUID(job_id.decode()), submitted_at, record))
        return entries, b"_".join(last).decode() if last else None


def _read_cursor(cursor: str) -> tuple[str, str]:
    if not re.fullmatch(CURSOR, cursor, re.ASCII):
        raise RequestError("cursor must be the next_cursor of an earlier answer.")
    time_ms, _, job_id = cursor.partition("_")
    return time_ms, job_id
