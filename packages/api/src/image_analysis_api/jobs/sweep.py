"""The API's check of queued runs: every accepted job ends, also where no worker comes or RQ has lost it.

Every API process sweeps, in steps of one script each; what one of them has just checked, the others skip.
"""

import asyncio

import structlog
from redis.asyncio import Redis

from image_analysis_api.jobs.records import COUNT_ANSWERS
from image_analysis_api.jobs.runs import DISCARD, LOCATE
from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys
from image_analysis_common.errors import StoreUnavailable
from image_analysis_common.followers import ADVANCE_FOLLOWERS, FOLLOWERS_AT_ONCE
from image_analysis_common.job_errors import ImageExpired, JobLost
from image_analysis_common.models import JobFailure, JobStatus

CHECK_S = 10.0
"""How long after its submission, and after each check, a run is checked again."""

CONFIRM_S = 5.0
"""A run that RQ seems to have lost is checked again after this long: rq-dashboard's "compact" takes the queue apart."""

INTERVAL_S = 1.0
PAUSE_S = 0.03
"""Between two steps when there is more to do: a step takes Redis 15 ms at most, and others must be served too."""

RUNS_AT_ONCE = 100
LIST_ENTRIES_PER_UNIT = 2500
"""A step may do `FOLLOWERS_AT_ONCE` units of work: a unit ends one follower, or walks so many entries of a list."""

# A run is over once its job has ended and no follower is left; a cancelled record that was kept for the run then gets
# the lifetime of an ended one. A run that waits for too long fails: at once where it is in the queue, elsewhere when it
# is seen a second time, because a worker may just have popped it. A run that RQ has lost fails too, or is queued anew
# where RQ's hash of the job and the image are still there.
SWEEP = (
    ADVANCE_FOLLOWERS
    + COUNT_ANSWERS
    + LOCATE
    + DISCARD
    + f"""
local check_s, confirm_s, pause_ms, expired, lost = unpack(ARGV)
local clock, found = redis.call('TIME'), {{}}
local now = clock[1] + clock[2] / 1000000
local until_s = string.format('%.3f', now - check_s)
local due = redis.call('ZRANGEBYSCORE', '{keys.RUNS}', '-inf', until_s, 'LIMIT', 0, {RUNS_AT_ONCE})
if #due == 0 then return {{found, 0}} end
if not redis.call('SET', '{keys.RUNS_PAUSE}', '', 'NX', 'PX', pause_ms) then return {{found, 1}} end

local function check_again(run, at) redis.call('ZADD', '{keys.RUNS}', string.format('%.3f', at), run) end

local function settle(followers, end_key, most)
  local follower, status = redis.call('SRANDMEMBER', followers), redis.call('LINDEX', end_key, 1)
  if not follower then return redis.call('DEL', end_key) end
  local hash = redis.call('HGET', follower, 'image_hash') or ''
  local ended = advance_followers(followers, {{}}, {keys.ENDED_JOB_TTL_S}, most)
  if status == 'COMPLETED' then
    count_answers('{keys.result("")}' .. hash, '{keys.answered("")}' .. hash, ended)
  end
  return ended
end

local function fail(run, record, failure, most)
  local fields = {{'status', 'FAILED', 'error', failure}}
  local is_cancelled = redis.call('HEXISTS', record, 'cancelled') == 1
  advance(record, is_cancelled and {{'status', 'CANCELLED'}} or fields, {keys.ENDED_JOB_TTL_S})
  discard(run, is_cancelled and 'canceled' or 'failed')
  check_again(run, now)
  table.insert(found, {{run, redis.call('HGET', record, 'status') or 'FAILED', failure}})
  return advance_followers('{keys.followers("")}' .. run, fields, {keys.ENDED_JOB_TTL_S}, most)
end

local function queue_anew(run, record, queue, most)
  redis.call('HSET', 'rq:job:' .. run, 'status', 'queued')
  redis.call('LPUSH', 'rq:queue:' .. queue, run)
  redis.call('HDEL', record, 'missed_s')
  check_again(run, now)
  table.insert(found, {{run, 'PENDING', ''}})
  advance(record, {{'status', 'PENDING'}}, '')
  return advance_followers('{keys.followers("")}' .. run, {{'status', 'PENDING'}}, '', most)
end

local function is_alive(queue, executions)
  for _, execution in ipairs(executions or {{}}) do
    if tonumber(redis.call('ZSCORE', 'rq:wip:' .. queue, execution)) > now then return true end
  end
end

local function can_run(run, queue)
  local status = queue and redis.call('HGET', 'rq:job:' .. run, 'status')
  local has_ended = status == 'finished' or status == 'failed' or status == 'stopped' or status == 'canceled'
  return status and not has_ended and redis.call('EXISTS', '{keys.image("")}' .. run) == 1
end

local function check(run, most)
  local record, followers = '{keys.job("")}' .. run, '{keys.followers("")}' .. run
  local end_key = '{keys.followers_end("")}' .. run
  if redis.call('EXISTS', end_key) == 1 then
    check_again(run, now)
    return settle(followers, end_key, most)
  end
  local status, until_s, missed_s = unpack(redis.call('HMGET', record, 'status', 'waits_until_s', 'missed_s'))
  local is_open = status == 'PENDING' or status == 'PROCESSING'
  if not is_open and redis.call('EXISTS', followers) == 0 then
    redis.call('ZREM', '{keys.RUNS}', run)
    if redis.call('TTL', record) > {keys.ENDED_JOB_TTL_S} then redis.call('EXPIRE', record, {keys.ENDED_JOB_TTL_S}) end
    return 0
  end
  local place, queue, executions = locate(run)
  local cost = queue and redis.call('LLEN', 'rq:queue:' .. queue) / {LIST_ENTRIES_PER_UNIT} or 0
  local is_late = not until_s or now >= tonumber(until_s)
  if place and (not is_late or is_alive(queue, executions)) then
    if missed_s then redis.call('HDEL', record, 'missed_s') end
    check_again(run, now)
  elseif status and place ~= 'queue' and (not missed_s or now - missed_s < tonumber(confirm_s)) then
    if not missed_s then redis.call('HSET', record, 'missed_s', string.format('%.3f', now)) end
    check_again(run, now - check_s + confirm_s)
  elseif not is_late and can_run(run, queue) then
    cost = cost + queue_anew(run, record, queue, most)
  else
    cost = cost + fail(run, record, is_late and expired or lost, most)
  end
  return cost
end

local left = {FOLLOWERS_AT_ONCE}
for _, run in ipairs(due) do
  if left < 1 then break end
  left = left - 1 - check(run, math.floor(left))
end
local has_more = #due == {RUNS_AT_ONCE} or left < 1 or redis.call('ZCOUNT', '{keys.RUNS}', 0, 0) > 0
return {{found, has_more and 1 or 0}}
"""
)

