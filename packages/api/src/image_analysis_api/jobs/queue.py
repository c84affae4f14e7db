"""Queues jobs with RQ: one script writes the image, the job's record and RQ's job, or nothing."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

import redis
from redis.asyncio import Redis
from rq import Queue, Retry

from image_analysis_api.intake.schemas import Options, Priority
from image_analysis_api.outbound.webhook_urls import MAX_DELIVERIES
from image_analysis_common import keys, rq_keys, tasks, tracing
from image_analysis_common.classifiers import ClassifierRef
from image_analysis_common.errors import QueueFull, ServiceError, TooManyDeliveries
from image_analysis_common.logs import request_id
from image_analysis_common.models import JobFailure, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts import runs
from image_analysis_common.scripts.limits import NO_QUOTA, Quota
from image_analysis_common.scripts.source import ScriptCall

MAX_RETRY_AFTER_S = 300
"""The longest `Retry-After`, however slow the queue is: more workers may start."""

FOLLOWERS_FULL = (
    "{count} jobs wait for images that others sent, and no more are accepted: try again in {retry_after_s} s."
)
FOLLOWERS_PER_PLACE = 10
"""At most this many times `max_depth` jobs follow others; the record of each takes half a kB of Redis,
and as much as its labels if it has any."""

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


def new_job(
    job_id: UUID,
    image: bytes,
    digest: str,
    options: Options,
    owner: str | None,
    classifier: ClassifierRef | None = None,
) -> NewJob:
    """Make the job of an image before its acceptance; `classifier` is the version of the one in the options."""
    record = JobRecord(
        status=JobStatus.PENDING,
        image_hash=digest,
        owner=owner,
        model=options.model,
        top_k=options.top_k,
        min_confidence=options.min_confidence,
        webhook_url=options.webhook_url,
        question=options.question,
        embedding=bool(options.embedding),
        classifier=classifier,
    )
    return NewJob(job_id, image, record, request_id(), is_urgent=options.priority is Priority.HIGH)


def refuse(job: NewJob, error: ServiceError) -> NewJob:
    """End a job as FAILED before it is queued."""
    return replace(job, record=job.record.model_copy(update={"status": JobStatus.FAILED, "error": failure(error)}))


def failure(error: ServiceError) -> JobFailure:
    """Return an error as the record of a failed job has it."""
    return JobFailure(code=error.code, detail=error.detail)


class ResultCached(Exception):
    """The image was not queued, because its result came into the cache: read it there."""


class RqCommands:
    """The commands with which RQ queues a job.

    RQ writes them once for a placeholder, and each job replaces the words that differ: RQ takes 0.3 ms for a job, most
    of it for zlib's buffers, and this takes 0.01 ms.
    """

    PLACEHOLDER = "00000000-0000-0000-0000-000000000000"

    def __init__(self, queue_name: str, *, job_timeout_s: int, at_front: bool) -> None:
        # RQ requires a connection and the server's version, but sends nothing.
        connection = redis.Redis()
        queue = Queue(queue_name, connection=connection, serializer=tasks.SERIALIZER)
        queue.redis_server_version = (6, 2, 0)
        job = queue.create_job(
            tasks.ANALYZE_IMAGE,
            kwargs={"job_id": self.PLACEHOLDER},
            job_id=self.PLACEHOLDER,
            timeout=job_timeout_s,
            ttl=keys.UNENDED_JOB_TTL_S,
            result_ttl=keys.FINISHED_JOB_TTL_S,
            failure_ttl=keys.ENDED_JOB_TTL_S,
            retry=Retry(max=tasks.MAX_ATTEMPTS, enqueue_at_front=True),
            description="",
            meta={"request_id": ""},
        )
        self._data, self._serializer = job.data.split(self.PLACEHOLDER.encode()), queue.serializer
        pipeline = connection.pipeline()  # is never sent
        queue.enqueue_job(job, pipeline=pipeline, at_front=at_front)
        self._words: list[Any] = []
        for command, _ in pipeline.command_stack:
            self._words += (len(command), *command)
        self._ids = [
            (index, word.partition(self.PLACEHOLDER))
            for index, word in enumerate(self._words)
            if isinstance(word, str) and self.PLACEHOLDER in word
        ]
        names = ("created_at", "enqueued_at", "data", "description", "meta")
        self._fields = {name: self._words.index(name) + 1 for name in names}

    def words(self, job_id: str, description: str, meta: Mapping[str, str]) -> list[Any]:
        """Return the commands for a job, each preceded by its number of words."""
        words, fields = self._words.copy(), self._fields
        for index, (start, _, end) in self._ids:
            words[index] = f"{start}{job_id}{end}"
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        words[fields["created_at"]] = words[fields["enqueued_at"]] = now.removesuffix("+00:00") + "Z"
        words[fields["data"]] = _compress(job_id.encode().join(self._data))
        words[fields["description"]] = description
        words[fields["meta"]] = self._serializer.dumps(meta)
        return words


def _compress(data: bytes) -> bytes:
    """Put data into zlib's format as RQ does, but uncompressed: that takes a microsecond instead of six."""
    compressor = zlib.compressobj(zlib.Z_NO_COMPRESSION, wbits=9, memLevel=1)
    return compressor.compress(data) + compressor.flush()


