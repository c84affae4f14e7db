"""What the worker writes to Redis about a job: every step of its record, and the result in the cache."""

from collections.abc import Mapping, Sequence
from itertools import chain

from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.retry import Retry

from image_analysis_common import keys
from image_analysis_common.models import DEEP_SUFFIX, AnalysisResult, CachedResult, JobFailure, JobStatus
from image_analysis_common.records import ADVANCE, JobRecord

# An ended job's record never changes again, whoever runs the job once more. Jobs that wait for this one's run, because
# they brought the same image, take every step with it. A job that its owner took back meanwhile ends as CANCELLED. A
# result that answers nobody is not kept; of one that is, the jobs that it answers are counted.
STEP = (
    ADVANCE
    + """
local ttl, job_id, cache_ttl, cache_field, cached = unpack(ARGV, 1, 5)
local fields, answered = {unpack(ARGV, 6)}, 0
if ttl ~= '' and redis.call('HEXISTS', KEYS[1], 'cancelled') == 1 then
  advance(KEYS[1], {'status', 'CANCELLED'}, ttl)
elseif advance(KEYS[1], fields, ttl) then
  answered = 1
end
for _, follower in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  if advance(follower, fields, ttl) then answered = answered + 1 end
end
if cached ~= '' and answered > 0 then
  redis.call('HSET', KEYS[6], cache_field, cached)
  redis.call('EXPIRE', KEYS[6], cache_ttl)
  redis.call('INCRBY', KEYS[7], answered)
  redis.call('EXPIRE', KEYS[7], cache_ttl)
end
if ttl ~= '' then
  redis.call('DEL', KEYS[2])
  if redis.call('GET', KEYS[3]) == job_id then redis.call('DEL', KEYS[3]) end
  local size = redis.call('STRLEN', KEYS[4])
  redis.call('DEL', KEYS[4])
  local left = tonumber(redis.call('GET', KEYS[5]) or 0)
  if left > 0 then redis.call('SET', KEYS[5], math.max(left - size, 0), 'KEEPTTL') end
end
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


class Records:
    """Writes the steps of a model's jobs into a pipeline; the caller sends it."""

    def __init__(self, model_id: str, *, cache_ttl_s: int) -> None:
        self._model_id = model_id
        self._cache_ttl_s = cache_ttl_s

    def begin(self, pipeline: Pipeline, job_id: str) -> None:
        """Note that a worker is at the job."""
        self._step(pipeline, job_id, {"status": JobStatus.PROCESSING})

    def retry(self, pipeline: Pipeline, job_id: str) -> None:
        """Note that the job is back in the queue."""
        self._step(pipeline, job_id, {"status": JobStatus.PENDING})

    def complete(
        self, pipeline: Pipeline, job_id: str, record: JobRecord, result: AnalysisResult, processing_time_ms: float
    ) -> None:
        """Write the result into the job's record and the cache, and let go of the image."""
        answer = {"result": result.model_dump_json(), "processing_time_ms": str(processing_time_ms)}
        cached: tuple[str, ...] = ()
        if self._cache_ttl_s:
            field = result.model.cache_field + (DEEP_SUFFIX if record.is_deep else "")
            cached = (field, CachedResult(result=result, processing_time_ms=processing_time_ms).model_dump_json())
        self._step(pipeline, job_id, {"status": JobStatus.COMPLETED, **answer}, ended=record, cached=cached)

    def fail(self, pipeline: Pipeline, job_id: str, record: JobRecord, failure: JobFailure) -> None:
        """Write the error into the job's record and let go of the image."""
        fields = {"status": JobStatus.FAILED, "error": failure.model_dump_json()}
        self._step(pipeline, job_id, fields, ended=record)

    def _step(
        self,
        pipeline: Pipeline,
        job_id: str,
        fields: Mapping[str, str],
        *,
        ended: JobRecord | None = None,
        cached: Sequence[str] = (),
    ) -> None:
        """Advance a record and its followers; the last step, which knows what the job asked for, also cleans up."""
        # By its text: a registered script would cost each pipeline a round trip to ask whether the server has it.
        pipeline.eval(
            STEP,
            7,
            keys.job(job_id),
            keys.followers(job_id),
            keys.leader(self._model_id, ended.image_hash, is_deep=ended.is_deep) if ended else "",
            keys.image(job_id),
            keys.image_bytes(self._model_id),
            keys.result(ended.image_hash) if ended else "",
            keys.answered(ended.image_hash) if ended else "",
            keys.ENDED_JOB_TTL_S if ended else "",
            job_id,
            self._cache_ttl_s,
            *(cached or ("", "")),
            *chain.from_iterable(fields.items()),
        )
