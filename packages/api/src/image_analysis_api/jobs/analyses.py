"""Submitting one image, and reading a job's status."""

from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

import structlog

from image_analysis_api.access.admission import Charge
from image_analysis_api.access.idempotency import Claim
from image_analysis_api.intake.image import ImageReader
from image_analysis_api.intake.submissions import Submission
from image_analysis_api.jobs.acceptance import Acceptance
from image_analysis_api.jobs.classifier_records import ClassifierRecords
from image_analysis_api.jobs.position import Positions
from image_analysis_api.jobs.queue import new_job
from image_analysis_api.jobs.records import JobRecords
from image_analysis_api.outbound.fetcher import Hold
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
        self,
        image_reader: ImageReader,
        acceptance: Acceptance,
        records: JobRecords,
        positions: Positions,
        classifiers: ClassifierRecords,
    ) -> None:
        self._classifiers = classifiers
        self._image_reader = image_reader
        self._acceptance = acceptance
        self._records = records
        self._positions = positions

    async def submit(
        self, claim: Claim, submission: Submission, charge: Charge, client: str, hold: Hold
    ) -> SubmittedJob:
        """Submit an image under the ID of a claim. The job is COMPLETED if the result was cached, otherwise PENDING.

        `client` is the owner or address whose concurrent fetches are counted, and `hold` counts the bytes that are
        fetched. The request is counted before anything is asked of another host.

        Raises:
            RequestError: something is wrong with the request.
            ClassifierNotFound, ClassifierOutdated: the classifier in the options cannot answer.
            Unavailable: the job was not accepted.
        """
        if submission.image_url is not None or submission.options.webhook_url is not None:
            await charge.settle()
        await self._acceptance.check_webhook(submission.options)
        options, classifier = await self._classifiers.resolve(submission.options, charge.owner)
        image, digest = await self._image_reader.read(submission, client, hold)
        structlog.contextvars.bind_contextvars(job_id=str(claim.id))
        new = new_job(claim.id, image, digest, options, charge.owner, classifier)
        new = replace(new, record=new.record.model_copy(update={"claim": claim.key}))
        [job], lacks_worker = await self._acceptance.accept_alone(new, charge)
        return SubmittedJob(AnalysisStatus.of(claim.id, job.record), lacks_worker)

    async def replay(self, job_id: UUID, owner: str | None) -> SubmittedJob:
        """Return a job as its submission left it, whatever its status is now.

        Raises:
            JobNotFound: it does not exist, has expired, or has another owner.
            StoreUnavailable
        """
        record = await self._records.find_record(job_id)
        if record is None or record.owner != owner:
            raise JobNotFound
        await self._acceptance.confirm([job_id])
        first = record if record.cached else record.model_copy(update={"status": JobStatus.PENDING, "result": None})
        return SubmittedJob(AnalysisStatus.of(job_id, first))

    async def status(self, job_id: UUID, charge: Charge) -> AnalysisStatus:
        """Read the status of a job of the request's owner, and how much of its quota is left.

        Raises:
            JobNotFound: it does not exist, has expired, or has another owner.
        """
        found = await self._positions.find(job_id, charge)
        if found is None or found[0].owner != charge.owner:
            raise JobNotFound
        return AnalysisStatus.of(job_id, *found)
