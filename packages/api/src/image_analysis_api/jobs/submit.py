"""The use case: an image comes in and becomes a job or a cached answer; a job is asked for."""

from typing import NamedTuple
from uuid import UUID

import structlog

from image_analysis_api.intake.image import check_image, decode_base64
from image_analysis_api.intake.offload import run
from image_analysis_api.intake.schemas import Options, Priority
from image_analysis_api.intake.submissions import Submission
from image_analysis_api.jobs.model_registry import ModelRegistry
from image_analysis_api.jobs.position import Positions
from image_analysis_api.jobs.queue import NewJob, QueueOf, ResultKnown
from image_analysis_api.jobs.records import JobRecords
from image_analysis_api.metrics import SUBMISSIONS
from image_analysis_api.outbound.fetcher import Fetcher
from image_analysis_api.outbound.webhook_urls import WebhookUrls
from image_analysis_api.responses import AnalysisStatus
from image_analysis_api.settings import ApiSettings
from image_analysis_common.errors import ImageTooLarge, JobNotFound, RequestError
from image_analysis_common.images import image_digest
from image_analysis_common.logs import request_id
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord

log = structlog.get_logger(__name__)


class Taken(NamedTuple):
    """A job as it was taken in, and whether it waits for a model that has no worker now."""

    job: AnalysisStatus
    lacks_worker: bool = False


def parse_job_id(job_id: str) -> UUID:
    """Read a job's ID.

    Raises:
        RequestError: it is no UUID.
    """
    try:
        return UUID(job_id)
    except ValueError as error:
        raise RequestError("job_id must be a UUID, as POST /analyze-image returned it.") from error


def new_record(digest: str, options: Options, owner: str | None) -> JobRecord:
    """Make the record of an image that is taken in."""
    return JobRecord(
        status=JobStatus.PENDING,
        image_hash=digest,
        owner=owner,
        model=options.model,
        top_k=options.top_k,
        min_confidence=options.min_confidence,
        webhook_url=options.webhook_url,
    )


def note_enqueued(new: NewJob, leading: UUID | None) -> None:
    """Count and log an image that waits for a worker, or for the job that runs it already."""
    SUBMISSIONS.labels("coalesced" if leading else "queued").inc()
    image = {"image_hash": new.record.image_hash, "image_bytes": len(new.image)}
    log.info("job_enqueued", job_id=str(new.job_id), **image, **({"follows": str(leading)} if leading else {}))


def note_cached(job_id: UUID, record: JobRecord, image: bytes) -> None:
    """Count and log an image whose result was known."""
    SUBMISSIONS.labels("cached").inc()
    log.info("result_found", job_id=str(job_id), image_hash=record.image_hash, image_bytes=len(image))


class Analyses:
    """Takes images in and answers for jobs."""

    def __init__(
        self,
        settings: ApiSettings,
        store: JobRecords,
        model_registry: ModelRegistry,
        queue_of: QueueOf,
        fetcher: Fetcher,
        positions: Positions,
        webhook_urls: WebhookUrls,
    ) -> None:
        self._settings = settings
        self._store = store
        self._model_registry = model_registry
        self._queue_of = queue_of
        self._fetcher = fetcher
        self._positions = positions
        self._webhook_urls = webhook_urls

    async def submit(self, job_id: UUID, submission: Submission, owner: str | None, client: str) -> Taken:
        """Take in an owner's image under a new ID: its status is COMPLETED if the result was known, else PENDING.

        `client` is who has a share of what is fetched at once.

        Raises:
            RequestError: whatever is wrong with the request.
            Unavailable: the job was not taken in.
        """
        await self.check_webhook(submission.options)
        image, digest = await self.read(submission, client)
        structlog.contextvars.bind_contextvars(job_id=str(job_id))
        record = new_record(digest, submission.options, owner)
        is_urgent = submission.options.priority is Priority.HIGH
        record, lacks_worker = await self.take_in(job_id, image, record, is_urgent=is_urgent)
        return Taken(AnalysisStatus.of(job_id, record), lacks_worker)

    async def check_webhook(self, options: Options) -> None:
        """Check that a job's end can be told where its options say, if they do.

        Raises:
            WebhooksDisabled, UrlRefused, TooManyDeliveries
        """
        if options.webhook_url is not None:
            await self._webhook_urls.check(options.webhook_url)

    async def take_in(
        self, job_id: UUID, image: bytes, record: JobRecord, *, is_urgent: bool
    ) -> tuple[JobRecord, bool]:
        """Do the part of `submit` that comes after the image was read; say whether its model has no worker now."""
        found = await self._store.find_result(record.image_hash, record.model, is_deep=record.is_deep)
        if record.model and not found.is_known:
            await self._model_registry.check(record.model)
        cached, lacks_worker = found.cached, found.is_known and not found.has_worker
        if cached is None:
            try:
                await self._enqueue(job_id, image, record, found.field, is_urgent)
                return record, lacks_worker
            except ResultKnown:
                found = await self._store.find_result(record.image_hash, record.model, is_deep=record.is_deep)
                cached = found.cached
            if cached is None:  # It was forgotten in this very moment.
                await self._enqueue(job_id, image, record, "", is_urgent)
                return record, lacks_worker
        record = record.completed_from(cached)
        await self._store.add_record(job_id, record)
        note_cached(job_id, record, image)
        return record, False

    async def replay(self, job_id: UUID, owner: str | None) -> Taken:
        """Answer for a job as when it was taken in."""
        record = await self._record(job_id, owner)
        known = record if record.cached else record.model_copy(update={"status": JobStatus.PENDING, "result": None})
        return Taken(AnalysisStatus.of(job_id, known))

    async def _enqueue(self, job_id: UUID, image: bytes, record: JobRecord, cache_field: str, is_urgent: bool) -> None:
        new = NewJob(job_id, image, record, request_id(), cache_field, is_urgent)
        note_enqueued(new, await self._queue_of(record.model).enqueue(new))

    async def read(self, submission: Submission, client: str) -> tuple[bytes, str]:
        """Return the image's bytes and their digest, once they look like an image.

        Raises:
            RequestError: they do not, or cannot be had.
            Unavailable: too many are being fetched.
        """
        settings = self._settings

        def examine(image: bytes) -> str:
            check_image(image, settings.max_image_pixels)
            return image_digest(image)

        if submission.image_data is not None:
            size_bytes = len(submission.image_data)
            image = await run(decode_base64, submission.image_data, settings.max_image_bytes, size_bytes=size_bytes)
        elif submission.image is not None:
            image = submission.image
            if len(image) > settings.max_image_bytes:
                raise ImageTooLarge(size=len(image), unit="bytes", limit=settings.max_image_bytes)
        else:
            image = await self._fetcher.fetch(submission.image_url or "", client)
        return image, await run(examine, image, size_bytes=len(image))

    async def status(self, job_id: UUID, owner: str | None) -> AnalysisStatus:
        """Answer for a job to the owner that it was taken in for, and to nobody else.

        Raises:
            JobNotFound: it never existed, has expired, or is another's.
        """
        found = await self._positions.find(job_id)
        if found is None or found[0].owner != owner:
            raise JobNotFound
        return AnalysisStatus.of(job_id, *found)

    async def _record(self, job_id: UUID, owner: str | None) -> JobRecord:
        record = await self._store.find_record(job_id)
        if record is None or record.owner != owner:
            raise JobNotFound
        return record
