"""Submitting many images in one request: each becomes a job with its own result or error."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar
from uuid import UUID, uuid4

import structlog

from image_analysis_api.intake.image import ImageReader
from image_analysis_api.intake.submissions import Submission
from image_analysis_api.jobs.acceptance import Acceptance
from image_analysis_api.jobs.classifier_records import ClassifierRecords
from image_analysis_api.jobs.position import Positions
from image_analysis_api.jobs.queue import NewJob, new_job, refuse
from image_analysis_api.jobs.records import JobRecords
from image_analysis_api.outbound.fetcher import Hold
from image_analysis_api.responses import AnalysisStatus, BatchStatus
from image_analysis_common.errors import BatchNotFound, BatchTooLarge, RequestError, ServiceError, Unavailable
from image_analysis_common.images import image_digest

T = TypeVar("T")

MAX_FETCHES = 16
"""How many images of one batch are fetched at once, so that one batch cannot use up all concurrent fetches."""

BUSY_WAIT_S = 8.0
"""How long an image of a batch is tried again while fetches or memory are used up. With a fetch after that, it must end
within the time that a claim of an Idempotency-Key has for one image."""

BUSY_RETRY_S = 0.25
"""The first wait of these; each further one is twice as long, because a retry may fetch the same bytes again."""


def parse_batch_id(batch_id: str) -> UUID:
    """Read a batch's ID.

    Raises:
        RequestError: it is not a UUID.
    """
    try:
        return UUID(batch_id)
    except ValueError as error:
        raise RequestError("batch_id must be a UUID, as POST /analyze-images returned it.") from error


async def fingerprint(submissions: Sequence[Submission]) -> str:
    """Hash a batch, from the `Submission.fingerprint` of each image."""
    return image_digest("".join([await submission.fingerprint() for submission in submissions]).encode())


async def read_all(reads: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return what all of them return; an error ends the others, too.

    A fetch that outlived its request would count its bytes against the budget of all bodies without an end.
    """
    tasks = list(map(asyncio.ensure_future, reads))
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class BatchReader:
    """Reads the images of one request, within a number of bytes for all of them together."""

    def __init__(self, reader: ImageReader, client: str, hold: Hold, max_bytes: int) -> None:
        """Count concurrent fetches for `client`. `hold` counts the bytes of fetched images, and may raise an error."""
        self._reader = reader
        self._client = client
        self._hold = hold
        self._room_bytes = max_bytes
        self._fetches = asyncio.Semaphore(MAX_FETCHES)

    async def read(self, submission: Submission, too_large: str) -> tuple[bytes, str]:
        """Return an image and its SHA-256.

        Raises:
            BatchTooLarge: there is no room for it; `too_large` is the sentence.
            Unavailable: fetches or memory have been used up for `BUSY_WAIT_S`; nothing is wrong with the image.
            ServiceError: it was refused for another reason.
        """
        async with self._fetches:
            image, digest = await self._read_patiently(submission)
        if len(image) > self._room_bytes:
            raise BatchTooLarge(too_large)
        self._room_bytes -= len(image)
        return image, digest

    async def _read_patiently(self, submission: Submission) -> tuple[bytes, str]:
        """Read an image, again if only the load of the service refuses it."""
        loop, pause_s = asyncio.get_running_loop(), BUSY_RETRY_S
        until_s = loop.time() + BUSY_WAIT_S
        while True:
            try:
                return await self._reader.read(submission, self._client, self._hold)
            except Unavailable:
                if loop.time() + pause_s > until_s:
                    raise
            await asyncio.sleep(pause_s)
            pause_s *= 2


