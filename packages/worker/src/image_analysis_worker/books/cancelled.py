"""What RQ's books say of a job that its owner took back while it ran."""

from redis.client import Pipeline
from rq.job import Job
from rq.queue import Queue
from rq.results import Result

from image_analysis_common import keys

# What RQ's own steps before it have written of a job that was cancelled meanwhile is corrected; members expire.
NOTE_CANCELLED = """
if redis.call('HGET', KEYS[1], 'status') ~= 'CANCELLED' then return end
local now, job_id, ttl = redis.call('TIME')[1], ARGV[1], ARGV[2]
redis.call('HSET', KEYS[2], 'status', 'canceled')
redis.call('EXPIRE', KEYS[2], ttl)
redis.call('DEL', KEYS[3])
redis.call('ZREM', KEYS[4], job_id)
redis.call('ZREM', KEYS[5], job_id)
redis.call('ZREMRANGEBYSCORE', KEYS[6], 0, now)
redis.call('ZADD', KEYS[6], now + ttl, job_id)
redis.call('EXPIRE', KEYS[6], ttl)
"""


class Cancellations:
    """Keeps RQ's books of one queue right where a job was taken back."""

    def __init__(self, queue: Queue) -> None:
        registries = (queue.finished_job_registry, queue.failed_job_registry, queue.canceled_job_registry)
        self._registry_keys = [registry.key for registry in registries]

    def note(self, pipeline: Pipeline, job: Job) -> None:
        """Where the job's record says CANCELLED, let RQ's say so, and forget the result; the last step of its end."""
        pipeline.eval(
            NOTE_CANCELLED,
            6,
            keys.job(job.id),
            job.key,
            Result.get_key(job.id),
            *self._registry_keys,
            job.id,
            keys.ENDED_JOB_TTL_S,
        )
