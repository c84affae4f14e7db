"""The calls about classifiers from examples: train one, add examples, list, read and delete."""

from math import ceil
from typing import Annotated

from fastapi import Path, Request, Response, status

from image_analysis_api.access.admission import caller
from image_analysis_api.intake.examples import read_examples
from image_analysis_api.intake.reading import BodyLimits
from image_analysis_api.intake.submissions import JsonOrFormRequired
from image_analysis_api.jobs.batches import MAX_FETCHES
from image_analysis_api.jobs.training import Caller
from image_analysis_api.openapi.document import IDEMPOTENCY_KEY, describe_errors
from image_analysis_api.openapi.parameters import BATCH_HEADERS
from image_analysis_api.openapi.training import TRAINING_BODY, TRAINING_PARAMETERS
from image_analysis_api.responses import ClassifierList, TrainingAccepted
from image_analysis_api.routes.parameters import (
    IMAGE_ERRORS,
    FoundServices,
    Reader,
    Submitter,
)
from image_analysis_api.routes.router import HeadRouter
from image_analysis_api.server.proxies import public_path
from image_analysis_api.services import Services
from image_analysis_common import keys
from image_analysis_common.classifiers import NAME_PATTERN, Classifier, Training, is_classifier_name
from image_analysis_common.errors import (
    BatchTooLarge,
    FetchFailed,
    InvalidBase64,
    StoreUnavailable,
    TooManyDeliveries,
    UnreadableRecord,
    UnsupportedImage,
    UrlRefused,
    WebhooksDisabled,
)
from image_analysis_common.job_errors import (
    ClassifierNotFound,
    ClassifierOutdated,
    EmbeddingsNotSupported,
    EmbeddingUnknown,
    InvalidClassifierName,
    NotEnoughExamples,
    TooManyClassifiers,
    TooManyExamples,
    TrainingNotSupported,
)
from image_analysis_common.models import JobStatus

router = HeadRouter(tags=["classifiers"])
Name = Annotated[
    str,
    Path(
        description="The name of a classifier",
        examples=["products"],
        json_schema_extra={"pattern": NAME_PATTERN},
    ),
]
TRAINING_ERRORS = (
    *IMAGE_ERRORS,
    JsonOrFormRequired,
    InvalidClassifierName,
    BatchTooLarge,
    InvalidBase64,
    UnsupportedImage,
    FetchFailed,
    UrlRefused,
    TooManyDeliveries,
    WebhooksDisabled,
    NotEnoughExamples,
    TooManyExamples,
    EmbeddingUnknown,
    EmbeddingsNotSupported,
    TrainingNotSupported,
)
ACCEPTED = {
    "model": TrainingAccepted,
    "description": "The training is in the queue",
    "headers": BATCH_HEADERS | {"Location": {"description": "Path of the job's status", "schema": {"type": "string"}}},
}
EXTRA = {"requestBody": TRAINING_BODY, "parameters": [*TRAINING_PARAMETERS, IDEMPOTENCY_KEY]}


@router.put(
    "/classifiers/{name}",
    summary="Train a classifier",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        status.HTTP_202_ACCEPTED: ACCEPTED,
        **describe_errors(*TRAINING_ERRORS, TooManyClassifiers),
    },
    openapi_extra=EXTRA,
)
async def train_classifier(
    request: Request, response: Response, name: Name, owner: Submitter, services: FoundServices
) -> TrainingAccepted:
    """Train a classifier on examples of 2 to 50 labels, 5 to 200 images each. It replaces one of the same name.

    The body is JSON, or a form whose files are named by their labels. The answer names a job: its status has the
    classifier once it is COMPLETED, with its accuracy on examples that were left out of the training. Until then, the
    classifier that it replaces still answers. Each image in the request counts as a request.
    """
    return await _train(request, response, Training(name=_check(name)), owner, services)


@router.post(
    "/classifiers/{name}/examples",
    summary="Add examples to a classifier",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        status.HTTP_202_ACCEPTED: ACCEPTED,
        **describe_errors(*TRAINING_ERRORS, ClassifierNotFound, ClassifierOutdated, TooManyClassifiers),
    },
    openapi_extra=EXTRA,
)
async def add_examples(
    request: Request, response: Response, name: Name, owner: Submitter, services: FoundServices
) -> TrainingAccepted:
    """Add examples to a classifier, or correct the label of some, and train it again.

    To correct an answer, send the `job_id` of the job with the right label.
    """
    return await _train(request, response, Training(name=_check(name), adds=True), owner, services)


async def _train(
    request: Request, response: Response, training: Training, owner: str | None, services: Services
) -> TrainingAccepted:
    settings = services.settings
    limits = BodyLimits(settings.batch_bytes, settings.body_timeout_seconds)
    examples = await read_examples(request, limits, settings.max_batch_images)
    images = sum(example.is_image for example in examples.images)
    async with services.idempotency.claim(
        request,
        owner,
        keys.job(""),
        lambda: examples.fingerprint(f"{training!r}"),
        rounds=max(ceil(images / MAX_FETCHES), 1),
    ) as claim:
        if claim.is_replay:
            await services.analyses.replay(claim.id, owner)
        else:
            if images > 1:
                await services.admission.admit_images(request, owner, images)
            client = Caller(owner, caller(request, owner), request.state.hold)
            await services.trainings.submit(claim.id, training, examples, client)
    response.headers["Location"] = public_path(request.scope, f"/analysis-status/{claim.id}")
    response.headers["Retry-After"] = "1"
    return TrainingAccepted(job_id=claim.id, status=JobStatus.PENDING, classifier=training.name)


@router.get(
    "/classifiers",
    summary="List your classifiers",
    responses={
        status.HTTP_200_OK: {"description": "Your classifiers, by name"},
        **describe_errors(StoreUnavailable),
    },
)
async def list_classifiers(owner: Reader, services: FoundServices) -> ClassifierList:
    """Get the classifiers that were trained under your API key's name."""
    return ClassifierList(classifiers=await services.classifiers.find_all(owner))


@router.get(
    "/classifiers/{name}",
    summary="Get a classifier",
    responses={
        status.HTTP_200_OK: {"description": "The classifier, with its accuracy and its confusion table"},
        **describe_errors(InvalidClassifierName, ClassifierNotFound, StoreUnavailable, UnreadableRecord),
    },
)
async def read_classifier(name: Name, owner: Reader, services: FoundServices) -> Classifier:
    """Get one classifier with its labels, its accuracy and its confusion table."""
    return (await services.classifiers.find(owner, _check(name))).about


@router.delete(
    "/classifiers/{name}",
    summary="Delete a classifier",
    status_code=status.HTTP_204_NO_CONTENT,
    responses={
        status.HTTP_204_NO_CONTENT: {"description": "The classifier is deleted, with all that was learned"},
        **describe_errors(InvalidClassifierName, ClassifierNotFound, StoreUnavailable),
    },
)
async def delete_classifier(name: Name, owner: Reader, services: FoundServices) -> Response:
    """Delete a classifier and the embeddings of its examples. Jobs that wait for it end as FAILED."""
    await services.classifiers.delete(owner, _check(name))
    return Response(status_code=status.HTTP_204_NO_CONTENT)


def _check(name: str) -> str:
    if not is_classifier_name(name):
        raise InvalidClassifierName
    return name
