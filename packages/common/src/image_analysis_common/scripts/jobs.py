"""The scripts that read jobs, and the one that adds a job that ends at once."""

from dataclasses import dataclass
from itertools import chain

from image_analysis_common import keys
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts.limits import NO_QUOTA, Quota
from image_analysis_common.scripts.runs import KnownModel
from image_analysis_common.scripts.source import ScriptCall, load

MAX_SCANNED = 1000
"""The most jobs that one call looks at. If few of them have the requested status, a page is shorter than its limit."""

_NOTHING_KNOWN = ("", "", "", "")

_FIND_RESULT, _ADD_ENDED, _FIND_POSITION, _LIST_JOBS = map(
    load, ("find_result", "add_ended", "find_position", "list_jobs")
)


@dataclass(frozen=True, slots=True)
class KnownResult:
    """A cached result as the caller knows it, and the ID and the announcement of its model."""

    model_id: str
    model: KnownModel
    text: bytes


def find_result(model: str, image_hash: str, variant: str = "") -> ScriptCall:
    """Read an image's cached results of a variant, and the announcement of the model that would analyze it."""
    return _FIND_RESULT.call((keys.announcement(model), keys.result(image_hash), keys.workers(model)), variant)


def add_ended(job_id: str, record: JobRecord, quota: Quota = NO_QUOTA, known: KnownResult | None = None) -> ScriptCall:
    """Add a job that a cached result answers, or that was refused.

    With a quota, count the request first. With a known result, add the job only if that is still the cached one.
    """
    owner = record.owner or ""
    return _ADD_ENDED.call(
        (
            keys.job(job_id),
            keys.answered(record.image_hash) if record.cached else "",
            keys.jobs_of(owner),
            keys.result(record.image_hash),
            keys.announcement(known.model_id) if known else "",
            quota.key,
        ),
        job_id,
        owner,
        int(record.webhook_url is not None),
        *(
            (known.model.announced, *record.cache_fields(known.model.cache_field), known.text)
            if known
            else _NOTHING_KNOWN
        ),
        quota.limit,
        quota.window_s,
        *chain.from_iterable(record.to_hash().items()),
    )


def find_position(job_id: str, quota: Quota = NO_QUOTA) -> ScriptCall:
    """Read a job's record and its place in the queue, and how much of its reader's quota is left."""
    return _FIND_POSITION.call((keys.job(job_id), quota.key), job_id, quota.limit, quota.window_s)


def list_jobs(
    owner: str, *, limit: int, status: JobStatus | None = None, newest: str = "+inf", after: str = ""
) -> ScriptCall:
    """Read a page of an owner's jobs, newest first, starting after the job `after` of the time `newest`."""
    return _LIST_JOBS.call((keys.jobs_of(owner),), limit, status or "", newest, after, MAX_SCANNED)
