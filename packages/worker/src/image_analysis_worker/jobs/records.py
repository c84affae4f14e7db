"""What the worker writes to Redis about a job: each step of its record, and the result in the cache.

The same script also writes the step to RQ's hash and registries, under the same conditions; `RqStep` holds RQ's part.
"""

from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.retry import Retry

from image_analysis_common.models import DEEP_SUFFIX, AnalysisResult, CachedResult, JobFailure, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts.runs import CacheEntry, RqStep, step
from image_analysis_common.scripts.source import ScriptCall

TIMEOUT_S = 3
"""Longer than a blocking pop waits, and far shorter than a worker may be silent."""


def connect(dsn: str) -> Redis:
    """Make a client that never retries: its callers do. RESP 2, so that a Redis that is too old can still answer."""
    return Redis.from_url(
        dsn,
        protocol=2,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


class Records:
    """Writes the steps of a model's jobs into a pipeline; the caller sends it, and `read_step` reads the answers.

    Without an `RqStep`, the caller updates RQ itself.
    """

    def __init__(self, model_id: str, *, cache_ttl_s: int) -> None:
        self._model_id = model_id
        self._cache_ttl_s = cache_ttl_s

    def begin(self, pipeline: Pipeline, job_id: str, record: JobRecord, rq: RqStep | None = None) -> None:
        """Set the job to PROCESSING."""
        _write(pipeline, step(job_id, self._model_id, record, {"status": JobStatus.PROCESSING}, rq=rq))

    def retry(self, pipeline: Pipeline, job_id: str, record: JobRecord | None = None, rq: RqStep | None = None) -> None:
        """Set the job back to PENDING."""
        _write(pipeline, step(job_id, self._model_id, record, {"status": JobStatus.PENDING}, rq=rq))

    def complete(
        self,
        pipeline: Pipeline,
        job_id: str,
        record: JobRecord,
        result: AnalysisResult,
        processing_time_ms: float,
        rq: RqStep | None = None,
    ) -> None:
        """Write the result into the job's record and the cache, and delete the image."""
        fields = {
            "status": JobStatus.COMPLETED,
            "result": result.model_dump_json(),
            "processing_time_ms": str(processing_time_ms),
        }
        cached = None
        if self._cache_ttl_s:
            field = result.model.cache_field + (DEEP_SUFFIX if record.is_deep else "")
            text = CachedResult(result=result, processing_time_ms=processing_time_ms).model_dump_json()
            cached = CacheEntry(field, text, self._cache_ttl_s)
        _write(pipeline, step(job_id, self._model_id, record, fields, cached=cached, rq=rq))

    def fail(
        self, pipeline: Pipeline, job_id: str, record: JobRecord, failure: JobFailure, rq: RqStep | None = None
    ) -> None:
        """Write the error into the job's record, and delete the image."""
        fields = {"status": JobStatus.FAILED, "error": failure.model_dump_json()}
        _write(pipeline, step(job_id, self._model_id, record, fields, rq=rq))


def _write(pipeline: Pipeline, call: ScriptCall) -> None:
    # EVAL with the text: with a registered script, each pipeline would first ask the server whether it has it.
    pipeline.eval(call.script.text, *call.words)


def read_step(answer: bytes | None) -> JobStatus | None:
    """Return the status that the script has written; None if it wrote nothing."""
    return JobStatus(answer.decode()) if answer else None
