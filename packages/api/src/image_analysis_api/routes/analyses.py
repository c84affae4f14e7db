"""The calls about one image: submit it, ask for its job, cancel it, list your jobs."""

from uuid import uuid4

from fastapi import Request, Response, status

from image_analysis_api.access.admission import Charge, caller
from image_analysis_api.access.idempotency import HEADER, Claim
from image_analysis_api.intake.reading import BodyLimits
from image_analysis_api.intake.submissions import read_submission
from image_analysis_api.jobs.analyses import SubmittedJob, parse_job_id
from image_analysis_api.jobs.cancellation import Outcome
from image_analysis_api.openapi.bodies import ANALYZE_IMAGE_BODY, OPTION_PARAMETERS
from image_analysis_api.openapi.document import IDEMPOTENCY_KEY, describe_errors
from image_analysis_api.openapi.parameters import ACCEPTED_HEADERS, LIST_PARAMETERS, PREFER, PREFERENCE_APPLIED, WAIT
from image_analysis_api.responses import AnalysisList, AnalysisStatus, JobAccepted
from image_analysis_api.routes.parameters import (
    LACKS_WORKER,
    SUBMISSION_ERRORS,
    FoundServices,
    JobId,
    Reader,
    services_of,
    to_response,
)
from image_analysis_api.routes.router import HeadRouter
from image_analysis_api.server.counts import read_count
from image_analysis_api.server.proxies import public_path
from image_analysis_api.services import Services
from image_analysis_api.waiting.preferences import wait_as_asked, wait_as_preferred
from image_analysis_common import keys
from image_analysis_common.errors import (
    FetchFailed,
    InvalidBase64,
    JobNotFound,
    KeysRequired,
    RequestError,
    StoreUnavailable,
    UnreadableRecord,
    UnsupportedImage,
)
from image_analysis_common.models import JobStatus

MAX_LIMIT = 100
router = HeadRouter(tags=["analysis"])


@router.post(
    "/analyze-image",
    summary="Submit an image",
    response_model=None,
    responses={
        status.HTTP_200_OK: {
            "model": AnalysisStatus,
            "description": "The result was cached, or the job ended within the preferred wait",
            "headers": PREFERENCE_APPLIED,
        },
        status.HTTP_202_ACCEPTED: {
            "model": JobAccepted,
            "description": "The image is in the queue",
            "headers": ACCEPTED_HEADERS,
        },
        **describe_errors(*SUBMISSION_ERRORS, InvalidBase64, UnsupportedImage, FetchFailed),
    },
    openapi_extra={"requestBody": ANALYZE_IMAGE_BODY, "parameters": [*OPTION_PARAMETERS, IDEMPOTENCY_KEY, PREFER]},
)
async def analyze_image(request: Request) -> Response:
    """Submit one image, as bytes or as a URL, and get a job ID at once.

    The body is JSON, a form with the part `file`, or the image itself. Options go into the JSON, into the form's fields
    or into the query. If the body and the query disagree, the body wins.

    If the same image was analyzed within the last hour, the answer is the finished result. Format (JPEG, PNG, WebP,
    GIF, AVIF, BMP), bytes and pixels are checked before the answer.

    With a `webhook_url`, the job's status is sent there when it has ended: see the webhooks of this document.

    With `Prefer: wait=N`, the answer is a 200 with the finished status as soon as the job ends, if that is within N
    seconds. Otherwise it is the usual 202.
    """
    services, headers = services_of(request), dict[str, str]()
    async with services.admission.charge(request, 1) as charge:
        answer, lacks_worker = await _submit(request, charge, services)
    request.scope["state"]["release"]()
    if not answer.status.is_final:
        answer = await wait_as_preferred(services.waiting_room, request, headers, answer, charge.owner)
    if answer.status.is_final:
        return to_response(answer, status.HTTP_200_OK, headers)
    location = public_path(request.scope, f"/analysis-status/{answer.job_id}")
    headers["Location"] = location
    headers["Link"] = f'<{location}>; rel="status", <{location}/events>; rel="monitor"'
    headers["Retry-After"] = "1"
    accepted = JobAccepted(
        job_id=answer.job_id,
        status=answer.status,
        message=f"Accepted. Ask GET {location} for the result." + (LACKS_WORKER if lacks_worker else ""),
    )
    return to_response(accepted, status.HTTP_202_ACCEPTED, headers)


