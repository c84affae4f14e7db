"""The calls for many images at once."""

from math import ceil
from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response, status

from image_analysis_api.access.admission import Admit, admit_images, caller
from image_analysis_api.access.idempotency import Idempotency
from image_analysis_api.intake.reading import BodyLimits
from image_analysis_api.intake.submissions import read_batch
from image_analysis_api.jobs.batches import MAX_FETCHES, Batches, fingerprint, parse_batch_id
from image_analysis_api.openapi.bodies import ANALYZE_IMAGES_BODY, OPTION_PARAMETERS
from image_analysis_api.openapi.document import IDEMPOTENCY_KEY, describe_errors
from image_analysis_api.openapi.parameters import BATCH_HEADERS, WAIT
from image_analysis_api.responses import BatchAccepted, BatchStatus
from image_analysis_api.routes.analyses import LACKS_WORKER, SUBMISSION_ERRORS, describe_id
from image_analysis_api.settings import ApiSettings
from image_analysis_api.waiting.preferences import wait_as_asked
from image_analysis_common import keys
from image_analysis_common.errors import (
    BatchNotFound,
    BatchTooLarge,
    RequestError,
    StoreUnavailable,
    UnreadableRecord,
)

BatchId = Annotated[str, describe_id("POST /analyze-images")]
router = APIRouter(tags=["analysis"])


@router.post(
    "/analyze-images",
    summary="Submit several images",
    response_model=None,
    responses={
        status.HTTP_200_OK: {
            "model": BatchAccepted,
            "description": "Every job has already ended: its result was cached, or its image was refused",
        },
        status.HTTP_202_ACCEPTED: {
            "model": BatchAccepted,
            "description": "Images are in the queue",
            "headers": BATCH_HEADERS,
        },
        **describe_errors(*SUBMISSION_ERRORS, BatchTooLarge),
    },
    openapi_extra={"requestBody": ANALYZE_IMAGES_BODY, "parameters": [*OPTION_PARAMETERS, IDEMPOTENCY_KEY]},
)
async def analyze_images(
    request: Request, response: Response, owner: Annotated[str | None, Depends(Admit(cost=1))]
) -> BatchAccepted:
    """Submit many images in one call; each gets its own job, in the order of the images.

    The body is JSON or a form with several parts `file` and fields `image_url`, the files first. The options apply to
    all images. Each image counts as a request; either all of them pass the rate limit, or none is accepted.

    One bad image does not fail the others: its job is FAILED from the start, with an error that says why.
    """
    settings = cast(ApiSettings, request.app.state.settings)
    batches = cast(Batches, request.app.state.batches)
    limits = BodyLimits(settings.batch_bytes, settings.body_timeout_seconds)
    submissions = await read_batch(request, limits, settings.max_batch_images)

    async def take_in(batch_id: UUID) -> tuple[BatchStatus, bool]:
        await admit_images(request, owner, len(submissions))
        return await batches.submit(batch_id, submissions, owner, caller(request, owner), request.state.hold)

    async def replay(batch_id: UUID) -> tuple[BatchStatus, bool]:
        return await batches.status(batch_id, owner), False

    answer, lacks_worker = await cast(Idempotency, request.app.state.idempotency).once(
        request,
        owner,
        keys.batch(""),
        lambda: fingerprint(submissions),
        take_in,
        replay,
        rounds=ceil(len(submissions) / MAX_FETCHES),
    )
    location = f"/analysis-batches/{answer.batch_id}"
    message = "Every job has ended."
    if answer.counts.PENDING or answer.counts.PROCESSING:
        response.status_code = status.HTTP_202_ACCEPTED
        response.headers["Location"] = location
        response.headers["Retry-After"] = "1"
        message = f"Accepted. Ask GET {location} for the results." + (LACKS_WORKER if lacks_worker else "")
    return BatchAccepted(**dict(answer), message=message)


@router.get(
    "/analysis-batches/{batch_id}",
    summary="Get the jobs of a batch",
    responses={
        status.HTTP_200_OK: {"description": "The jobs of the batch"},
        **describe_errors(RequestError, BatchNotFound, StoreUnavailable, UnreadableRecord),
    },
    openapi_extra={"parameters": [WAIT]},
)
async def read_batch_status(
    request: Request, batch_id: BatchId, owner: Annotated[str | None, Depends(Admit(cost=0))]
) -> BatchStatus:
    """Get every job of a batch and a count of each status. Asking does not count against the rate limit.

    A job is in the list as long as you can ask for it alone. With `wait`, the answer comes as soon as the last job
    ends, or after that many seconds with the statuses then.
    """
    batches, identifier = cast(Batches, request.app.state.batches), parse_batch_id(batch_id)
    answer = await batches.status(identifier, owner)
    unfinished = [job.job_id for job in answer.jobs if not job.status.is_final]
    has_waited = await wait_as_asked(request, unfinished, owner)
    return await batches.status(identifier, owner) if has_waited else answer
