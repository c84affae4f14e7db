"""What the routes share: the services, who calls, and the IDs in paths."""

from typing import Annotated, Any, cast

from fastapi import Depends, Path
from starlette.requests import HTTPConnection

from image_analysis_api.responses import EXAMPLE_JOB_ID
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
"""What can be wrong with a submission of one image or of many."""


async def find_services(connection: HTTPConnection) -> Services:
    """Return the services that the app was built with. A coroutine: FastAPI would run a function in a thread."""
    return cast(Services, connection.app.state.services)


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
