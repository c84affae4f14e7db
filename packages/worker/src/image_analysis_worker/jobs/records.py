"""What the worker writes to Redis about a job: every step of its record, and the result in the cache.

RQ's books take the step too, in the same script and under the same conditions; what is written there is RQ's to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.retry import Retry

from image_analysis_common import keys
from image_analysis_common.followers import ADVANCE_FOLLOWERS, FOLLOWERS_AT_ONCE
from image_analysis_common.models import DEEP_SUFFIX, AnalysisResult, CachedResult, JobFailure, JobStatus
from image_analysis_common.records import JobRecord

# One step of a run. What depends on others is decided here, when it is written: a read from before is out of date.
#
# The step is taken only while the job is this worker's: its claim says so. A worker that was silent for too long has
# lost its claim, and nothing of what it does too late is written. Only an end is written without RQ: where RQ knows the
# job no longer, nobody else can run it, and the answer is true all the same.
#
# Jobs that follow this one, because they brought the same image, take every step with it. A job that its owner
# cancelled ends as CANCELLED, and its run goes on while anybody follows it; where nobody does, any other step becomes
# that end. An ended record never changes again. A result that answers nobody is not cached; of one that is, the jobs
# that it answers are counted.
#
# Answers the status that the run has reached, nil where nothing was written. `ended_by` names the execution that wrote
# an end: should the answer be lost on its way, the same call gives it again.
STEP = (
    ADVANCE_FOLLOWERS
    + f"local followers_at_once = {FOLLOWERS_AT_ONCE}"
    + """
-- Runs the command at an index of ARGV, where its length stands before its words; an empty one answers true.
local function run(at)
  local count = tonumber(ARGV[at])
  if count == 0 then return true end
  return redis.call(unpack(ARGV, at + 1, at + count))
end

local record, rq_job = KEYS[1], KEYS[8]
local ttl, job_id, cache_ttl, cache_field, cached, execution = unpack(ARGV, 1, 6)
local at = 8 + ARGV[7]
local fields = {unpack(ARGV, 8, at - 1)}
local is_end = fields[2] ~= 'PENDING' and fields[2] ~= 'PROCESSING'

local claim = run(at)
at = at + 1 + ARGV[at]
local is_in_rq = rq_job == '' or redis.call('EXISTS', rq_job) == 1
local status, mark, ended_by = unpack(redis.call('HMGET', record, 'status', 'cancelled', 'ended_by'))
if not claim or claim == 0 then
  if execution ~= '' and ended_by == execution then return status end
  if is_in_rq then return end
end
if not is_in_rq and not is_end then return end

local is_cancelled = mark or status == 'CANCELLED'
local is_unwanted = (is_cancelled or not status) and redis.call('EXISTS', KEYS[2]) == 0
if is_unwanted and not is_end and KEYS[3] ~= '' then fields, is_end = {'status', 'CANCELLED'}, true end
if not is_end then ttl = '' end

local answered, has_moved = 0, false
if is_end and is_cancelled then
  has_moved = advance(record, {'status', 'CANCELLED'}, ttl)
elseif advance(record, fields, ttl) then
  answered, has_moved = 1, true
end
answered = answered + advance_followers(KEYS[2], fields, ttl, followers_at_once)
if cached ~= '' and answered > 0 then
  if redis.call('EXISTS', KEYS[6]) == 0 then redis.call('DEL', KEYS[7]) end
  redis.call('HSET', KEYS[6], cache_field, cached)
  redis.call('EXPIRE', KEYS[6], cache_ttl)
  redis.call('INCRBY', KEYS[7], answered)
  redis.call('EXPIRE', KEYS[7], cache_ttl)
end
if is_end then
  if redis.call('GET', KEYS[3]) == job_id then redis.call('DEL', KEYS[3]) end
  local size = redis.call('STRLEN', KEYS[4])
  redis.call('DEL', KEYS[4])
  local left = tonumber(redis.call('GET', KEYS[5]) or 0)
  if left > 0 then redis.call('SET', KEYS[5], math.max(left - size, 0), 'KEEPTTL') end
  if has_moved and execution ~= '' then redis.call('HSET', record, 'ended_by', execution) end
end

if rq_job ~= '' and is_in_rq then
  if is_end and (is_cancelled or is_unwanted) then
    local now = redis.call('TIME')[1]
    redis.call('HSET', rq_job, 'status', 'canceled')
    redis.call('EXPIRE', rq_job, ttl)
    redis.call('ZREMRANGEBYSCORE', KEYS[9], 0, now)
    redis.call('ZADD', KEYS[9], now + ttl, job_id)
    redis.call('EXPIRE', KEYS[9], ttl)
  else
    while at <= #ARGV do
      run(at)
      at = at + 1 + ARGV[at]
    end
  end