class Batches:
    """Submits batches and reads them."""

    def __init__(
        self,
        image_reader: ImageReader,
        acceptance: Acceptance,
        records: JobRecords,
        positions: Positions,
        classifiers: ClassifierRecords,
        *,
        max_bytes: int,
    ) -> None:
        self._classifiers = classifiers
        self._image_reader = image_reader
        self._acceptance = acceptance
        self._records = records
        self._positions = positions
        self._max_bytes = max_bytes

    async def submit(
        self,
        batch_id: UUID,
        submissions: Sequence[Submission],
        owner: str | None,
        client: str,
        hold: Hold,
    ) -> tuple[BatchStatus, bool]:
        """Submit an owner's images under a new ID; return also whether they wait for a model without a live worker.

        `client` is the owner or address whose concurrent fetches are counted. `hold` counts the bytes of fetched
        images; an error that it raises for long refuses the batch.

        Raises:
            WebhooksDisabled, UrlRefused, TooManyDeliveries: no webhook can be sent to their URL.
            ModelNotFound: their model is not known.
            ClassifierNotFound, ClassifierOutdated: the classifier in their options cannot answer.
            LabelsNotSupported, LabelsRequired: their model cannot answer their question, or needs one.
            EmbeddingsNotSupported: they ask for an embedding, and the model has none.
            Unavailable: fetches or memory are used up; nothing was accepted.
            QueueFull, TooManyDeliveries: every image was refused, at least one of them for this reason.
            StoreUnavailable: it is not known whether the batch was accepted.
        """
        structlog.contextvars.bind_contextvars(batch_id=str(batch_id))
        options = submissions[0].options  # the same for all of them
        await self._acceptance.check_webhook(options)
        options, classifier = await self._classifiers.resolve(options, owner)
        await self._acceptance.check_model(options)

        def make(job_id: UUID, image: bytes, digest: str) -> NewJob:
            return new_job(job_id, image, digest, options, owner, classifier)

        read = await self._read(submissions, client, hold, make)
        jobs, lacks_worker = await self._acceptance.accept_batch(read, batch_id)
        statuses = [AnalysisStatus.of(job.job_id, job.record) for job in jobs]
        return BatchStatus.of(batch_id, len(jobs), statuses), lacks_worker

    async def replay(self, batch_id: UUID, owner: str | None) -> BatchStatus:
        """Read a batch that was submitted before, and confirm it like a new one.

        Raises:
            BatchNotFound, UnreadableRecord, StoreUnavailable
        """
        answer = await self.status(batch_id, owner)
        await self._acceptance.confirm([job.job_id for job in answer.jobs], batch_id)
        return answer

    async def status(self, batch_id: UUID, owner: str | None) -> BatchStatus:
        """Read the jobs of an owner's batch.

        Raises:
            BatchNotFound: it does not exist, none of its jobs is left, or it has another owner.
            UnreadableRecord: another release wrote its record, or the records of all jobs that are left.
        """
        batch = await self._records.find_batch(batch_id)
        if batch is None or batch.owner != owner:
            raise BatchNotFound
        found = await self._positions.find_all(batch.job_ids)
        if not found:
            raise BatchNotFound
        statuses = [AnalysisStatus.of(job_id, *job) for job_id, job in found.items()]
        return BatchStatus.of(batch_id, len(batch.job_ids), statuses)

    async def _read(
        self,
        submissions: Sequence[Submission],
        client: str,
        hold: Hold,
        make: Callable[[UUID, bytes, str], NewJob],
    ) -> list[NewJob]:
        """Read every image and make its job; the job of one that is refused has ended.

        Raises:
            Unavailable: an image could not be read because of the load of the service.
        """
        reader = BatchReader(self._image_reader, client, hold, self._max_bytes)
        too_large = f"The batch has more than {self._max_bytes} bytes: send several batches."

        async def read(submission: Submission) -> NewJob:
            job_id = uuid4()
            try:
                image, digest = await reader.read(submission, too_large)
            except Unavailable:
                raise  # a job that failed for this reason would stay so when the batch is repeated with its key
            except ServiceError as error:
                return refuse(make(job_id, b"", ""), error)
            return make(job_id, image, digest)

        return await read_all(map(read, submissions))
