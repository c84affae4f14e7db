"""What the worker writes to Redis about a job: each step of its record, and the result in the cache.

The same script also writes the step to RQ's hash and registries, under the same conditions; `RqStep` holds RQ's part.
"""

from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import AuthenticationError, ResponseError
from redis.retry import Retry

from image_analysis_common.classifiers import Classifier
from image_analysis_common.models import AnalysisResult, CachedResult, JobFailure, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts.runs import CacheEntry, RqStep, RqWorker, Step, step
from image_analysis_common.settings import Sentinels
from image_analysis_common.versions import check_redis_version, refused_by_redis
from image_analysis_worker.jobs.batching import Embedding
from image_analysis_worker.sentinel import connect_to_primary

TIMEOUT_S = 3
"""Longer than a blocking pop waits, and far shorter than a worker may be silent."""


def connect(dsn: str, sentinels: Sentinels | None = None) -> Redis:
    """Make a client that never retries: its callers do. RESP 2, so that a Redis that is too old can still answer."""
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
    }
    return connect_to_primary(dsn, sentinels, options) if sentinels else Redis.from_url(dsn, **options)


def check_redis(redis: Redis) -> None:
    """Check that Redis accepts this worker and is new enough.

    Raises:
        StartupError: it does not, or is too old.
        RedisError: Redis cannot be reached.
    """
    try:
        hello = redis.execute_command("HELLO")
    except (AuthenticationError, ResponseError) as error:
        if "unknown command" not in str(error):
            raise refused_by_redis(error) from error
        hello = []
    check_redis_version(hello)


class Records:
    """Makes the steps of a model's jobs and writes them; `read_steps` reads the answer.

    Without an `RqStep`, the caller updates RQ itself.
    """

    def __init__(self, model_id: str, *, cache_ttl_s: int) -> None:
        self._model_id = model_id
        self._cache_ttl_s = cache_ttl_s

    def begin(self, job_id: str, record: JobRecord, rq: RqStep | None = None) -> Step:
        """Set the job to PROCESSING."""
        return Step(job_id, record, {"status": JobStatus.PROCESSING}, rq=rq)

    def retry(self, job_id: str, record: JobRecord | None = None, rq: RqStep | None = None) -> Step:
        """Set the job back to PENDING."""
        return Step(job_id, record, {"status": JobStatus.PENDING}, rq=rq)

    def complete(
        self,
        job_id: str,
        record: JobRecord,
        result: AnalysisResult,
        processing_time_ms: float,
        rq: RqStep | None = None,
        embedding: Embedding | None = None,
    ) -> Step:
        """Write the result into the job's record and the cache, with the image's embedding, and delete the image."""
        fields = {
            "status": JobStatus.COMPLETED,
            "result": result.model_dump_json(),
            "processing_time_ms": str(processing_time_ms),
        }
        if embedding and embedding.is_cached:
            fields["cached"] = "true"
        if not self._cache_ttl_s:
            return Step(job_id, record, fields, rq=rq)
        model_field = result.model.cache_field
        text = CachedResult(result=result, processing_time_ms=processing_time_ms).model_dump_json()
        return Step(
            job_id,
            record,
            fields,
            cached=CacheEntry(record.cache_fields(model_field)[0], text),
            embedding=CacheEntry(model_field, b"" if embedding.is_cached else embedding.values) if embedding else None,
            rq=rq,
        )

    def complete_training(
        self, job_id: str, record: JobRecord, trained: Classifier, processing_time_ms: float, rq: RqStep | None = None
    ) -> Step:
        """Write what clients see of a new classifier into the job's record, and delete the plan."""
        fields = {
            "status": JobStatus.COMPLETED,
            "trained": trained.model_dump_json(),
            "processing_time_ms": str(processing_time_ms),
        }
        return Step(job_id, record, fields, rq=rq)

    def fail(self, job_id: str, record: JobRecord, failure: JobFailure, rq: RqStep | None = None) -> Step:
        """Write the error into the job's record, and delete the image."""
        return Step(job_id, record, {"status": JobStatus.FAILED, "error": failure.model_dump_json()}, rq=rq)

    def write(self, pipeline: Pipeline, steps: Sequence[Step], worker: RqWorker | None = None) -> None:
        """Put one command into the pipeline that takes all the steps."""
        call = step(self._model_id, steps, cache_ttl_s=self._cache_ttl_s, worker=worker)
        # EVAL with the text: with a registered script, each pipeline would first ask the server whether it has it.
        pipeline.eval(call.script.text, *call.words)


def read_steps(answer: Sequence[bytes | None]) -> list[JobStatus | None]:
    """Return the status that the script has written for each step; None if it wrote nothing."""
    return [JobStatus(status.decode()) if status else None for status in answer]