end
if not is_end or answered > 0 then return fields[2] end
return is_cancelled and 'CANCELLED' or nil
"""
)

TIMEOUT_S = 3
"""Longer than a pop blocks, far shorter than a worker may be silent."""


def connect(dsn: str) -> Redis:
    """Make a client that leaves patience to its callers; RESP 2, so that even a Redis that is too old can say so."""
    return Redis.from_url(
        dsn,
        protocol=2,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


Command: TypeAlias = Sequence[Any]


@dataclass(frozen=True)
class RqStep:
    """What a step means in RQ's books."""

    job_key: str
    canceled_key: str
    claim: Command
    """Answers nil or 0 where the job is not this worker's, or no longer."""
    commands: Sequence[Command]
    execution_id: str = ""
    """Names the run whose end this is; one that ends before it begins has none."""


class Records:
    """Writes the steps of a model's jobs into a pipeline; the caller sends it, and `read_step` reads the answers.

    Without an `RqStep`, RQ's books are the caller's.
    """

    def __init__(self, model_id: str, *, cache_ttl_s: int) -> None:
        self._model_id = model_id
        self._cache_ttl_s = cache_ttl_s

    def begin(self, pipeline: Pipeline, job_id: str, record: JobRecord, rq: RqStep | None = None) -> None:
        """Note that a worker is at the job."""
        self._step(pipeline, job_id, record, {"status": JobStatus.PROCESSING}, rq=rq)

    def retry(self, pipeline: Pipeline, job_id: str, record: JobRecord | None = None, rq: RqStep | None = None) -> None:
        """Note that the job is back in the queue."""
        self._step(pipeline, job_id, record, {"status": JobStatus.PENDING}, rq=rq)

    def complete(
        self,
        pipeline: Pipeline,
        job_id: str,
        record: JobRecord,
        result: AnalysisResult,
        processing_time_ms: float,
        rq: RqStep | None = None,
    ) -> None:
        """Write the result into the job's record and the cache, and let go of the image."""
        answer = {"result": result.model_dump_json(), "processing_time_ms": str(processing_time_ms)}
        cached: tuple[str, ...] = ()
        if self._cache_ttl_s:
            field = result.model.cache_field + (DEEP_SUFFIX if record.is_deep else "")
            cached = (field, CachedResult(result=result, processing_time_ms=processing_time_ms).model_dump_json())
        self._step(pipeline, job_id, record, {"status": JobStatus.COMPLETED, **answer}, cached=cached, rq=rq)

    def fail(
        self, pipeline: Pipeline, job_id: str, record: JobRecord, failure: JobFailure, rq: RqStep | None = None
    ) -> None:
        """Write the error into the job's record and let go of the image."""
        fields = {"status": JobStatus.FAILED, "error": failure.model_dump_json()}
        self._step(pipeline, job_id, record, fields, rq=rq)

    def _step(
        self,
        pipeline: Pipeline,
        job_id: str,
        record: JobRecord | None,
        fields: Mapping[str, str],
        *,
        cached: Sequence[str] = (),
        rq: RqStep | None = None,
    ) -> None:
        claim, commands = (rq.claim, rq.commands) if rq else ((), ())
        # By its text: a registered script would cost each pipeline a round trip to ask whether the server has it.
        pipeline.eval(
            STEP,
            9,
            keys.job(job_id),
            keys.followers(job_id),
            keys.leader(self._model_id, record.image_hash, is_deep=record.is_deep) if record else "",
            keys.image(job_id),
            keys.image_bytes(self._model_id),
            keys.result(record.image_hash) if record else "",
            keys.answered(record.image_hash) if record else "",
            rq.job_key if rq else "",
            rq.canceled_key if rq else "",
            keys.ENDED_JOB_TTL_S,
            job_id,
            self._cache_ttl_s,
            *(cached or ("", "")),
            rq.execution_id if rq else "",
            2 * len(fields),
            *chain.from_iterable(fields.items()),
            *chain.from_iterable((len(command), *command) for command in (claim, *commands)),
        )


def read_step(answer: bytes | None) -> JobStatus | None:
    """Return the status that the run has reached; None where nothing was written."""
    return JobStatus(answer.decode()) if answer else None
