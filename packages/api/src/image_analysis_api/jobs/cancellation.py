"""Taking a job back: out of the queue, at the end of its run, or out of memory."""

from enum import StrEnum
from uuid import UUID

from redis.asyncio import Redis

from image_analysis_api.jobs.runs import DISCARD, LOCATE
from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys
from image_analysis_common.errors import JobNotFound
from image_analysis_common.records import ADVANCE

# A waiting job leaves the queue, in our keys and in RQ's books. What others wait for goes on: a job that others follow
# is cancelled and its run is kept, until the last of them leaves. A job that a worker has gets a mark, and is CANCELLED
# when it ends; one that RQ has lost is CANCELLED at once. One that has ended is forgotten, and its webhook told no
# more; its image's results too, where no other job was answered with them.
CANCEL = (
    ADVANCE
    + LOCATE
    + DISCARD
    + f"""
local record, job_id, owner, ended_ttl = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local cancelled = {{'status', 'CANCELLED'}}

local function withdraw(run, status)
  local place = locate(run)
  if place and (place ~= 'queue' or status == 'PROCESSING') then return false end
  discard(run, 'canceled')
  return true
end

local status, owned_by, follows, hash = unpack(redis.call('HMGET', record, 'status', 'owner', 'follows', 'image_hash'))
if not status or (owned_by or '') ~= owner then return 'UNKNOWN' end
if status == 'CANCELLED' then return status end
if status == 'PENDING' or status == 'PROCESSING' then
  if follows then
    local followers = '{keys.followers("")}' .. follows
    redis.call('SREM', followers, record)
    advance(record, cancelled, ended_ttl)
    local is_unwanted = redis.call('HGET', '{keys.job("")}' .. follows, 'status') == 'CANCELLED'
    if is_unwanted and redis.call('SCARD', followers) == 0 then withdraw(follows) end
    return 'CANCELLED'
  end
  local is_followed = redis.call('SCARD', '{keys.followers("")}' .. job_id) > 0
  if is_followed and status == 'PENDING' then
    advance(record, cancelled, '')
    return 'CANCELLED'
  end
  if not is_followed and withdraw(job_id, status) then
    advance(record, cancelled, ended_ttl)
    return 'CANCELLED'
  end
  redis.call('HSET', record, 'cancelled', '1')
  return 'ENDING'
end
redis.call('DEL', record, '{keys.delivery("")}' .. job_id)
redis.call('ZREM', '{keys.DELIVERIES}', job_id)
redis.call('ZREM', '{keys.jobs_of("")}' .. owner, job_id)
local queue = redis.call('HGET', 'rq:job:' .. job_id, 'origin')
if queue then
  redis.call('ZREM', 'rq:finished:' .. queue, job_id)
  redis.call('ZREM', 'rq:failed:' .. queue, job_id)
  redis.call('DEL', 'rq:job:' .. job_id, 'rq:results:' .. job_id)
end
local answered = '{keys.answered("")}' .. hash
if status == 'COMPLETED' and redis.call('DECR', answered) <= 0 then
  redis.call('DEL', answered, '{keys.result("")}' .. hash)
end
return 'FORGOTTEN'
"""
)


class Outcome(StrEnum):
    """What has become of a job that its owner took back."""

    CANCELLED = "CANCELLED"
    ENDING = "ENDING"
    """A worker has it: it is CANCELLED when it ends."""
    FORGOTTEN = "FORGOTTEN"


class Cancellation:
    """Takes jobs back."""

    def __init__(self, redis: Redis) -> None:
        self._cancel = redis.register_script(CANCEL)

    async def cancel(self, job_id: UUID, owner: str | None) -> Outcome:
        """Take an owner's job back, in one step.

        Raises:
            JobNotFound: there is no such job of this owner's.
        """
        identifier = str(job_id)
        async with reaching_redis():
            outcome = await self._cancel(
                keys=[keys.job(identifier)], args=[identifier, owner or "", keys.ENDED_JOB_TTL_S]
            )
        if outcome == b"UNKNOWN":
            raise JobNotFound
        return Outcome(outcome.decode())
