"""The calls for many images at once."""

from math import ceil

from fastapi import Request, Response, status

from image_analysis_api.access.admission import caller
from image_analysis_api.intake.reading import BodyLimits
from image_analysis_api.intake.submissions import JsonOrFormRequired, read_batch
from image_analysis_api.jobs.batches import MAX_FETCHES, fingerprint, parse_batch_id
from image_analysis_api.openapi.bodies import ANALYZE_IMAGES_BODY, OPTION_PARAMETERS
from image_analysis_api.openapi.document import IDEMPOTENCY_KEY, describe_errors
from image_analysis_api.openapi.parameters import BATCH_HEADERS, WAIT
from image_analysis_api.responses import BatchAccepted, BatchStatus
from image_analysis_api.routes.parameters import (
    LACKS_WORKER,
    SUBMISSION_ERRORS,
    BatchId,
    FoundServices,
    Reader,
    Submitter,
)
from image_analysis_api.routes.router import HeadRouter
from image_analysis_api.server.proxies import public_path
from image_analysis_api.waiting.preferences import wait_as_asked
from image_analysis_common import keys
from image_analysis_common.errors import BatchNotFound, BatchTooLarge, RequestError, StoreUnavailable, UnreadableRecord

router = HeadRouter(tags=["analysis"])


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
        **describe_errors(*SUBMISSION_ERRORS, BatchTooLarge, JsonOrFormRequired),
    },
    openapi_extra={"requestBody": ANALYZE_IMAGES_BODY, "parameters": [*OPTION_PARAMETERS, IDEMPOTENCY_KEY]},
)
async def analyze_images(
    request: Request, response: Response, owner: Submitter, services: FoundServices
) -> BatchAccepted:
    """Submit many images in one call; each gets its own job, in the order of the images.

    The body is JSON or a form with several parts `file` and fields `image_url`, the files first. The options apply to
    all images. Each image counts as a request; either all of them pass the rate limit, or none is accepted.

    One bad image does not fail the others: its job is FAILED from the start, with an error that says why.
    """
    settings, batches = services.settings, services.batches
    limits = BodyLimits(settings.batch_bytes, settings.body_timeout_seconds)
    submissions = await read_batch(request, limits, settings.max_batch_images)
    rounds = ceil(len(submissions) / MAX_FETCHES)
    async with services.idempotency.claim(
        request, owner, keys.batch(""), lambda: fingerprint(submissions), rounds=rounds
    ) as claim:
        if claim.is_replay:
            answer, lacks_worker = await batches.replay(claim.id, owner), False
        else:
            await services.admission.admit_images(request, owner, len(submissions))
            answer, lacks_worker = await batches.submit(
                claim.id, submissions, owner, caller(request, owner), request.state.hold
            )
    location = public_path(request.scope, f"/analysis-batches/{answer.batch_id}")
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
async def read_batch_status(request: Request, batch_id: BatchId, owner: Reader, services: FoundServices) -> BatchStatus:
    """Get every job of a batch and a count of each status. Asking does not count against the rate limit.

    A job is in the list as long as you can ask for it alone. With `wait`, the answer comes as soon as the last job
    ends, or after that many seconds with the statuses then.
    """
    batches, identifier = services.batches, parse_batch_id(batch_id)
    answer = await batches.status(identifier, owner)
    unfinished = [job.job_id for job in answer.jobs if not job.status.is_final]
    has_waited = await wait_as_asked(services.waiting_room, request, unfinished, owner)
    return await batches.status(identifier, owner) if has_waited else answer
