"""What the worker writes to Redis about a job: every step of its record, and the result in the cache."""

from redis import Redis

from image_analysis_common import keys
from image_analysis_common.models import AnalysisResult, CachedResult, JobFailure, JobStatus
from image_analysis_common.records import JobRecord

# An ended job's record never changes again, whoever runs the job once more.
ADVANCE = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'PENDING' and status ~= 'PROCESSING' then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
if ARGV[1] ~= '' then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return 1
"""


def connect(dsn: str) -> Redis:
    """Make a client; RESP 2, so that even a Redis that is too old can say so."""
    return Redis.from_url(dsn, protocol=2)


class Records:
    """The records of the jobs that this worker has in hand."""

    def __init__(self, redis: Redis, *, cache_ttl_s: int) -> None:
        self._redis = redis
        self._cache_ttl_s = cache_ttl_s
        self._advance = redis.register_script(ADVANCE)

    def begin(self, job_id: str) -> tuple[JobRecord | None, bytes | None]:
        """Note that a worker is at the job; return its record and its image, None for what has expired."""
        with self._redis.pipeline() as pipeline:
            self._advance([keys.job(job_id)], ["", "status", JobStatus.PROCESSING], client=pipeline)
            pipeline.hgetall(keys.job(job_id))
            pipeline.get(keys.image(job_id))
            _, fields, image = pipeline.execute()
        return (JobRecord.from_hash(fields) if fields else None), image

    def complete(self, job_id: str, image_hash: str, result: AnalysisResult, processing_time_ms: float) -> None:
        """Write the result into the record and the cache, and let go of the image, all in one."""
        with self._redis.pipeline() as pipeline:
            fields = ["status", JobStatus.COMPLETED, "result", result.model_dump_json()]
            self._end(pipeline, job_id, [*fields, "processing_time_ms", str(processing_time_ms)])
            if self._cache_ttl_s:
                cached = CachedResult(result=result, processing_time_ms=processing_time_ms)
                key = keys.result(image_hash)
                pipeline.hset(key, result.model.cache_field, cached.model_dump_json())
                pipeline.expire(key, self._cache_ttl_s)
            pipeline.execute()

    def fail(self, job_id: str, failure: JobFailure) -> None:
        """Write the error into the record and let go of the image."""
        with self._redis.pipeline() as pipeline:
            self._end(pipeline, job_id, ["status", JobStatus.FAILED, "error", failure.model_dump_json()])
            pipeline.execute()

    def retry(self, job_id: str) -> None:
        """Note that the job is back in the queue."""
        self._advance([keys.job(job_id)], ["", "status", JobStatus.PENDING])

    def _end(self, pipeline: Redis, job_id: str, fields: list[str]) -> None:
        self._advance([keys.job(job_id)], [keys.ENDED_JOB_TTL_S, *fields], client=pipeline)
        pipeline.delete(keys.image(job_id))
