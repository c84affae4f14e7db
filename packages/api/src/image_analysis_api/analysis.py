"""The use case: an image comes in and becomes a job or a cached answer; a job is asked for."""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID, uuid4

import structlog

from image_analysis_api.fetch import Fetcher
from image_analysis_api.intake import check_image, decode_base64
from image_analysis_api.queue import JobQueue, ResultKnown
from image_analysis_api.schemas import AnalysisStatus, AnalyzeImageRequest
from image_analysis_api.settings import ApiSettings
from image_analysis_api.store import Store
from image_analysis_common.errors import JobNotFound, RequestError
from image_analysis_common.images import image_digest
from image_analysis_common.logs import request_id
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord

LARGE_BYTES = 256 * 1024
"""Above this, parsing, decoding and hashing take milliseconds: a thread does them, the event loop serves others."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


async def _run(function: Callable[..., T], *arguments: object, size_bytes: int) -> T:
    if size_bytes < LARGE_BYTES:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)


class Analysis:
    """Takes images in and answers for jobs."""

    def __init__(self, settings: ApiSettings, store: Store, queue: JobQueue, fetcher: Fetcher) -> None:
        self._settings = settings
        self._store = store
        self._queue = queue
        self._fetcher = fetcher

    async def submit(self, body: bytes, owner: str | None) -> AnalysisStatus:
        """Take in an owner's request body: the status is COMPLETED where the result was known, PENDING otherwise.

        Raises:
            RequestError: whatever is wrong with the request.
            Unavailable: the job was not taken in.
        """
        request = await _run(AnalyzeImageRequest.parse, body, size_bytes=len(body))
        image, digest = await self._read(request)
        job_id = uuid4()
        structlog.contextvars.bind_contextvars(job_id=str(job_id))
        field, cached = await self._store.find_result(digest)
        if cached is None:
            try:
                return await self._enqueue(job_id, image, digest, owner, field)
            except ResultKnown:
                _, cached = await self._store.find_result(digest)
            if cached is None:  # It was forgotten in this very moment.
                return await self._enqueue(job_id, image, digest, owner, "")
        record = JobRecord(
            status=JobStatus.COMPLETED,
            image_hash=digest,
            owner=owner,
            cached=True,
            result=cached.result,
            processing_time_ms=cached.processing_time_ms,
        )
        await self._store.add_record(job_id, record)
        log.info("result_found", image_hash=digest, image_bytes=len(image))
        return AnalysisStatus.of(job_id, record)

    async def _enqueue(
        self, job_id: UUID, image: bytes, digest: str, owner: str | None, cache_field: str
    ) -> AnalysisStatus:
        record = JobRecord(status=JobStatus.PENDING, image_hash=digest, owner=owner)
        leading = await self._queue.enqueue(job_id, image, record, request_id=request_id(), cache_field=cache_field)
        follows = {"follows": str(leading)} if leading else {}
        log.info("job_enqueued", image_hash=digest, image_bytes=len(image), **follows)
        return AnalysisStatus.of(job_id, record)

    async def _read(self, request: AnalyzeImageRequest) -> tuple[bytes, str]:
        """Return the image's bytes and their digest, once they look like an image."""
        settings = self._settings

        def examine(image: bytes) -> str:
            check_image(image, settings.max_image_pixels)
            return image_digest(image)

        if request.image_data is not None:
            size_bytes = len(request.image_data)
            image = await _run(decode_base64, request.image_data, settings.max_image_bytes, size_bytes=size_bytes)
        else:
            image = await self._fetcher.fetch(request.image_url or "")
        return image, await _run(examine, image, size_bytes=len(image))

    async def status(self, job_id: str, owner: str | None) -> AnalysisStatus:
        """Answer for a job to the owner that it was taken in for, and to nobody else.

        Raises:
            RequestError: the ID is no UUID.
            JobNotFound: it never existed, has expired, or is another's.
        """
        try:
            identifier = UUID(job_id)
        except ValueError as error:
            raise RequestError("job_id must be a UUID, as POST /analyze-image returned it.") from error
        record = await self._store.find_record(identifier)
        if record is None or record.owner != owner:
            raise JobNotFound("There is no such job: it never existed, or its answer has expired.")
        return AnalysisStatus.of(identifier, record)
