"""Where a job stands: its record and, while it waits, its place in the queue and how long that will take."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import structlog
from redis.asyncio import Redis

from image_analysis_api.responses import Position
from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys
from image_analysis_common.errors import UnreadableRecord
from image_analysis_common.records import JobRecord

# Lua: how many jobs of a queue have ended lately, and in how many seconds; nothing where none has. That is in the last
# ten seconds, or in the last minute where nothing ended in ten, from the first end in them: a queue that was empty
# before was not slow. RQ's registries of ended jobs are sorted by the time when these expire.
PACE = f"""
local function pace(finished, failed)
  local now = redis.call('TIME')[1]
  for _, window in ipairs({{10, 60}}) do
    local count, longest_ago = 0, 0
    for registry, ttl in pairs({{[finished] = {keys.FINISHED_JOB_TTL_S}, [failed] = {keys.ENDED_JOB_TTL_S}}}) do
      local since = now + ttl - window
      local first = redis.call('ZRANGEBYSCORE', registry, since, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
      if first then
        count = count + redis.call('ZCOUNT', registry, since, '+inf')
        longest_ago = math.max(longest_ago, now + ttl - first)
      end
    end
    if count > 0 then return count, longest_ago + 1 end
  end
end
"""

# A job that follows another one has that one's place. RQ's job says which queue it is in. LPOS walks the list, at 10
# microseconds for a thousand jobs.
FIND = (
    PACE
    + """
local record = redis.call('HGETALL', KEYS[1])
local status, run = unpack(redis.call('HMGET', KEYS[1], 'status', 'follows'))
if status ~= 'PENDING' then return {record} end
run = run or ARGV[1]
local queue = redis.call('HGET', 'rq:job:' .. run, 'origin')
local before = queue and redis.call('LPOS', 'rq:queue:' .. queue, run)
if not before then return {record} end
local count, seconds = pace('rq:finished:' .. queue, 'rq:failed:' .. queue)
return {record, before + 1, count and math.ceil((before + 1) * 1000 * seconds / count)}
"""
)


log = structlog.get_logger(__name__)


class Positions:
    """Finds jobs and their places."""

    def __init__(self, redis: Redis) -> None:
        self._find = redis.register_script(FIND)

    async def find(self, job_id: UUID) -> tuple[JobRecord, Position] | None:
        """Look in one round trip; None for a job that is not there.

        Raises:
            UnreadableRecord: another release wrote its record.
        """
        identifier = str(job_id)
        async with reaching_redis():
            pairs, *place = await self._find(keys=[keys.job(identifier)], args=[identifier])
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
