"""Every error that the client raises, on one page. None of them holds the API key."""

import copyreg
from collections.abc import Sequence
from os import PathLike
from typing import Any
from uuid import UUID

from image_analysis_client.values import Outcome


class ImageAnalysisError(Exception):
    """The root of the tree. `code` is stable and for programs, `detail` is a sentence for people."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(code, detail)

    def __str__(self) -> str:
        return f"{self.detail} ({self.code})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy without `__init__`, whose parameters differ from class to class."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class ServiceUnreachable(ImageAnalysisError):
    """No answer came: there is no connection, it broke, or it timed out."""

    def __init__(self, detail: str) -> None:
        super().__init__("service_unreachable", detail)


class InvalidWebhook(ImageAnalysisError):
    """The message is forged, was changed, is too old, or is not a job's status."""

    def __init__(self, detail: str) -> None:
        super().__init__("invalid_webhook", detail)


class APIError(ImageAnalysisError):
    """The API answered with an error, or with something that is not its answer (`unexpected_response`).

    `status` is the HTTP status. Quote `request_id` when you report the error; it is "" where there is none.
    """

    def __init__(self, code: str, detail: str, status: int, request_id: str = "") -> None:
        super().__init__(code, detail)
        self.status = status
        self.request_id = request_id


class BadRequest(APIError):
    """The request or its image has to change: 400, 408, 413, 414, 415, 422 or 431."""


class AuthenticationError(APIError):
    """The API key is missing, unknown, or not allowed to do this: 401 or 403."""


class NotFound(APIError):
    """There is no such job, batch, model or classifier, or it has expired: 404."""


class Conflict(APIError):
    """A request with the same idempotency key is still being read, or a classifier must be trained again: 409."""


class NotNow(APIError):
    """The API does not serve the request now. `retry_after` is in seconds; None if the API does not say."""

    def __init__(
        self, code: str, detail: str, status: int, request_id: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(code, detail, status, request_id)
        self.retry_after = retry_after


class RateLimited(NotNow):
    """The quota is used up: 429."""


class Unavailable(NotNow):
    """The service cannot serve the request now: 503, another 5xx, or a 404 from a proxy in its place."""


class ExamplesFailed(ImageAnalysisError):
    """Some examples of a classifier cannot be used: `failed` has the label and the outcome of each.

    Nothing was trained. The service keeps what it knows of the other examples for an hour, if its operator has set
    nothing else: they cost little the next time.
    """

    def __init__(self, failed: Sequence[tuple[str, Outcome]], total: int) -> None:
        label, first = failed[0]
        name = str(first.source) if isinstance(first.source, str | PathLike) else f"an image of the label {label}"
        detail = f"{len(failed)} of {total} examples cannot be used, the first is {name}: {first.error}"
        super().__init__("examples_failed", detail)
        self.failed = failed


class JobError(ImageAnalysisError):
    """A job gave no result."""

    def __init__(self, code: str, detail: str, job_id: UUID) -> None:
        super().__init__(code, detail)
        self.job_id = job_id


class JobFailed(JobError):
    """The job is FAILED; `code` and `detail` are those of its error."""


class JobCancelled(JobError):
    """The job was cancelled."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__("job_cancelled", f"The job {job_id} was cancelled.", job_id)


class WaitTimeout(JobError):
    """The job has not ended in time. It goes on: wait again, or cancel it."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__("wait_timeout", f"The job {job_id} has not ended in time.", job_id)
