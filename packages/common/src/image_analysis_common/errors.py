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
    """More images in one request than may be."""

    status = 413
    code = "batch_too_large"


class UrlRefused(RequestError):
    """The URL is malformed, or leads where the service does not go."""

    code = "url_refused"


class HostUnknown(UrlRefused):
    """There is no such host: clients are told no more than of one that leads inside."""


class FetchFailed(RequestError):
    """The URL's host did not give an image; it may on another try."""

    code = "fetch_failed"
    retryable = True


class WebhooksDisabled(RequestError):
    """The service has no secret to sign webhooks with, so it sends none."""

    status = 403
    code = "webhooks_disabled"


class Unauthorized(RequestError):
    """No key, or none that is known."""

    status = 401
    code = "unauthorized"


class KeysRequired(RequestError):
    """The call is about the caller's own, and the service does not know its callers."""

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
    """The path exists, for other methods."""

    status = 405
    code = "method_not_allowed"


class RequestTimeout(RequestError):
    """The body took too long to arrive."""

    status = 408
    code = "request_timeout"
    retryable = True


class RequestInProgress(RequestError):
    """The same request is being taken in at this moment."""

    status = 409
    code = "request_in_progress"
    retryable = True


class IdempotencyKeyReused(RequestError):
    """The key came with another request before."""

    status = 422
    code = "idempotency_key_reused"


class UnsupportedMediaType(RequestError):
    """The body is of a kind that the service does not read."""

    status = 415
    code = "unsupported_media_type"


class RateLimited(RequestError):
    """The client has used up its quota; `retry_after_s` seconds from now there is room again."""

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


class QueueFull(Unavailable):
    """Too much waits already; in `retry_after_s` seconds there should be room again."""

    code = "queue_full"

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class TooManyDeliveries(Unavailable):
    """So many webhooks have still to be told that no job can ask for one more."""

    code = "too_many_deliveries"
    retry_after_s = 60


class TooManyWaiters(Unavailable):
    """This process, or the client's share of it, holds as many open waits as it may."""

    code = "too_many_waiters"


class NoWorker(Unavailable):
    """No worker of the model was heard of lately."""

    code = "no_worker"


class JobError(ServiceError):
    """A job that ends as FAILED; running it again would end the same way."""


class CorruptImage(JobError):
    """The header promised an image, the rest does not hold one."""

    code = "corrupt_image"


class UnsupportedDimensions(JobError):
    """The model's image processor cannot resize an image of these dimensions, or would make it too large."""

    code = "unsupported_dimensions"


class ImageExpired(JobError):
    """The image's bytes were gone before a worker came to them."""

    code = "image_expired"


class JobCancelled(JobError):
    """Its owner took it back before a worker came to it."""

    code = "job_cancelled"


class JobTimeout(JobError):
    """The image took longer than a job may."""

    code = "job_timeout"


class WorkerLost(JobError):
    """Every attempt at the job ended with its worker."""

    code = "worker_lost"


class StartupError(Exception):
    """The process cannot do its work as configured; the message is one line for the operator."""
