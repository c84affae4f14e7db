"""What the worker writes to Redis about a job: every step of its record, and the result in the cache.

RQ's books take the step too, in the same script and under the same conditions; what is written there is RQ's to say.
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
    """Writes the steps of a model's jobs into a pipeline; the caller sends it, and `read_step` reads the answers.

    Without an `RqStep`, RQ's books are the caller's.
    """

    def __init__(self, model_id: str, *, cache_ttl_s: int) -> None:
        self._model_id = model_id
        self._cache_ttl_s = cache_ttl_s

    def begin(self, pipeline: Pipeline, job_id: str, record: JobRecord, rq: RqStep | None = None) -> None:
        """Note that a worker is at the job."""
        _write(pipeline, step(job_id, self._model_id, record, {"status": JobStatus.PROCESSING}, rq=rq))

    def retry(self, pipeline: Pipeline, job_id: str, record: JobRecord | None = None, rq: RqStep | None = None) -> None:
        """Note that the job is back in the queue."""
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
        """Write the result into the job's record and the cache, and let go of the image."""
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
        """Write the error into the job's record and let go of the image."""
        fields = {"status": JobStatus.FAILED, "error": failure.model_dump_json()}
        _write(pipeline, step(job_id, self._model_id, record, fields, rq=rq))


def _write(pipeline: Pipeline, call: ScriptCall) -> None:
    # By its text: a registered script would cost each pipeline a round trip to ask whether the server has it.
    pipeline.eval(call.script.text, *call.words)


def read_step(answer: bytes | None) -> JobStatus | None:
    """Return the status that the run has reached; None where nothing was written."""
    return JobStatus(answer.decode()) if answer else None
