"""The scripts that read jobs, and those that add jobs that end at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from image_analysis_common import keys
from image_analysis_common.models import JobFailure, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts.limits import NO_QUOTA, Quota
from image_analysis_common.scripts.runs import KnownModel
from image_analysis_common.scripts.source import ScriptCall, Word, load

MAX_SCANNED = 1000
"""The most jobs that one call looks at. If few of them have the requested status, a page is shorter than its limit."""

_NOTHING_KNOWN = ("", "", "", "")

_FIND_RESULT, _ADD_ENDED, _SETTLE_BATCH, _FIND_POSITION, _LIST_JOBS = map(
    load, ("find_result", "add_ended", "settle_batch", "find_position", "list_jobs")
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
    """Add a job that ends at once, because a cached result answers it.

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


@dataclass(frozen=True, slots=True)
class BatchErrors:
    """The errors of a batch's jobs that are not queued, because of too many webhooks or for another reason."""

    undelivered: JobFailure
    no_room: JobFailure
    max_deliveries: int


def settle_batch(batch_id: str, records: Mapping[str, JobRecord], errors: BatchErrors) -> ScriptCall:
    """Add the failed jobs of a batch right after the others were queued; `records` are those of all its jobs."""
    first = next(iter(records.values()))  # All have the same owner and webhook.
    words = list[Word]()
    for job_id, record in records.items():
        if record.status is not JobStatus.COMPLETED:
            fields = record.model_copy(update={"status": JobStatus.FAILED}).to_hash()
            words += job_id, int(record.error is None), 2 * len(fields), *chain.from_iterable(fields.items())
    return _SETTLE_BATCH.call(
        (keys.batch(batch_id), keys.jobs_of(first.owner) if first.owner else ""),
        errors.max_deliveries if first.webhook_url else "",
        errors.undelivered.model_dump_json(),
        errors.no_room.model_dump_json(),
        int(any(record.status is JobStatus.COMPLETED for record in records.values())),
        *words,
    )


def find_position(job_id: str, quota: Quota = NO_QUOTA) -> ScriptCall:
    """Read a job's record and its place in the queue, and how much of its reader's quota is left."""
    return _FIND_POSITION.call((keys.job(job_id), quota.key), job_id, quota.limit, quota.window_s)


def list_jobs(
    owner: str, *, limit: int, status: JobStatus | None = None, newest: str = "+inf", after: str = ""
) -> ScriptCall:
    """Read a page of an owner's jobs, newest first, starting after the job `after` of the time `newest`."""
    return _LIST_JOBS.call((keys.jobs_of(owner),), limit, status or "", newest, after, MAX_SCANNED)
