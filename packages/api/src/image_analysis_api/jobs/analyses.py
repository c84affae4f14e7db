"""Submitting one image, and reading a job's status."""

from typing import NamedTuple
from uuid import UUID

import structlog

from image_analysis_api.intake.image import ImageReader
from image_analysis_api.intake.submissions import Submission
from image_analysis_api.jobs.acceptance import Acceptance, new_job
from image_analysis_api.jobs.position import Positions
from image_analysis_api.jobs.records import JobRecords
from image_analysis_api.responses import AnalysisStatus
from image_analysis_common.errors import JobNotFound, RequestError
from image_analysis_common.models import JobStatus


class SubmittedJob(NamedTuple):
    """A job as its submission left it, and whether it waits for a model that has no live worker."""

    job: AnalysisStatus
    lacks_worker: bool = False


def parse_job_id(job_id: str) -> UUID:
    """Read a job's ID.

    Raises:
        RequestError: it is not a UUID.
    """
    try:
        return UUID(job_id)
    except ValueError as error:
        raise RequestError("job_id must be a UUID, as POST /analyze-image returned it.") from error


class Analyses:
    """Submits single images and reads jobs."""

    def __init__(
        self, image_reader: ImageReader, acceptance: Acceptance, records: JobRecords, positions: Positions
    ) -> None:
        self._image_reader = image_reader
        self._acceptance = acceptance
        self._records = records
        self._positions = positions

    async def submit(self, job_id: UUID, submission: Submission, owner: str | None, client: str) -> SubmittedJob:
        """Submit an image under a new ID. The job is COMPLETED if the result was cached, otherwise PENDING.

        `client` is the owner or address whose concurrent fetches are counted.

        Raises:
            RequestError: something is wrong with the request.
            Unavailable: the job was not accepted.
        """
        await self._acceptance.check_webhook(submission.options)
        image, digest = await self._image_reader.read(submission, client)
        structlog.contextvars.bind_contextvars(job_id=str(job_id))
        [job], lacks_worker = await self._acceptance.accept([new_job(job_id, image, digest, submission.options, owner)])
        return SubmittedJob(AnalysisStatus.of(job_id, job.record), lacks_worker)

    async def replay(self, job_id: UUID, owner: str | None) -> SubmittedJob:
        """Return a job as its submission left it, whatever its status is now.

        Raises:
            JobNotFound: it does not exist, has expired, or has another owner.
        """
        record = await self._records.find_record(job_id)
        if record is None or record.owner != owner:
            raise JobNotFound
        first = record if record.cached else record.model_copy(update={"status": JobStatus.PENDING, "result": None})
        return SubmittedJob(AnalysisStatus.of(job_id, first))

    async def status(self, job_id: UUID, owner: str | None) -> AnalysisStatus:
        """Read the status of an owner's job.

        Raises:
            JobNotFound: it does not exist, has expired, or has another owner.
        """
        found = await self._positions.find(job_id)
        if found is None or found[0].owner != owner:
            raise JobNotFound
        return AnalysisStatus.of(job_id, *found)