# Where a cancelled job's run fails, its followers get the code; of any other record, whatever it says, the run failed.
EVENTS = {JobStatus.PENDING: "job_requeued", JobStatus.CANCELLED: "job_cancelled"}

log = structlog.get_logger(__name__)


class Sweep:
    """Ends or queues anew what no worker will end; settles what a run with many followers has left to do."""

    def __init__(self, redis: Redis, *, check_s: float = CHECK_S, confirm_s: float = CONFIRM_S) -> None:
        self._sweep = redis.register_script(SWEEP)
        failures = [JobFailure(code=error.code, detail=error.detail) for error in (ImageExpired(), JobLost())]
        texts = [failure.model_dump_json() for failure in failures]
        self._args: list[str | float] = [check_s, confirm_s, int(PAUSE_S * 1000 / 2), *texts]
        self._is_away = False

    async def run(self) -> None:
        """Sweep until cancelled; wait where Redis is away."""
        while True:
            has_more = False
            try:
                has_more = await self.step()
                self._is_away = False
            except StoreUnavailable as error:
                if not self._is_away:
                    log.warning("sweep_interrupted", cause=repr(error.__cause__))
                self._is_away = True
            except Exception:
                # The last line of defence: without the sweep, jobs could stay open.
                log.exception("sweep_crashed")
            await asyncio.sleep(PAUSE_S if has_more else INTERVAL_S)

    async def step(self) -> bool:
        """Check some of the runs that are due; return whether there is more to do.

        Raises:
            StoreUnavailable: Redis did not answer in time; what the step did, if anything, stays done.
        """
        async with reaching_redis():
            found, has_more = await self._sweep(keys=[], args=self._args)
        for job_id, status, failure in found:
            code = {"code": JobFailure.model_validate_json(failure).code} if failure else {}
            log.warning(EVENTS.get(status.decode(), "job_failed"), job_id=job_id.decode(), **code)
        return bool(has_more)
