"""The scripts that move a run, and its followers, through their states."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

from image_analysis_common import keys, rq_keys, tasks
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts.source import ScriptCall, load

FOLLOWERS_AT_ONCE = 500
"""The most followers that one call ends. Each takes Redis 27 microseconds, in which it serves no other client."""

RUNS_AT_ONCE = 100
LIST_ENTRIES_PER_UNIT = 2500
"""A sweep may do `FOLLOWERS_AT_ONCE` units of work. A unit ends one follower, or scans this many entries of a list."""

_ENQUEUE, _STEP, _SWEEP, _CANCEL = map(load, ("enqueue", "step", "sweep", "cancel"))

Command: TypeAlias = Sequence[Any]
"""A Redis command that a script runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A job with an image to analyze, and the commands with which RQ queues it."""

    job_id: str
    model: str
    record: JobRecord
    image_bytes: int
    rq_commands: Sequence[Command]
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


def enqueue(run: NewRun, limits: QueueLimits) -> ScriptCall:
    """Accept a job: queue a run for it, or let it follow the run of the same image."""
    record, queue = run.record, tasks.queue_name(run.model)
    fields = _flat(record.to_hash().items())
    return _ENQUEUE.call(
        (
            keys.leader(run.model, record.image_hash, is_deep=record.is_deep),
            keys.job(run.job_id),
            keys.result(record.image_hash),
            rq_keys.QUEUE + queue,
            keys.image_bytes(run.model),
            rq_keys.FINISHED + queue,
            rq_keys.FAILED + queue,
            rq_keys.STARTED + queue,
            keys.jobs_of(record.owner) if record.owner else "",
            keys.following(run.model),
        ),
        run.job_id,
        run.cache_field,
        run.image_bytes,
        int(run.is_urgent),
        limits.waiting_s,
        limits.depth,
        limits.image_bytes,
        limits.followers,
        limits.deliveries if record.webhook_url else "",
        len(fields),
        *fields,
        *_flat((len(command), *command) for command in run.rq_commands),
    )


@dataclass(frozen=True)
class RqStep:
    """How a step changes what RQ holds of the job."""

    job_key: str
    canceled_key: str
    claim: Command
    """A command that answers nil or 0 if the job does not belong to this worker, or no longer."""
    commands: Sequence[Command]
    execution_id: str = ""
    """RQ's ID of the execution that ends with this step; empty if the job was never started."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A result for the cache."""

    field: str
    text: str
    ttl_s: int


def step(
    job_id: str,
    model: str,
    record: JobRecord | None,
    fields: Mapping[str, str],
    *,
    cached: CacheEntry | None = None,
    rq: RqStep | None = None,
) -> ScriptCall:
    """Take one step of a run; the first of `fields` is the status.

    Without an `RqStep`, the caller updates RQ itself.
    """
    claim, commands = (rq.claim, rq.commands) if rq else ((), ())
    return _STEP.call(
        (
            keys.job(job_id),
            keys.followers(job_id),
            keys.leader(model, record.image_hash, is_deep=record.is_deep) if record else "",
            keys.image(job_id),
            keys.image_bytes(model),
            keys.result(record.image_hash) if record else "",
            keys.answered(record.image_hash) if record else "",
            rq.job_key if rq else "",
            rq.canceled_key if rq else "",
        ),
        job_id,
        *((cached.ttl_s, cached.field, cached.text) if cached else ("", "", "")),
        rq.execution_id if rq else "",
        FOLLOWERS_AT_ONCE,
        2 * len(fields),
        *_flat(fields.items()),
        *_flat((len(command), *command) for command in (claim, *commands)),
    )


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
