"""Every error that a client or an operator can meet, on one page.

Class attributes carry the HTTP status, the stable code and whether trying again can help. The message is public:
it says what happened and what to do. The cause travels by `raise ... from` and is never shown.
"""

from typing import ClassVar


class ServiceError(Exception):
    """The root of the tree: an error with a public message."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class RequestError(ServiceError):
    """The caller has to change the request."""

    status = 400
    code = "invalid_request"


class InvalidBase64(RequestError):
    """image_data cannot be decoded."""

    code = "invalid_base64"


class UnsupportedImage(RequestError):
    """The bytes are no image of a format that the service reads."""

    code = "unsupported_image"


class ImageTooLarge(RequestError):
    """Too many bytes or too many pixels."""

    status = 413
    code = "image_too_large"


class BatchTooLarge(RequestError):
    """Too many images or bytes in one batch."""

    status = 413
    code = "batch_too_large"


class UrlRefused(RequestError):
    """The URL is malformed, or leads to a place that the service does not connect to."""

    code = "url_refused"


class HostUnknown(UrlRefused):
    """There is no such host; the message is that of a private one, so that nobody can list internal names."""


class FetchFailed(RequestError):
    """The URL's host did not return an image; another attempt may succeed."""

    code = "fetch_failed"
    retryable = True


class WebhooksDisabled(RequestError):
    """The service has no secret to sign webhooks with, so it sends none."""

    status = 403
    code = "webhooks_disabled"


class Unauthorized(RequestError):
    """The API key is missing or unknown."""

    status = 401
    code = "unauthorized"


class KeysRequired(RequestError):
    """The call is about the caller's own jobs, and the service has no API keys."""

    status = 403
    code = "keys_required"


class NotFound(RequestError):
    """There is no such path."""

    status = 404
    code = "not_found"


class JobNotFound(RequestError):
    """The job never existed, or its answer has expired."""

    status = 404
    code = "job_not_found"

    def __init__(self, detail: str = "There is no such job: it never existed, or its answer has expired.") -> None:
        super().__init__(detail)


class BatchNotFound(RequestError):
    """The batch never existed, or none of its jobs is known any more."""

    status = 404
    code = "batch_not_found"

    def __init__(self, detail: str = "There is no such batch: it never existed, or its answers have expired.") -> None:
        super().__init__(detail)


class ModelNotFound(RequestError):
    """No worker has served the model in the last day."""

    status = 404
    code = "model_not_found"


class MethodNotAllowed(RequestError):
    """The path exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


class RequestTimeout(RequestError):
    """The body took too long to arrive."""

    status = 408
    code = "request_timeout"
    retryable = True


class RequestInProgress(RequestError):
    """A request with the same Idempotency-Key is still being read."""

    status = 409
    code = "request_in_progress"
    retryable = True


class IdempotencyKeyReused(RequestError):
    """The key was used for a different request."""

    status = 422
    code = "idempotency_key_reused"


class UnsupportedMediaType(RequestError):
    """The body has a content type that the service does not read."""

    status = 415
    code = "unsupported_media_type"


class RateLimited(RequestError):
    """The client has used up its requests; it may send one again in `retry_after_s` seconds."""

    status = 429
    code = "rate_limited"
    retryable = True

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Unavailable(ServiceError):
    """Nothing is wrong with the request; the service cannot serve it now."""

    status = 503
    code = "unavailable"
    retryable = True
    retry_after_s: int = 5


class StoreUnavailable(Unavailable):
    """Redis does not answer, or refuses."""

    code = "store_unavailable"


class UnreadableRecord(Unavailable):
    """Another release wrote a record that this process cannot read; a process of that release can."""

    code = "unreadable_record"

    def __init__(
        self, detail: str = "Another release of the service wrote this record: try again in a few seconds."
    ) -> None:
        super().__init__(detail)


class QueueFull(Unavailable):
    """Too many images wait; there should be room in `retry_after_s` seconds."""

    code = "queue_full"

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class TooManyDeliveries(Unavailable):
    """Too many webhooks are pending for a job to request another one."""

    code = "too_many_deliveries"
    retry_after_s = 60


class TooManyWaiters(Unavailable):
    """This process, or the client's share of it, has no room for another waiting client."""

    code = "too_many_waiters"


class NoWorker(Unavailable):
    """No worker of the model has reported lately."""

    code = "no_worker"


class JobError(ServiceError):
    """A job that ends as FAILED; running it again would end the same way."""


class CorruptImage(JobError):
    """The header is that of an image, but the rest cannot be decoded."""

    code = "corrupt_image"


class UnsupportedDimensions(JobError):
    """The model's image processor cannot resize an image of these dimensions, or would make it too large."""

    code = "unsupported_dimensions"


class ImageExpired(JobError):
    """The image expired before a worker took the job."""

    code = "image_expired"


class JobTimeout(JobError):
    """The image took longer than a job may."""

    code = "job_timeout"


class WorkerLost(JobError):
    """The worker died on every attempt at the job."""

    code = "worker_lost"


class StartupError(Exception):
    """The process cannot do its work as configured; the message is one line for the operator."""
