"""Counts and logs what became of submitted images."""

from typing import Any

import structlog

from image_analysis_api.jobs.queue import NewJob, ResultCached, read_answer
from image_analysis_api.metrics import SUBMISSIONS, labeled
from image_analysis_common.errors import QueueFull, TooManyDeliveries

log = structlog.get_logger(__name__)


def note(job: NewJob, answer: Any) -> Exception | None:
    """Count and log what Redis made of a job; return the error if it made nothing of it."""
    record = job.record
    fields = {"job_id": str(job.job_id), "image_hash": record.image_hash, "image_bytes": len(job.image)}
    if record.error is not None:
        labeled(SUBMISSIONS, "refused").inc()
        log.info("image_refused", job_id=str(job.job_id), code=record.error.code)
    elif record.status.is_final:
        labeled(SUBMISSIONS, "cached").inc()
        log.info("result_found", **fields)
    else:
        try:
            leader = read_answer(answer)
        except (ResultCached, QueueFull, TooManyDeliveries) as error:
            return error
        labeled(SUBMISSIONS, "coalesced" if leader else "queued").inc()
        log.info("job_enqueued", **fields, **({"follows": str(leader)} if leader else {}))
    return None
