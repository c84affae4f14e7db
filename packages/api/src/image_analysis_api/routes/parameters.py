"""What the routes share: the services, who calls, and the IDs in paths."""

from collections.abc import Mapping
from typing import Annotated, Any, cast

from fastapi import Depends, Path, Response
from starlette.requests import HTTPConnection

from image_analysis_api.responses import EXAMPLE_JOB_ID, Answer
from image_analysis_api.services import Services
from image_analysis_common.errors import (
    IdempotencyKeyReused,
    ImageTooLarge,
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
    UnsupportedMediaType,
    UrlRefused,
    WebhooksDisabled,
)
from image_analysis_common.job_errors import (
    ClassifierNotFound,
    ClassifierOutdated,
    EmbeddingsNotSupported,
    LabelsNotSupported,
    LabelsRequired,
)

LACKS_WORKER = " No worker serves its model now: the job waits for one."

IMAGE_ERRORS = (
    RequestError,
    ModelNotFound,
    RequestInProgress,
    IdempotencyKeyReused,
    RequestTimeout,
    ImageTooLarge,
    UnsupportedMediaType,
    RateLimited,
    QueueFull,
    StoreUnavailable,
    Unavailable,
    UnreadableRecord,
)
"""What can be wrong with a submission whose options are few."""

SUBMISSION_ERRORS = (
    *IMAGE_ERRORS,
    UrlRefused,
    TooManyDeliveries,
    WebhooksDisabled,
    LabelsNotSupported,
    LabelsRequired,
    EmbeddingsNotSupported,
    ClassifierNotFound,
    ClassifierOutdated,
)
"""What can be wrong with a submission of one image or of many."""


def services_of(connection: HTTPConnection) -> Services:
    """Return the services that the app was built with."""
    return cast(Services, connection.app.state.services)


async def find_services(connection: HTTPConnection) -> Services:
    """Return the services. A coroutine: FastAPI would run a function in a thread."""
    return services_of(connection)


def to_response(answer: Answer, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Write an answer as JSON."""
    return Response(answer.model_dump_json(), status, headers, media_type="application/json")


FoundServices = Annotated[Services, Depends(find_services)]


class Admit:
    """Dependency: admits the caller at a cost, see `Admission.admit`."""

    def __init__(self, cost: int) -> None:
        self._cost = cost

    async def __call__(self, connection: HTTPConnection, services: FoundServices) -> str | None:
        return await services.admission.admit(connection, self._cost)


Submitter = Annotated[str | None, Depends(Admit(cost=1))]
"""The owner of the caller's key; the call counts against the quota."""

Reader = Annotated[str | None, Depends(Admit(cost=0))]
"""The owner of the caller's key; the call costs nothing."""


def describe_id(call: str) -> Any:
    """Describe an ID in a path, which a call returned."""
    return Path(
        description=f"The ID that {call} returned", examples=[EXAMPLE_JOB_ID], json_schema_extra={"format": "uuid"}
    )


JobId = Annotated[str, describe_id("POST /analyze-image")]
BatchId = Annotated[str, describe_id("POST /analyze-images")]
