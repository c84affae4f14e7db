"""The call of Hugging Face's inference clients: one image to one model, answered with its labels and their scores."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Path, Request, status

from image_analysis_api.access.admission import Charge, caller
from image_analysis_api.intake.inference import read_inference
from image_analysis_api.intake.reading import BodyLimits
from image_analysis_api.jobs.analyses import SubmittedJob
from image_analysis_api.openapi.bodies import INFERENCE_BODY, INFERENCE_PARAMETERS
from image_analysis_api.openapi.document import IDEMPOTENCY_KEY, describe_errors
from image_analysis_api.openapi.parameters import PREFER_SHORTER
from image_analysis_api.responses import AnalysisStatus, LabelScore
from image_analysis_api.routes.parameters import IMAGE_ERRORS, LACKS_WORKER, FoundServices
from image_analysis_api.routes.router import HeadRouter
from image_analysis_api.services import Services
from image_analysis_api.waiting.preferences import wait_for_result
from image_analysis_common import keys
from image_analysis_common.errors import InvalidBase64, ServiceError, TooManyWaiters, UnsupportedImage
from image_analysis_common.job_errors import JobCancelled, JobError, ResultPending
from image_analysis_common.models import JobStatus
from image_analysis_common.settings import BUNDLED_MODEL

MAX_HEADER_LENGTH = 1000


async def name_error(request: Request) -> AsyncIterator[None]:
    """Put an error's sentence into the header where huggingface_hub looks for it; it ignores a problem's `detail`."""
    try:
        yield
    except ServiceError as error:
        sentence = "".join(mark if " " <= mark <= "~" else "?" for mark in error.detail)
        request.state.headers["X-Error-Message"] = sentence[:MAX_HEADER_LENGTH]
        raise


router = HeadRouter(tags=["analysis"], dependencies=[Depends(name_error)])


@router.post(
    "/models/{model_id:path}",
    summary="Classify an image and wait for its labels",
    responses={
        status.HTTP_200_OK: {"description": "The best labels with their scores, best first"},
        **describe_errors(
            *IMAGE_ERRORS,
            InvalidBase64,
            UnsupportedImage,
            JobCancelled,
            TooManyWaiters,
            ResultPending,
            *JobError.__subclasses__(),
        ),
    },
    openapi_extra={
        "requestBody": INFERENCE_BODY,
        "parameters": [*INFERENCE_PARAMETERS, IDEMPOTENCY_KEY, PREFER_SHORTER],
    },
)
async def classify_image(
    request: Request,
    model_id: Annotated[str, Path(description="The ID from GET /models, including slashes", examples=[BUNDLED_MODEL])],
    services: FoundServices,
) -> list[LabelScore]:
    """Classify one image with one model, as Hugging Face's inference clients ask for it.

    The body is the image itself, with any Content-Type or none, or JSON with the image in base64 as `inputs`.
    Parameters go into the JSON or into the query. If the two disagree, the JSON wins.

    A zero-shot model needs `candidate_labels`, and answers with each of them, or with the 100 best.

    The image becomes a job like that of POST /analyze-image, and the answer comes when it ends. If it has not ended
    after 60 seconds, or if too many clients wait, the answer is a 503. The job goes on, also if the client disconnects:
    the same request, sent again, waits for the same analysis or gets its result from the cache.

    A job that fails is an error with the job's code: a 400 if the image is at fault, a 500 if the service is.
    """
    async with services.admission.charge(request, 1) as charge:
        answer, lacks_worker = await _submit(request, model_id, charge, services)
    request.state.release()
    if not answer.status.is_final:
        answer = await wait_for_result(services.waiting_room, request, answer, charge.owner)
    return _read_scores(answer, lacks_worker=lacks_worker)


async def _submit(request: Request, model_id: str, charge: Charge, services: Services) -> SubmittedJob:
    """Read the image and submit it. The body is freed when this returns; the client may wait for much longer."""
    settings, analyses, owner = services.settings, services.analyses, charge.owner
    limits = BodyLimits(settings.max_image_bytes, settings.body_timeout_seconds)
    submission, function = await read_inference(request, model_id, limits)
    await services.model_registry.check(model_id)
    if function is not None:
        await services.model_registry.check_function(model_id, function)
    async with services.idempotency.claim(request, owner, keys.job(""), submission.fingerprint) as claim:
        if claim.is_replay:
            return await analyses.replay(claim.id, owner)
        return await analyses.submit(claim, submission, charge, caller(request, owner), request.state.hold)


def _read_scores(job: AnalysisStatus, *, lacks_worker: bool) -> list[LabelScore]:
    if job.result is not None:
        return [LabelScore(label=found.label, score=found.confidence) for found in job.result.predictions]
    if job.error is not None:
        raise JobError.of(job.error.code, job.error.detail)
    if job.status is JobStatus.CANCELLED:
        raise JobCancelled
    raise ResultPending(ResultPending.sentence + (LACKS_WORKER if lacks_worker else ""))
