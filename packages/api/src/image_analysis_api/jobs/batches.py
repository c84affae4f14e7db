"""The use case of many images in one request: each becomes a job of its own, with its own verdict."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

import structlog
from redis.asyncio import Redis

from image_analysis_api.intake.schemas import Priority
from image_analysis_api.intake.submissions import Submission
from image_analysis_api.jobs.model_registry import ModelRegistry
from image_analysis_api.jobs.position import Positions
from image_analysis_api.jobs.queue import NewJob, QueueOf, ResultKnown, read_answer
from image_analysis_api.jobs.records import JobRecords, write_ended
from image_analysis_api.jobs.submit import Analyses, new_record, note_cached, note_enqueued
from image_analysis_api.metrics import SUBMISSIONS
from image_analysis_api.responses import AnalysisStatus, BatchStatus
from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys
from image_analysis_common.errors import (
    BatchNotFound,
    BatchTooLarge,
    QueueFull,
    RequestError,
    ServiceError,
    TooManyDeliveries,
)
from image_analysis_common.images import image_digest
from image_analysis_common.logs import request_id
from image_analysis_common.models import FrozenModel, JobFailure, JobStatus
from image_analysis_common.records import JobRecord, read_json

MAX_FETCHES = 16
"""So many images of one batch are fetched at once: a batch must not take every fetch that there may be."""

LIFETIME_S = keys.WAITING_JOB_TTL_S + keys.ENDED_JOB_TTL_S
log = structlog.get_logger(__name__)


def parse_batch_id(batch_id: str) -> UUID:
    """Read a batch's ID.

    Raises:
        RequestError: it is no UUID.
    """
    try:
        return UUID(batch_id)
    except ValueError as error:
        raise RequestError("batch_id must be a UUID, as POST /analyze-images returned it.") from error


class BatchRecord(FrozenModel):
    """The jobs that came in one request, in the order of their images."""

    owner: str | None
    job_ids: tuple[UUID, ...]


@dataclass
class Entry:
    """One image of a batch on its way to a job."""

    job_id: UUID
    record: JobRecord
    image: bytes = b""
    cache_field: str = ""

    def new_job(self, *, is_urgent: bool) -> NewJob:
        return NewJob(self.job_id, self.image, self.record, request_id(), self.cache_field, is_urgent)

    def refuse(self, error: ServiceError) -> None:
        """Let the job end before it has begun."""
        failure = JobFailure(code=error.code, detail=error.detail)
        self.record = self.record.model_copy(update={"status": JobStatus.FAILED, "error": failure})

    def note(self) -> None:
        """Count and log what has ended as it came."""
        if self.record.error is None:
            note_cached(self.job_id, self.record, self.image)
        else:
            SUBMISSIONS.labels("refused").inc()
            log.info("image_refused", job_id=str(self.job_id), code=self.record.error.code)


async def fingerprint(submissions: Sequence[Submission]) -> str:
    """Tell a batch from any other, as `Submission.fingerprint` does an image."""
    return image_digest("".join([await submission.fingerprint() for submission in submissions]).encode())


class Batches:
    """Takes batches in and answers for them."""

    def __init__(
        self,
        redis: Redis,
        store: JobRecords,
        model_registry: ModelRegistry,
        queue_of: QueueOf,
        analysis: Analyses,
        positions: Positions,
        *,
        max_bytes: int,
    ) -> None:
        self._redis = redis
        self._store = store
        self._model_registry = model_registry
        self._queue_of = queue_of
        self._analysis = analysis
        self._positions = positions
        self._max_bytes = max_bytes

    async def submit(
        self,
        batch_id: UUID,
        submissions: Sequence[Submission],
        owner: str | None,
        client: str,
        hold: Callable[[int], None],
    ) -> tuple[BatchStatus, bool]:
        """Take in an owner's images under a new ID; say whether they wait for a model that has no worker now.

        What can be queued is queued in one transaction, with the batch. `client` is who has a share of what is fetched
        at once; `hold` counts the bytes that are fetched and kept, and may refuse them.

        Raises:
            WebhooksDisabled, UrlRefused, TooManyDeliveries: their ends cannot be told where they ask for it.
            ModelNotFound: there is no such model as they ask for.
            QueueFull, TooManyDeliveries: not one of them could be queued.
            StoreUnavailable: nothing was taken in.
        """
        structlog.contextvars.bind_contextvars(batch_id=str(batch_id))
        options = submissions[0].options
        await self._analysis.check_webhook(options)
        if options.model:
            await self._model_registry.check(options.model)
        entries = await self._read(submissions, owner, client, hold)
        wanted = [entry for entry in entries if not entry.record.status.is_final]
        findings = await asyncio.gather(
            *(
                self._store.find_result(entry.record.image_hash, entry.record.model, is_deep=entry.record.is_deep)
                for entry in wanted
            )
        )
        for entry, found in zip(wanted, findings, strict=True):
            entry.cache_field = found.field
            if found.cached:
                entry.record = entry.record.completed_from(found.cached)
        await self._queue(batch_id, entries, owner, is_urgent=options.priority is Priority.HIGH)
        lacks_worker = any(found.is_known and not found.has_worker for found in findings if not found.cached)
        jobs = [AnalysisStatus.of(entry.job_id, entry.record) for entry in entries]
        return BatchStatus.of(batch_id, len(entries), jobs), lacks_worker

    async def status(self, batch_id: UUID, owner: str | None) -> BatchStatus:
        """Answer for a batch to the owner that it was taken in for, and to nobody else.

        Raises:
            BatchNotFound: it never existed, none of its jobs is known any more, or it is another's.
            UnreadableRecord: another release wrote it, or every job of it that is known.
        """
        async with reaching_redis():
            found = await self._redis.get(keys.batch(str(batch_id)))
        batch = read_json(BatchRecord, found) if found else None
        if batch is None or batch.owner != owner:
            raise BatchNotFound
        jobs = [
            AnalysisStatus.of(job_id, *place)
            for job_id, place in (await self._positions.find_all(batch.job_ids)).items()
        ]
        if not jobs:
            raise BatchNotFound
        return BatchStatus.of(batch_id, len(batch.job_ids), jobs)

    async def _read(
        self, submissions: Sequence[Submission], owner: str | None, client: str, hold: Callable[[int], None]
    ) -> list[Entry]:
        """Read every image; what is wrong with one of them is its own verdict."""
        room_bytes, fetches = self._max_bytes, asyncio.Semaphore(MAX_FETCHES)

        async def read(submission: Submission) -> Entry:
            nonlocal room_bytes
            entry = Entry(uuid4(), new_record("", submission.options, owner))
            try:
                async with fetches:
                    image, digest = await self._analysis.read(submission, client)
                if submission.image_url is not None:
                    hold(len(image))
                if len(image) > room_bytes:
                    raise BatchTooLarge(f"The batch has more than {self._max_bytes} bytes: send several batches.")
            except ServiceError as error:
                entry.refuse(error)
            else:
                room_bytes -= len(image)
                entry.image, entry.record = image, new_record(digest, submission.options, owner)
            return entry

        return await asyncio.gather(*map(read, submissions))

    async def _queue(self, batch_id: UUID, entries: Sequence[Entry], owner: str | None, *, is_urgent: bool) -> None:
        """Queue what can be queued, note what has ended as it came; the entries tell in the end what became of them."""
        batch = BatchRecord(owner=owner, job_ids=tuple(entry.job_id for entry in entries))
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.set(keys.batch(str(batch_id)), batch.model_dump_json(), ex=LIFETIME_S)
            for entry in entries:
                if entry.record.status.is_final:
                    write_ended(pipeline, entry.job_id, entry.record)
                else:
                    self._queue_of(entry.record.model).write(pipeline, entry.new_job(is_urgent=is_urgent))
            async with reaching_redis():
                _, *answers = await pipeline.execute()
        overflow, full = list[Entry](), None
        for entry, answer in zip(entries, answers, strict=True):
            if entry.record.status.is_final:
                entry.note()
                continue
            try:
                try:
                    note_enqueued(entry.new_job(is_urgent=is_urgent), read_answer(answer))
                except ResultKnown:  # It came in this very moment: such an image goes the way of a single one.
                    entry.record, _ = await self._analysis.take_in(
                        entry.job_id, entry.image, entry.record, is_urgent=is_urgent
                    )
            except (QueueFull, TooManyDeliveries) as error:
                full = error
                entry.refuse(error)
                overflow.append(entry)
        if full:
            await self._refuse(batch_id, entries, overflow, full)

    async def _refuse(
        self, batch_id: UUID, entries: Sequence[Entry], overflow: Sequence[Entry], full: ServiceError
    ) -> None:
        """Note those that the queue had no room for; where nothing else came of the batch, forget it."""
        is_lost = all(entry.record.status is JobStatus.FAILED for entry in entries)
        async with self._redis.pipeline(transaction=True) as pipeline:
            if is_lost:
                job_ids = [str(entry.job_id) for entry in entries]
                pipeline.delete(keys.batch(str(batch_id)), *map(keys.job, job_ids), *map(keys.delivery, job_ids))
                pipeline.zrem(keys.DELIVERIES, *job_ids)
            else:
                for entry in overflow:
                    entry.note()
                    write_ended(pipeline, entry.job_id, entry.record)
            async with reaching_redis():
                await pipeline.execute()
        if is_lost:
            raise full