async def _submit(request: Request, charge: Charge, services: Services) -> SubmittedJob:
    """Read the image and submit it. The body is freed when this returns; the client may wait for much longer."""
    settings, analyses, owner = services.settings, services.analyses, charge.owner
    limits = BodyLimits(settings.max_image_bytes, settings.body_timeout_seconds)
    submission = await read_submission(request, limits)
    if HEADER not in request.headers:
        return await analyses.submit(Claim(uuid4()), submission, charge, caller(request, owner), request.state.hold)
    async with services.idempotency.claim(request, owner, keys.job(""), submission.fingerprint) as claim:
        if claim.is_replay:
            return await analyses.replay(claim.id, owner)
        return await analyses.submit(claim, submission, charge, caller(request, owner), request.state.hold)


@router.get(
    "/analysis-status/{job_id}",
    summary="Get a job's status",
    response_model=AnalysisStatus,
    responses={
        status.HTTP_200_OK: {"description": "The job's status"},
        **describe_errors(RequestError, JobNotFound, StoreUnavailable, UnreadableRecord),
    },
    openapi_extra={"parameters": [WAIT]},
)
async def read_analysis_status(request: Request, job_id: JobId) -> Response:
    """Get a job's status, with its result once it is COMPLETED or its error once it is FAILED.

    You can ask for an ended job for one hour. Asking does not count against the rate limit. With `wait`, the answer
    comes as soon as the job ends, or after that many seconds with its status then.
    """
    services = services_of(request)
    async with services.admission.charge(request, 0) as charge:
        identifier = parse_job_id(job_id)
        if request.scope["query_string"]:
            await charge.settle()
            await wait_as_asked(services.waiting_room, request, [identifier], charge.owner)
        return to_response(await services.analyses.status(identifier, charge))


@router.delete(
    "/analysis/{job_id}",
    summary="Cancel or forget a job",
    response_model=None,
    responses={
        status.HTTP_200_OK: {"model": AnalysisStatus, "description": "The job was waiting and is CANCELLED"},
        status.HTTP_202_ACCEPTED: {
            "model": AnalysisStatus,
            "description": "The job is running and will be CANCELLED when it ends",
        },
        status.HTTP_204_NO_CONTENT: {"description": "The job had ended and is forgotten"},
        **describe_errors(RequestError, JobNotFound, StoreUnavailable),
    },
)
async def cancel_analysis(
    response: Response, job_id: JobId, owner: Reader, services: FoundServices
) -> AnalysisStatus | Response:
    """Cancel a job that has not ended; forget one that has.

    A waiting job leaves the queue, together with its image, unless other jobs wait for the same image. A running job
    ends as CANCELLED, and its result is dropped. An ended job is forgotten, and so is the cached result of its
    image, unless another job was answered with it. Other jobs with the same image get their answer in any case.
    Cancelling twice changes nothing more; a forgotten job is a 404.
    """
    identifier = parse_job_id(job_id)
    match await services.cancellation.cancel(identifier, owner):
        case Outcome.FORGOTTEN:
            return Response(status_code=status.HTTP_204_NO_CONTENT)
        case Outcome.ENDING:
            response.status_code = status.HTTP_202_ACCEPTED
            return AnalysisStatus(job_id=identifier, status=JobStatus.PROCESSING)
        case Outcome.CANCELLED:
            return AnalysisStatus(job_id=identifier, status=JobStatus.CANCELLED)


@router.get(
    "/analyses",
    summary="List your jobs",
    responses={
        status.HTTP_200_OK: {"description": "Your jobs, newest first"},
        **describe_errors(RequestError, KeysRequired, StoreUnavailable),
    },
    openapi_extra={"parameters": LIST_PARAMETERS},
)
async def list_analyses(request: Request, owner: Reader, services: FoundServices) -> AnalysisList:
    """List the jobs that were submitted under your API key's name, newest first, until they expire.

    For the next page, send `next_cursor` as `cursor`; null is the end. With a `status`, a page may have fewer than
    `limit` jobs before the end. If the service has no API keys, it does not know its callers: the answer is a 403.
    """
    if owner is None:
        raise KeysRequired
    query = request.query_params
    limit, wanted = read_count(query.get("limit", "20")), query.get("status")
    if limit is None or not 1 <= limit <= MAX_LIMIT:
        raise RequestError(f"limit must be a whole number from 1 to {MAX_LIMIT}.")
    if wanted is not None and wanted not in JobStatus.__members__:
        raise RequestError(f"status must be one of {', '.join(JobStatus)}.")
    analyses, next_cursor = await services.listing.page(
        owner, limit=limit, status=JobStatus(wanted) if wanted else None, cursor=query.get("cursor")
    )
    return AnalysisList(analyses=analyses, next_cursor=next_cursor)
