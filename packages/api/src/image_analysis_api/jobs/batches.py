"""Submitting many images in one request: each becomes a job with its own result or error."""

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID, uuid4

import structlog

from image_analysis_api.intake.image import ImageReader
from image_analysis_api.intake.submissions import Submission
from image_analysis_api.jobs.acceptance import Acceptance, new_job, refuse
from image_analysis_api.jobs.position import Positions
from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.jobs.records import JobRecords
from image_analysis_api.responses import AnalysisStatus, BatchStatus
from image_analysis_common.errors import BatchNotFound, BatchTooLarge, RequestError, ServiceError
from image_analysis_common.images import image_digest

MAX_FETCHES = 16
"""How many images of one batch are fetched at once, so that one batch cannot use up all concurrent fetches."""


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


class Batches:
    """Submits batches and reads them."""

    def __init__(
        self,
        image_reader: ImageReader,
        acceptance: Acceptance,
        records: JobRecords,
        positions: Positions,
        *,
        max_bytes: int,
    ) -> None:
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
        hold: Callable[[int], None],
    ) -> tuple[BatchStatus, bool]:
        """Submit an owner's images under a new ID; return also whether they wait for a model without a live worker.

        `client` is the owner or address whose concurrent fetches are counted. `hold` counts the bytes of fetched
        images; an error that it raises refuses the image.

        Raises:
            WebhooksDisabled, UrlRefused, TooManyDeliveries: no webhook can be sent to their URL.
            ModelNotFound: their model is not known.
            QueueFull, TooManyDeliveries: every image was refused, at least one of them for this reason.
            StoreUnavailable: nothing was accepted.
        """
        structlog.contextvars.bind_contextvars(batch_id=str(batch_id))
        options = submissions[0].options  # the same for all of them
        await self._acceptance.check_webhook(options)
        await self._acceptance.check_model(options)
        jobs, lacks_worker = await self._acceptance.accept(await self._read(submissions, owner, client, hold), batch_id)
        statuses = [AnalysisStatus.of(job.job_id, job.record) for job in jobs]
        return BatchStatus.of(batch_id, len(jobs), statuses), lacks_worker

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
        statuses = [AnalysisStatus.of(job_id, *place) for job_id, place in found.items()]
        return BatchStatus.of(batch_id, len(batch.job_ids), statuses)

    async def _read(
        self, submissions: Sequence[Submission], owner: str | None, client: str, hold: Callable[[int], None]
    ) -> list[NewJob]:
        """Read every image; the job of one that is refused has ended."""
        room_bytes, fetches = self._max_bytes, asyncio.Semaphore(MAX_FETCHES)

        async def read(submission: Submission) -> NewJob:
            nonlocal room_bytes
            job_id = uuid4()
            try:
                async with fetches:
                    image, digest = await self._image_reader.read(submission, client)
                if submission.image_url is not None:
                    hold(len(image))
                if len(image) > room_bytes:
                    raise BatchTooLarge(f"The batch has more than {self._max_bytes} bytes: send several batches.")
            except ServiceError as error:
                return refuse(new_job(job_id, b"", "", submission.options, owner), error)
            room_bytes -= len(image)
            return new_job(job_id, image, digest, submission.options, owner)

        return await asyncio.gather(*map(read, submissions))
