"""RQ's lists and registries and Redis's keys, as they must be after all jobs have ended."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from redis import Redis

from image_analysis_common import keys, rq_keys, tasks
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.settings import BUNDLED_MODEL
from support.waiting import wait_until

QUEUE = tasks.queue_name(BUNDLED_MODEL)
FORGOTTEN_S = 30
"""After this time, the lists of workers must be correct: dead workers' keys have expired and are cleaned up."""

T = TypeVar("T")


@dataclass(frozen=True)
class RedisState:
    """The content of the state."""

    waiting: Mapping[str, list[str]]
    """Every list under the queue's name that is not empty: the queue, the intermediate queue, and any other."""
    sighted: list[str]
    """Notes that a job was seen between pop and start: one that stays makes the job's next pop look like a loss."""
    started: list[str]
    finished: frozenset[str]
    failed: frozenset[str]
    rq_statuses: Mapping[str, str]
    workers: frozenset[str]
    heard_workers: frozenset[str]
    everlasting: list[str]
    """Keys without an expiry that should have one."""

    @classmethod
    def read(cls, redis: Redis, jobs: Mapping[str, JobRecord]) -> Self:
        lists = list(redis.scan_iter(f"rq:queue:{QUEUE}*", _type="list"))
        with redis.pipeline(transaction=False) as pipeline:
            for job_id in jobs:
                pipeline.hget(f"rq:job:{job_id}", "status")
            statuses = pipeline.execute()
        return cls(
            waiting={key.decode(): _texts(redis.lrange(key, 0, -1)) for key in lists},
            sighted=_texts(redis.scan_iter(f"rq:queue:{QUEUE}:intermediate:first_seen:*")),
            started=_texts(redis.zrange(f"rq:wip:{QUEUE}", 0, -1)),
            finished=frozenset(_texts(redis.zrange(f"rq:finished:{QUEUE}", 0, -1))),
            failed=frozenset(_texts(redis.zrange(f"rq:failed:{QUEUE}", 0, -1))),
            rq_statuses={job: (status or b"").decode() for job, status in zip(jobs, statuses, strict=True)},
            workers=frozenset(name.removeprefix("rq:worker:") for name in _texts(redis.smembers("rq:workers"))),
            heard_workers=frozenset(_texts(redis.zrange(keys.workers(BUNDLED_MODEL), 0, -1))),
            everlasting=_everlasting(redis),
        )

    @classmethod
    def clean(cls, jobs: Mapping[str, JobRecord], workers: frozenset[str] = frozenset()) -> Self:
        """The correct content when all jobs have ended and `workers` live."""
        completed = frozenset(job for job, record in jobs.items() if record.status is JobStatus.COMPLETED)
        return cls(
            waiting={},
            sighted=[],
            started=[],
            finished=completed,
            failed=frozenset(jobs) - completed,
            rq_statuses={job: "finished" if job in completed else "failed" for job in jobs},
            workers=workers,
            heard_workers=workers,
            everlasting=[],
        )


def settled_state(redis: Redis, jobs: Mapping[str, JobRecord], workers: frozenset[str] = frozenset()) -> RedisState:
    """Return the state as soon as it is clean, or as it is after the timeout."""
    return eventually(lambda: RedisState.read(redis, jobs), RedisState.clean(jobs, workers), FORGOTTEN_S)


def eventually(read: Callable[[], T], expected: T, timeout_s: float) -> T:
    """Return the value of `read` as soon as it is `expected`, or the last value, for an assertion on the whole."""
    try:
        wait_until(lambda: read() == expected, "the expected value", timeout_s)
    except AssertionError:
        return read()
    return expected


def retries_left(redis: Redis, jobs: list[str]) -> list[int]:
    """Read how many more attempts RQ would give each job."""
    with redis.pipeline(transaction=False) as pipeline:
        for job_id in jobs:
            pipeline.hget(f"rq:job:{job_id}", "retries_left")
        return [int(left) for left in pipeline.execute()]


def _everlasting(redis: Redis) -> list[str]:
    names = list(redis.scan_iter(count=1000))
    with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.ttl(name)
        lifetimes = pipeline.execute()
    forever = [name.decode() for name, ttl_s in zip(names, lifetimes, strict=True) if ttl_s == -1]
    return sorted(
        name for name in forever if not name.startswith((*keys.PERMANENT_PREFIXES, *rq_keys.PERMANENT_PREFIXES))
    )


def _texts(values: object) -> list[str]:
    return [value.decode() for value in values]  # type: ignore[attr-defined]
