"""The API's side of RQ: an image, its job's record and RQ's job go into Redis together or not at all."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast
from uuid import UUID

import redis
from redis.asyncio import Redis
from redis.client import Pipeline
from rq import Queue, Retry

from image_analysis_api.outbound.webhook_urls import MAX_DELIVERIES
from image_analysis_common import keys, tasks, tracing
from image_analysis_common.errors import QueueFull, TooManyDeliveries
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts import runs
from image_analysis_common.scripts.source import ScriptCall

MAX_RETRY_AFTER_S = 300
"""The longest `Retry-After`, however slow the queue is: more workers may start."""

FOLLOWERS_FULL = (
    "{count} jobs wait for images that others sent, and no more are accepted: try again in {retry_after_s} s."
)
FOLLOWERS_PER_PLACE = 10
"""At most this many times `max_depth` jobs follow others; the record of each takes half a kB of Redis."""

QueueOf = Callable[[str | None], "JobQueue"]


@dataclass(frozen=True, slots=True)
class NewJob:
    """A submitted image and its job's record."""

    job_id: UUID
    image: bytes
    record: JobRecord
    request_id: str
    cache_field: str = ""
    """The field of the image's cached results that would answer the job; empty to queue it in any case."""
    is_urgent: bool = False
    """Whether it goes to the front of the queue."""


class ResultCached(Exception):
    """The image was not queued, because its result came into the cache: read it there."""


class JobQueue:
    """The queue of one model, under `key` in Redis."""

    def __init__(
        self,
        connection: Redis,
        model: str,
        *,
        job_timeout_s: int = 60,
        max_depth: int = 1000,
        max_bytes: int = 256_000_000,
        waiting_s: float = keys.WAITING_JOB_TTL_S,
    ) -> None:
        self._redis = connection
        self._model = model
        self._job_timeout_s = job_timeout_s
        self._limits = runs.QueueLimits(
            depth=max_depth,
            image_bytes=max_bytes,
            followers=FOLLOWERS_PER_PLACE * max_depth,
            deliveries=MAX_DELIVERIES,
            waiting_s=waiting_s,
        )
        # RQ requires a connection and the server's version, but sends nothing over it here.
        self._queue = Queue(
            tasks.queue_name(model), connection=cast(redis.Redis, connection), serializer=tasks.SERIALIZER
        )
        self._queue.redis_server_version = (6, 2, 0)
        self.key = self._queue.key

    @classmethod
    def factory(cls, connection: Redis, default_model: str, **limits: int) -> "QueueOf":
        """Return a function that gives each model's queue, and the default model's for None."""

        @cache
        def queue_of(model: str | None) -> JobQueue:
            return cls(connection, model or default_model, **limits)

        return queue_of

    def call(self, new: NewJob) -> ScriptCall:
        """Make the script call that queues an image; `read_answer` reads its answer."""
        identifier, record = str(new.job_id), new.record
        job = self._queue.create_job(
            tasks.ANALYZE_IMAGE,
            kwargs={"job_id": identifier},
            job_id=identifier,
            timeout=self._job_timeout_s,
            ttl=keys.UNENDED_JOB_TTL_S,
            result_ttl=keys.FINISHED_JOB_TTL_S,
            failure_ttl=keys.ENDED_JOB_TTL_S,
            retry=Retry(max=tasks.MAX_ATTEMPTS, enqueue_at_front=True),
            description=f"image {record.image_hash[:12]}",
            meta={"request_id": new.request_id, **tracing.traceparent()},
        )
        # RQ's own code writes the job into a pipeline that is never sent; the script runs its commands.
        pipeline = self._redis.pipeline()
        self._queue.enqueue_job(job, pipeline=cast(Pipeline, pipeline), at_front=new.is_urgent)
        pipeline.set(keys.image(identifier), new.image, ex=keys.UNENDED_JOB_TTL_S)
        run = runs.NewRun(
            job_id=identifier,
            model=self._model,
            record=record,
            image_bytes=len(new.image),
            rq_commands=[command for command, _ in pipeline.command_stack],
            cache_field=new.cache_field,
            is_urgent=new.is_urgent,
        )
        return runs.enqueue(run, self._limits)


def read_answer(answer: Any) -> UUID | None:
    """Return the ID of the job that a queued job follows, because that one runs the same image; None if it runs itself.

    Raises:
        ResultCached: the image's result came into the cache.
        QueueFull: `max_depth` jobs wait, Redis holds `max_bytes` of images, or too many jobs follow others.
        TooManyDeliveries: the job has a webhook, and too many webhooks are pending or promised.

    After an error, nothing was queued.
    """
    match answer:
        case b"cached":
            raise ResultCached
        case b"deliveries":
            raise TooManyDeliveries
        case [what, count, half_gone_s]:
            retry_after_s = max(min(half_gone_s, MAX_RETRY_AFTER_S), 1)
            raise QueueFull(
                "" if what == b"images" else FOLLOWERS_FULL.format(count=count, retry_after_s=retry_after_s),
                depth=count,
                retry_after_s=retry_after_s,
            )
        case bytes():
            return UUID(answer.decode())
    return None
