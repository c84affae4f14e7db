"""How the end of a run becomes the client's answer and the log line."""

import structlog

from image_analysis_common.errors import ServiceError
from image_analysis_common.models import AnalysisResult, JobFailure, JobStatus, ModelRef, Prediction
from image_analysis_worker.jobs.in_flight import Work
from image_analysis_worker.jobs.spans import write_spans
from image_analysis_worker.metrics import JOB_DURATION, JOBS

OUTCOMES = {
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
    JobStatus.PENDING: "retried",
}
log = structlog.get_logger(__name__)


def make_result(predictions: list[Prediction], model: ModelRef) -> AnalysisResult:
    """Put a model's predictions for one image, best first, into the answer's form."""
    best = predictions[0]
    return AnalysisResult(label=best.label, confidence=best.confidence, predictions=predictions, model=model)


def describe(error: Exception | None) -> JobFailure:
    """Put an error into words for the client; of one that nobody foresaw it learns nothing."""
    if isinstance(error, ServiceError):
        return JobFailure(code=error.code, detail=error.detail)
    detail = "Something went wrong in the service: report it with the job ID."
    return JobFailure(code=ServiceError.code, detail=detail)


def note_end(work: Work, status: JobStatus | None) -> None:
    """Count how a job's run ended, write its spans and its one line in the log: the only place that does.

    `status` is what the run has reached, from the script that wrote it. None says that nothing was written, because the
    job is another worker's by now or had ended before: then the end is that one's to note.
    """
    line = log.bind(job_id=work.job_id, request_id=work.request_id)
    if status is None:
        if work.has_ended:
            line.info("end_discarded")
        return
    failure = work.failure if status in (JobStatus.FAILED, JobStatus.PENDING) else None
    JOBS.labels(OUTCOMES[status], describe(failure).code if failure else "").inc()
    JOB_DURATION.observe(work.processing_time_ms / 1000)
    line = line.bind(**write_spans(work, failure), processing_time_ms=work.processing_time_ms)
    event = f"job_{OUTCOMES[status]}"
    if work.result is not None and status is JobStatus.COMPLETED:
        line.info(event, label=work.result.label)
    elif failure is None:
        line.info(event)
    elif isinstance(failure, ServiceError):
        line.warning(event, code=failure.code, cause=repr(failure.__cause__ or failure))
    else:
        # A traceback only for what is our fault.
        line.error(event, exc_info=failure)
