"""The analysis calls: parse, call the use case, choose a status, return a model."""

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Path, Request, Response, status

from image_analysis_api.access.admission import Admit, caller
from image_analysis_api.access.idempotency import Idempotency
from image_analysis_api.intake.reading import BodyLimits
from image_analysis_api.intake.submissions import read_submission
from image_analysis_api.jobs.submit import Analysis, Taken, parse_job_id
from image_analysis_api.openapi.bodies import ANALYZE_IMAGE_BODY, OPTION_PARAMETERS
from image_analysis_api.openapi.document import IDEMPOTENCY_KEY, describe_errors
from image_analysis_api.openapi.parameters import ACCEPTED_HEADERS, PREFER, PREFERENCE_APPLIED, WAIT
from image_analysis_api.responses import EXAMPLE_JOB_ID, AnalysisStatus, JobAccepted
from image_analysis_api.settings import ApiSettings
from image_analysis_api.waiting.preferences import wait_as_asked, wait_as_preferred
from image_analysis_common import keys
from image_analysis_common.errors import (
    FetchFailed,
    IdempotencyKeyReused,
    ImageTooLarge,
    InvalidBase64,
    JobNotFound,
    ModelNotFound,
    QueueFull,
    RateLimited,
    RequestError,
    RequestInProgress,
    RequestTimeout,
    StoreUnavailable,
    TooManyDeliveries,
    Unavailable,
    UnreadableRecord,
    UnsupportedImage,
    UnsupportedMediaType,
    UrlRefused,
    WebhooksDisabled,
)


async def get_analysis(request: Request) -> Analysis:
    """Find the use case that the app was built with; a coroutine, for FastAPI runs a function in a thread."""
    return cast(Analysis, request.app.state.analysis)


LACKS_WORKER = " No worker serves its model now: the job waits for one."

SUBMISSION_ERRORS = (
    RequestError,
    ModelNotFound,
    RequestInProgress,
    IdempotencyKeyReused,
    UrlRefused,
    RequestTimeout,
    ImageTooLarge,
    UnsupportedMediaType,
    RateLimited,
    QueueFull,
    StoreUnavailable,
    TooManyDeliveries,
    Unavailable,
    UnreadableRecord,
    WebhooksDisabled,
)
"""What can be wrong with a submission, of one image or of many."""


def describe_id(call: str) -> Any:
    """Describe an ID in a path, which a call returned."""
    return Path(
        description=f"The ID that {call} returned", examples=[EXAMPLE_JOB_ID], json_schema_extra={"format": "uuid"}
    )


JobId = Annotated[str, describe_id("POST /analyze-image")]
UseCase = Annotated[Analysis, Depends(get_analysis)]
router = APIRouter(tags=["analysis"])


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
async def analyze_image(
    request: Request, response: Response, owner: Annotated[str | None, Depends(Admit(cost=1))], analysis: UseCase
) -> AnalysisStatus | JobAccepted:
    """Submit one image, as bytes or as a URL, and get a job ID at once.

    The body is JSON, a form with the part `file`, or the image itself. Options go into the JSON, into the form's fields
    or into the query. If the body and the query disagree, the body wins.

    If the same image was analyzed within the last hour, the answer is the finished result. Format (JPEG, PNG, WebP,
    GIF, AVIF, BMP), bytes and pixels are checked before the answer.

    With a `webhook_url`, the job's status is sent there when it has ended: see the webhooks of this document.

    With `Prefer: wait=N`, the answer is a 200 with the finished status as soon as the job ends, if that is within N
    seconds. Otherwise it is the usual 202.
    """
    answer, lacks_worker = await _take_in(request, owner, analysis)
    request.state.release()
    if not answer.status.is_final:
        answer = await wait_as_preferred(request, response, answer, owner)
    if answer.status.is_final:
        return answer
    location = f"/analysis-status/{answer.job_id}"
    response.status_code = status.HTTP_202_ACCEPTED
    response.headers["Location"] = location
    response.headers["Link"] = f'<{location}>; rel="status", <{location}/events>; rel="monitor"'
    response.headers["Retry-After"] = "1"
    return JobAccepted(
        job_id=answer.job_id,
        status=answer.status,
        message=f"Accepted. Ask GET {location} for the result." + (LACKS_WORKER if lacks_worker else ""),
    )


async def _take_in(request: Request, owner: str | None, analysis: Analysis) -> Taken:
    """Read the image and take it in. The body is freed when this returns; the client may wait for much longer."""
    settings = cast(ApiSettings, request.app.state.settings)
    limits = BodyLimits(settings.max_image_bytes, settings.body_timeout_seconds)
    submission = await read_submission(request, limits)
    return await cast(Idempotency, request.app.state.idempotency).once(
        request,
        owner,
        keys.job(""),
        submission.fingerprint,
        lambda job_id: analysis.submit(job_id, submission, owner, caller(request, owner)),
        lambda job_id: analysis.replay(job_id, owner),
    )


@router.get(
    "/analysis-status/{job_id}",
    summary="Get a job's status",
    responses={
        status.HTTP_200_OK: {"description": "The job's status"},
        **describe_errors(RequestError, JobNotFound, StoreUnavailable, UnreadableRecord),
    },
    openapi_extra={"parameters": [WAIT]},
)
async def read_analysis_status(
    request: Request,
    job_id: JobId,
    owner: Annotated[str | None, Depends(Admit(cost=0))],
    analysis: UseCase,
) -> AnalysisStatus:
    """Get a job's status, with its result once it is COMPLETED or its error once it is FAILED.

    You can ask for an ended job for one hour. Asking does not count against the rate limit. With `wait`, the answer
    comes as soon as the job ends, or after that many seconds with its status then.
    """
    identifier = parse_job_id(job_id)
    await wait_as_asked(request, [identifier], owner)
    return await analysis.status(identifier, owner)
