"""The scripts that read jobs, and the one that adds a job that has ended as it came."""

from itertools import chain

from image_analysis_common import keys
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts.source import ScriptCall, load

MAX_SCANNED = 1000
"""So many jobs are looked at in one step: where few have the status asked for, a page holds less than it may."""

_FIND_RESULT, _ADD_ENDED, _FIND_POSITION, _LIST_JOBS = map(
    load, ("find_result", "add_ended", "find_position", "list_jobs")
)


def find_result(model: str, image_hash: str) -> ScriptCall:
    """Read what is known of an image and of the model that would analyze it."""
    return _FIND_RESULT.call((keys.announcement(model), keys.result(image_hash), keys.workers(model)))


def add_ended(job_id: str, record: JobRecord) -> ScriptCall:
    """Add a job that a cached result has answered, or that was refused."""
    owner = record.owner or ""
    return _ADD_ENDED.call(
        (
            keys.job(job_id),
            keys.answered(record.image_hash) if record.cached else "",
            keys.jobs_of(owner),
            keys.result(record.image_hash),
        ),
        job_id,
        owner,
        int(record.webhook_url is not None),
        *chain.from_iterable(record.to_hash().items()),
    )


def find_position(job_id: str) -> ScriptCall:
    """Read a job's record and its place in the queue."""
    return _FIND_POSITION.call((keys.job(job_id),), job_id)


def list_jobs(
    owner: str, *, limit: int, status: JobStatus | None = None, newest: str = "+inf", after: str = ""
) -> ScriptCall:
    """Read a page of an owner's jobs, from those of the time `newest` on that come after the job `after`."""
    return _LIST_JOBS.call((keys.jobs_of(owner),), limit, status or "", newest, after, MAX_SCANNED)
