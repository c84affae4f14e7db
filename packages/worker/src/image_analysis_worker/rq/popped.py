"""Builds a job from what Redis holds of it when it is popped."""

import json
from collections.abc import Sequence

from image_analysis_common import tasks
from image_analysis_common.errors import UnreadableRecord
from image_analysis_common.job_errors import ImageExpired, WorkerLost
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.jobs.batching import Job


def read_popped(
    job_id: str,
    created_at: bytes | None,
    retries_left: bytes | None,
    meta: bytes | None,
    fields: Sequence[bytes],
    has_image: int,
) -> Job | None:
    """Build a popped job from what Redis holds of it; None if it has expired.

    Only facts that cannot change any more are used here: its image is gone, its attempts are used up, it has ended.
    Whether it was cancelled is decided by the script that starts it.

    Raises:
        UnreadableRecord: another release of the service, or of RQ, wrote it.
    """
    if created_at is None or not fields:
        return None
    record = JobRecord.from_hash(dict(zip(fields[::2], fields[1::2], strict=True)))
    try:
        attempts_left = int(retries_left) if retries_left is not None else tasks.MAX_ATTEMPTS
        context = dict(json.loads(meta or b"{}"))
    except (TypeError, ValueError) as error:
        raise UnreadableRecord from error
    has_ended = record.status in (JobStatus.COMPLETED, JobStatus.FAILED)
    job = Job(
        job_id,
        request_id=str(context.get("request_id", "")),
        traceparent=str(context.get("traceparent", "")),
        record=record,
        image=b"",
        attempts_left=attempts_left,
        is_suspect=attempts_left < tasks.MAX_ATTEMPTS and not has_ended,
    )
    if (outcome := record.result or record.trained) is not None:
        job.end(outcome)
    elif has_ended or not has_image:
        job.end(ImageExpired())
    elif attempts_left < 1:
        job.end(WorkerLost(attempts=tasks.MAX_ATTEMPTS))
    return job
