"""The end of a run or a training that is left early: what still waits is cancelled, in a few seconds."""

import logging
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

import httpx

from image_analysis_client import requests
from image_analysis_client.answers import parse
from image_analysis_client.deadline import Deadline
from image_analysis_client.errors import APIError, ImageAnalysisError, NotFound, NotNow
from image_analysis_client.requests import Request
from image_analysis_client.responses import BatchStatus, TrainingJob
from image_analysis_client.retries import is_transient
from image_analysis_client.session import Session
from image_analysis_client.submissions import Batch, Submissions
from image_analysis_common.models import JobStatus

CANCELLING_S = 5.0
REPEAT_PAUSE_S = 0.2
LEFT_BEHIND = "jobs_left_behind"
TRAINING_LEFT_BEHIND = "training_left_behind"

log = logging.getLogger("image_analysis_client")


async def cancel_waiting(session: Session, submissions: Submissions) -> None:
    """Cancel the jobs that still wait, as far as the service answers. What is done leaves `submissions`.

    A batch without an answer may have been accepted: it is sent again, as the same one, to learn its jobs.
    """
    deadline = Deadline(CANCELLING_S)
    for batch in list(submissions.batches):
        if batch.pending and deadline.left_s():
            try:
                status = await _ask(session, requests.read_batch(batch.id), deadline)
                await _cancel(session, batch, status, deadline)
            except NotFound:  # all of its jobs have expired
                batch.pending.clear()
            except ImageAnalysisError:
                continue
    if (sent := submissions.sent) and sent.may_be_accepted and deadline.left_s():
        with suppress(ImageAnalysisError):
            status = await _ask(session, sent.request, deadline)
            batch = Batch(status.batch_id, {job.job_id: b"" for job in status.jobs})
            submissions.batches.append(batch)
            submissions.sent = None
            await _cancel(session, batch, status, deadline)


def note_left_behind(submissions: Submissions) -> None:
    """Log how many images may still wait in the service; programs read the record's `code` and `images`."""
    sent = submissions.sent
    images = sum(len(batch.pending) for batch in submissions.batches)
    images += len(sent.items) if sent and sent.may_be_accepted else 0
    if images:
        log.warning(
            "Up to %d images may still wait in the service: it did not answer in time to cancel them.",
            images,
            extra={"code": LEFT_BEHIND, "images": images},
        )


async def cancel_training(session: Session, request: Request, job_id: UUID | None) -> None:
    """Cancel a training. If its classifier may have been trained, log that; programs read the record's `code`.

    A training without an answer may have been accepted: it is sent again, as the same one, to learn its job.
    """
    is_cancelled = False
    try:
        is_cancelled = await _cancel_training(session, request, job_id)
    finally:
        if not is_cancelled:
            log.warning(
                "The training could not be cancelled: the classifier may have been trained.",
                extra={"code": TRAINING_LEFT_BEHIND},
            )


async def _cancel_training(session: Session, request: Request, job_id: UUID | None) -> bool:
    """Cancel a training, and return whether it is certain that nothing is trained."""
    deadline = Deadline(CANCELLING_S)
    if job_id is None and not request.delivery.is_unanswered:
        return True
    with suppress(ImageAnalysisError):
        if job_id is None:
            job_id = parse(await _call(session, request, deadline), TrainingJob).job_id
        answer = await _call(session, requests.cancel_job(job_id), deadline)
        return answer.status_code != httpx.codes.NO_CONTENT
    return False


async def _ask(session: Session, request: Request, deadline: Deadline) -> BatchStatus:
    return parse(await _call(session, request, deadline), BatchStatus)


async def _call(session: Session, request: Request, deadline: Deadline) -> httpx.Response:
    """Send a request. While its submission is still being read, or for a short `Retry-After`, it is sent again."""
    while True:
        try:
            return await session.call(replace(request, deadline=deadline), is_retried=False)
        except APIError as error:
            pause_s = (error.retry_after if isinstance(error, NotNow) else None) or REPEAT_PAUSE_S
            if not is_transient(error) or pause_s >= deadline.left_s():
                raise
        await session.channel.sleep(pause_s)


async def _cancel(session: Session, batch: Batch, status: BatchStatus, deadline: Deadline) -> None:
    waiting = {job.job_id for job in status.jobs if job.status is JobStatus.PENDING}
    for job_id in list(batch.pending):
        if job_id in waiting:
            if not deadline.left_s():
                return
            with suppress(NotFound):  # it has expired
                await session.call(replace(requests.cancel_job(job_id), deadline=deadline), is_retried=False)
        del batch.pending[job_id]
