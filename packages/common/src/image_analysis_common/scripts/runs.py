"""The scripts that move a run through its states, and with it the jobs that share it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

from image_analysis_common import keys, rq_keys, tasks
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts.source import ScriptCall, load

FOLLOWERS_AT_ONCE = 500
"""Followers that one script moves on: to end one takes Redis 27 microseconds, and meanwhile nobody else is served."""

RUNS_AT_ONCE = 100
LIST_ENTRIES_PER_UNIT = 2500
"""A sweep may do `FOLLOWERS_AT_ONCE` units of work: a unit ends one follower, or walks so many entries of a list."""

_ENQUEUE, _STEP, _SWEEP, _CANCEL = map(load, ("enqueue", "step", "sweep", "cancel"))

Command: TypeAlias = Sequence[Any]
"""A command of Redis that a script runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A job that comes with an image to analyze, and what RQ's code does to queue it."""

    job_id: str
    model: str
    record: JobRecord
    image_bytes: int
    rq_commands: Sequence[Command]
    cache_field: str = ""
    """Where the result of the image would stand; empty where no such result would do."""
    is_urgent: bool = False
    """It goes before all that wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How much may wait for one model, and for how long."""

    depth: int
    image_bytes: int
    followers: int
    deliveries: int
    waiting_s: float


def enqueue(run: NewRun, limits: QueueLimits) -> ScriptCall:
    """Take a job in: queue a run for it, or let it follow the run of the same image."""
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
    """What a step means in RQ's books."""

    job_key: str
    canceled_key: str
    claim: Command
    """Answers nil or 0 where the job is not this worker's, or no longer."""
    commands: Sequence[Command]
    execution_id: str = ""
    """Names the run whose end this is; one that ends before it begins has none."""


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
    """Take one step of a run; `fields` begin with the status.

    Without an `RqStep`, RQ's books are the caller's.
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
    """Check some of the runs that are due; `expired` and `lost` are the errors of the jobs that fail, as JSON."""
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
    """Cancel an owner's job, or forget it if it has ended."""
    return _CANCEL.call((keys.job(job_id),), job_id, owner or "")


def _flat(groups: Iterable[Iterable[Any]]) -> list[Any]:
    return list(chain.from_iterable(groups))
