"""The scripts that move a run, and its followers, through their states."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Literal, TypeAlias

from image_analysis_common import keys, rq_keys, tasks
from image_analysis_common.models import Task
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts.limits import NO_QUOTA, Quota
from image_analysis_common.scripts.source import ScriptCall, Word, load

FOLLOWERS_AT_ONCE = 500
"""The most followers that one call ends. Each takes Redis 27 microseconds, in which it serves no other client."""

RESULTS_OF_IMAGE = 64
"""The most results of one image in the cache: it is asked about in any number of ways."""

RUNS_AT_ONCE = 100
LIST_ENTRIES_PER_UNIT = 2500
"""A sweep may do `FOLLOWERS_AT_ONCE` units of work. A unit ends one follower, or scans this many entries of a list."""

_ENQUEUE, _STEP, _SWEEP, _CANCEL = map(load, ("enqueue", "step", "sweep", "cancel"))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A job with an image to analyze, and the commands with which RQ queues it."""

    job_id: str
    model: str
    record: JobRecord
    image_bytes: int
    rq_words: Sequence[Any]
    """The commands, each preceded by its number of words."""
    cache_field: str = ""
    """The cache field of the image's result; empty if no cached result may answer the job."""
    is_urgent: bool = False
    """Whether it is put at the front of the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How much may wait for one model, and for how long."""

    depth: int
    image_bytes: int
    followers: int
    deliveries: int
    waiting_s: float


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model as its announcement, which begins with `announced`, describes it."""

    announced: str
    cache_field: str
    task: Task
    embeds: bool


@lru_cache(maxsize=64)
def _names(model: str) -> tuple[str, ...]:
    """Return those of the KEYS of `enqueue` that only the model decides, in their order."""
    queue = tasks.queue_name(model)
    return (
        rq_keys.QUEUE + queue,
        keys.image_bytes(model),
        *(registry + queue for registry in (rq_keys.FINISHED, rq_keys.FAILED, rq_keys.STARTED)),
        keys.following(model),
        keys.announcement(model),
        keys.workers(model),
    )


def enqueue(run: NewRun, limits: QueueLimits, quota: Quota = NO_QUOTA, known: KnownModel | None = None) -> ScriptCall:
    """Accept a job: queue a run for it, or let it follow the run of the same image.

    With a quota, count the request first. With a known model, look for the image's result first.
    """
    record, (*of_queue, following, announcement, workers) = run.record, _names(run.model)
    field, deep_field = record.cache_fields(known.cache_field) if known else (run.cache_field, "")
    fields = _flat(record.to_hash().items())
    return _ENQUEUE.call(
        (
            _leader(run.model, record),
            keys.job(run.job_id),
            keys.result(record.image_hash),
            *of_queue,
            keys.jobs_of(record.owner) if record.owner else "",
            following,
            announcement if known else "",
            workers,
            quota.key,
        ),
        run.job_id,
        field,
        run.image_bytes,
        int(run.is_urgent),
        limits.waiting_s,
        limits.depth,
        limits.image_bytes,
        limits.followers,
        limits.deliveries if record.webhook_url else "",
        known.announced if known else "",
        deep_field,
        quota.limit,
        quota.window_s,
        len(fields),
        *fields,
        *run.rq_words,
    )


StepKind: TypeAlias = Literal["start", "complete", "fail", "retry", "abandon", "give_back", "put_back"]
"""What happens to RQ's job: `retry` and `abandon` use up an attempt, `give_back` and `put_back` do not; `put_back` is
for a job that was popped and not started, and `abandon` for one whose worker died."""


@dataclass(frozen=True, slots=True)
class RqStep:
    """How a step changes what RQ holds of the job."""

    kind: StepKind
    execution_id: str = ""
    """RQ's ID of the execution that starts or ends; empty if the job was never started."""
    started_s: float | str = ""
    """When that execution was started, in seconds since 1970."""
    value: str | int = ""
    """For an end: the return value or the error, as RQ keeps it. For `retry` and `abandon`: the attempts that are left
    afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RqWorker:
    """The worker that takes the steps, as RQ knows it."""

    key: str
    name: str
    queue: str
    now: str
    now_s: float
    others: int | str = ""
    """How many executions it has without these runs; empty if its state stays as it is."""
    working_s: float | str = ""
    """How long it worked on runs that end now."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A result for the cache, or an embedding."""

    field: str
    value: str | bytes


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run; the first of `fields` is the status. Without an `RqStep`, the caller updates RQ itself."""

    job_id: str
    record: JobRecord | None
    fields: Mapping[str, str]
    cached: CacheEntry | None = None
    embedding: CacheEntry | None = None
    """The image's embedding, which is cached only together with the result; empty if the cache has it."""
    rq: RqStep | None = None


_NO_WORKER = RqWorker(key="", name="", queue="", now="", now_s=0)


def step(model: str, steps: Iterable[Step], *, cache_ttl_s: int, worker: RqWorker | None = None) -> ScriptCall:
    """Take one step of each of some runs of a model; without a worker, the caller updates RQ itself."""
    at = worker or _NO_WORKER
    return _STEP.call(
        (keys.image_bytes(model), at.key),
        at.name,
        at.queue,
        at.now,
        at.now_s,
        at.others,
        at.working_s,
        cache_ttl_s,
        FOLLOWERS_AT_ONCE,
        RESULTS_OF_IMAGE,
        *_flat(_words(model, step) for step in steps),
    )


def _leader(model: str, record: JobRecord) -> str:
    return keys.leader(model, record.image_hash, variant=record.variant, is_deep=record.is_deep)


def _words(model: str, step: Step) -> tuple[Word, ...]:
    record, rq = step.record, step.rq
    return (
        step.job_id,
        record.image_hash if record else "",
        _leader(model, record) if record else "",
        *((rq.kind, rq.execution_id, rq.started_s, rq.value) if rq else ("", "", "", "")),
        *_entry(step.cached),
        *_entry(step.embedding),
        2 * len(step.fields),
        *chain.from_iterable(step.fields.items()),
    )


def _entry(entry: CacheEntry | None) -> tuple[Word, Word]:
    return (entry.field, entry.value) if entry else ("", "")


def sweep(*, check_s: float, confirm_s: float, pause_ms: int, expired: str, lost: str) -> ScriptCall:
    """Check some of the runs that are due; `expired` and `lost` are the errors for the jobs that fail, as JSON."""
    return _SWEEP.call(
        (),
        check_s,
        confirm_s,
        pause_ms,
        expired,
        lost,
        RUNS_AT_ONCE,
        FOLLOWERS_AT_ONCE,
        LIST_ENTRIES_PER_UNIT,
    )


def cancel(job_id: str, owner: str | None) -> ScriptCall:
    """Cancel an owner's job, or delete it if it has ended."""
    return _CANCEL.call((keys.job(job_id),), job_id, owner or "")


def _flat(groups: Iterable[Iterable[Any]]) -> list[Any]:
    return list(chain.from_iterable(groups))
