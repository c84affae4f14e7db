"""The ends of jobs: the result or error for the client, the log line, the metrics."""

import structlog

from image_analysis_common.errors import ServiceError
from image_analysis_common.job_errors import JobTimeout, WorkerLost
from image_analysis_common.metrics import JOBS
from image_analysis_common.models import AnalysisResult, ImageEmbedding, JobFailure, JobStatus, ModelRef, Prediction
from image_analysis_worker.jobs.batching import Job
from image_analysis_worker.jobs.spans import write_spans
from image_analysis_worker.metrics import JOB_DURATION

OUTCOMES = {
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
    JobStatus.PENDING: "retried",
}
for outcome in ("failed", "retried"):
    for error in (ServiceError, JobTimeout, WorkerLost):
        JOBS.labels(outcome, error.code)  # starts at 0: Prometheus does not see a new series as an increase
log = structlog.get_logger(__name__)


def make_result(job: Job, predictions: list[Prediction], model: ModelRef) -> AnalysisResult:
    """Make a job's result from a model's predictions, best first, and the embedding if the job asks for it."""
    best = predictions[0]
    asked = job.embedding if job.record.embedding else None
    return AnalysisResult(
        label=best.label,
        confidence=best.confidence,
        predictions=predictions,
        model=model,
        embedding=ImageEmbedding.pack(asked.values) if asked else None,
    )


def describe(error: Exception | None) -> JobFailure:
    """Describe an error to the client; an unexpected one only as an internal error."""
    if isinstance(error, ServiceError):
        return JobFailure(code=error.code, detail=error.detail)
    detail = "Something went wrong in the service: report it with the job ID."
    return JobFailure(code=ServiceError.code, detail=detail)


def report_end(job: Job, status: JobStatus | None) -> None:
    """Count the end of a job's attempt, write its spans and its log line. No other code does.

    `status` is what the script has written. None means that it wrote nothing, because another worker has taken the job
    over or the job had already ended. Then the end was, or will be, reported elsewhere.
    """
    line = log.bind(job_id=job.job_id, request_id=job.request_id)
    if status is None:
        if job.has_ended:
            line.info("end_discarded")
        return
    failure = job.failure if status in (JobStatus.FAILED, JobStatus.PENDING) else None
    JOBS.labels(OUTCOMES[status], describe(failure).code if failure else "").inc()
    JOB_DURATION.observe(job.processing_time_ms / 1000)
    line = line.bind(**write_spans(job, failure), processing_time_ms=job.processing_time_ms)
    event = f"job_{OUTCOMES[status]}"
    if job.result is not None and status is JobStatus.COMPLETED:
        line.info(event, label=job.result.label)
    elif job.trained is not None and status is JobStatus.COMPLETED:
        examples = sum(job.trained.examples.values())
        line.info("classifier_trained", classifier=job.trained.name, examples=examples, accuracy=job.trained.accuracy)
    elif failure is None:
        line.info(event)
    elif isinstance(failure, ServiceError):
        line.warning(event, code=failure.code, cause=repr(failure.__cause__ or failure))
    else:
        # Only an unexpected error gets a traceback.
        line.error(event, exc_info=failure)
