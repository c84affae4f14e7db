"""How a job's run turns into what the client is told and the log says."""

import structlog

from image_analysis_common.errors import JobCancelled, ServiceError
from image_analysis_common.models import AnalysisResult, JobFailure, ModelRef, Prediction
from image_analysis_worker.hand import Work
from image_analysis_worker.metrics import JOB_DURATION, JOBS
from image_analysis_worker.spans import write_spans

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


def log_end(work: Work) -> None:
    """Count a job's end, write its spans and its one line in the log; a traceback only for what is our fault."""
    outcome = "completed" if work.result is not None else "retried" if work.can_be_retried else "failed"
    JOBS.labels(outcome, "" if work.result is not None else describe(work.failure).code).inc()
    JOB_DURATION.observe(work.processing_time_ms / 1000)
    ids = {"job_id": work.job_id, "request_id": work.request_id, **write_spans(work)}
    line = log.bind(**ids, processing_time_ms=work.processing_time_ms)
    if work.result is not None:
        line.info("job_completed", label=work.result.label)
    elif isinstance(work.failure, JobCancelled):
        line.info("job_cancelled")
    elif isinstance(work.failure, ServiceError):
        line.warning("job_failed", code=work.failure.code, cause=repr(work.failure.__cause__ or work.failure))
    else:
        line.error("job_retried" if work.can_be_retried else "job_failed", exc_info=work.failure)