class JobQueue:
    """The queue of one model; `key` is its key in Redis."""

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
        self._limits = runs.QueueLimits(
            depth=max_depth,
            image_bytes=max_bytes,
            followers=FOLLOWERS_PER_PLACE * max_depth,
            deliveries=MAX_DELIVERIES,
            waiting_s=waiting_s,
        )
        self.key = rq_keys.QUEUE + tasks.queue_name(model)
        self._commands = {
            at_front: RqCommands(tasks.queue_name(model), job_timeout_s=job_timeout_s, at_front=at_front)
            for at_front in (False, True)
        }

    @classmethod
    def factory(cls, connection: Redis, default_model: str, **limits: int) -> "QueueOf":
        """Return a function that gives each model's queue, and the default model's for None."""

        @cache
        def queue_of(model: str | None) -> JobQueue:
            return cls(connection, model or default_model, **limits)

        return queue_of

    def call(
        self,
        new: NewJob,
        quota: Quota = NO_QUOTA,
        known: runs.KnownModel | None = None,
    ) -> ScriptCall:
        """Make the script call that queues an image; `read_answer` reads its answer.

        It counts the request if there is a quota, and looks for the image's result if the model is known.
        """
        identifier, record = str(new.job_id), new.record
        run = runs.NewRun(
            job_id=identifier,
            model=self._model,
            record=record,
            image_bytes=len(new.image),
            rq_words=self._words(new),
            cache_field=new.cache_field,
            is_urgent=new.is_urgent,
        )
        return runs.enqueue(run, self._limits, quota, known)

    def _words(self, new: NewJob) -> list[Any]:
        identifier = str(new.job_id)
        meta = {"request_id": new.request_id, **tracing.traceparent()}
        words = self._commands[new.is_urgent].words(identifier, f"image {new.record.image_hash[:12]}", meta)
        return [*words, 5, "SET", keys.image(identifier), new.image, "EX", keys.UNENDED_JOB_TTL_S]


def read_answer(answer: Any) -> UUID | None:
    """Return the ID of the job that a queued job follows, because that one runs the same image; None if it runs itself.

    Raises:
        ResultCached: the image's result came into the cache.
        QueueFull: `max_depth` jobs wait, Redis holds `max_bytes` of images, or too many jobs follow others.
        TooManyDeliveries: the job has a webhook, and too many webhooks are pending or promised.

    After an error, nothing was queued.
    """
    match answer[0]:
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
        case bytes() as leader:
            return UUID(leader.decode())
    return None
