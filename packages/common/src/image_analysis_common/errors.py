"""The errors of requests; those of jobs are in `job_errors`.

Class attributes hold the HTTP status, the stable code and the default sentence. The sentence is public: it says what
happened and what to do. The cause is attached by `raise ... from` and never shown to clients.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from image_analysis_common.images import FORMATS


class ServiceError(Exception):
    """The base of all errors with a public sentence.

    The sentence is `detail` if given, otherwise the class's `sentence`, formatted with `values`. `example` holds the
    values that the OpenAPI document shows.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    sentence: ClassVar[str] = "Something went wrong in the service: report it with the request ID."
    example: ClassVar[Mapping[str, Any]] = {}
    retry_after_s: int | None = None

    def __init__(self, detail: str = "", **values: Any) -> None:
        self.detail = detail or self.sentence.format(**values)
        self.retry_after_s = values.get("retry_after_s", self.retry_after_s)
        super().__init__(self.detail)


class RequestError(ServiceError):
    """The caller has to change the request."""

    status, code = 400, "invalid_request"
    sentence = "Send exactly one of image_data and image_url."


class InvalidBase64(RequestError):
    """The base64 of the image cannot be decoded."""

    code = "invalid_base64"
    sentence = "The image is not valid base64: use the standard alphabet, with padding and no line breaks."


class UnsupportedImage(RequestError):
    """The bytes are not an image in a supported format."""

    code = "unsupported_image"
    sentence = "These bytes are not a supported image: send one of {formats}."
    example: ClassVar[Mapping[str, Any]] = {"formats": ", ".join(FORMATS)}


class ImageTooLarge(RequestError):
    """Too many bytes or too many pixels."""

    status, code = 413, "image_too_large"
    sentence = "The image has {size} {unit}, and the limit is {limit}: send a smaller one."
    example: ClassVar[Mapping[str, Any]] = {"size": 12_000_000, "unit": "bytes", "limit": 10_000_000}


class BatchTooLarge(RequestError):
    """Too many images or bytes in one batch."""

    status, code = 413, "batch_too_large"
    sentence = "A batch may have {limit} images, and this one has {images}: send several batches."
    example: ClassVar[Mapping[str, Any]] = {"limit": 64, "images": 65}


class UrlRefused(RequestError):
    """The URL is malformed, or leads to a place that the service does not connect to."""

    code = "url_refused"
    sentence = "The URL's host has no public address to connect to: check the name."


class HostUnknown(UrlRefused):
    """There is no such host. The sentence is the same as for a private host, so that clients cannot probe for names."""


class FetchFailed(RequestError):
    """The URL's host did not return an image; another attempt may succeed."""

    code = "fetch_failed"
    sentence = "The image did not arrive within {timeout_s:g} s: try again, or send the image itself."
    example: ClassVar[Mapping[str, Any]] = {"timeout_s": 10}


class WebhooksDisabled(RequestError):
    """The service has no secret to sign webhooks with, so it sends none."""

    status, code = 403, "webhooks_disabled"
    sentence = "This service sends no webhooks: its operator has to set WEBHOOK_SECRET."


class Unauthorized(RequestError):
    """The API key is missing or unknown."""

    status, code = 401, "unauthorized"
    sentence = "The API key is missing or unknown. Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`."


class KeysRequired(RequestError):
    """The call is about the caller's own jobs, and the service has no API keys."""

    status, code = 403, "keys_required"
    sentence = "This service does not know its callers: its operator has to set API_KEYS."


class NotFound(RequestError):
    """There is no such path."""

    status, code = 404, "not_found"
    sentence = "There is no such path: see /docs."


class JobNotFound(RequestError):
    """The job never existed, or its answer has expired."""

    status, code = 404, "job_not_found"
    sentence = "There is no such job: it never existed, or its answer has expired."


class BatchNotFound(RequestError):
    """The batch never existed, or none of its jobs is known any more."""

    status, code = 404, "batch_not_found"
    sentence = "There is no such batch: it never existed, or its answers have expired."


class ModelNotFound(RequestError):
    """No worker has served the model in the last day."""

    status, code = 404, "model_not_found"
    sentence = "There is no such model. Known models: {known}."
    example: ClassVar[Mapping[str, Any]] = {"known": "vit-tiny-cifar10"}


class MethodNotAllowed(RequestError):
    """The path exists, but not for this method."""

    status, code = 405, "method_not_allowed"


class RequestTimeout(RequestError):
    """The body took too long to arrive."""

    status, code = 408, "request_timeout"
    sentence = "The body did not arrive within {timeout_s:g} s: send a smaller one."
    example: ClassVar[Mapping[str, Any]] = {"timeout_s": 60}


class RequestInProgress(RequestError):
    """A request with the same Idempotency-Key is still being read."""

    status, code = 409, "request_in_progress"
    sentence = "A request with this Idempotency-Key is still being read: try again in a second."


class IdempotencyKeyReused(RequestError):
    """The key was used for a different request."""

    status, code = 422, "idempotency_key_reused"
    sentence = "This Idempotency-Key was used for a different request: use a new one."


class UnsupportedMediaType(RequestError):
    """The body has an unsupported content type."""

    status, code = 415, "unsupported_media_type"
    sentence = "Set the Content-Type to application/json, multipart/form-data, image/* or application/octet-stream."


class UrlTooLong(RequestError):
    """The URL is too long."""

    status, code = 414, "url_too_long"
    sentence = "The URL is over {limit} bytes: send a shorter one."
    example: ClassVar[Mapping[str, Any]] = {"limit": 8000}


class HeadersTooLarge(RequestError):
    """The headers, or the trailers, are too large or too many."""

    status, code = 431, "headers_too_large"
    sentence = "The request has over {limit} headers: send fewer."
    example: ClassVar[Mapping[str, Any]] = {"limit": 100}


class RateLimited(RequestError):
    """The client has used up its requests; it may send one again in `retry_after_s` seconds."""

    status, code = 429, "rate_limited"

    sentence = "The limit is {max_requests} requests in {interval_s} s: try again in {retry_after_s} s."
    example: ClassVar[Mapping[str, Any]] = {"max_requests": 5, "interval_s": 60, "retry_after_s": 42}


class Unavailable(ServiceError):
    """Nothing is wrong with the request; the service cannot serve it now."""

    status, code = 503, "unavailable"
    retry_after_s = 5
    sentence = "The service is busy: try again in a few seconds."


class StoreUnavailable(Unavailable):
    """Redis does not answer, or refuses."""

    code = "store_unavailable"
    sentence = "The service cannot reach its store: try again in a few seconds."


class UnreadableRecord(Unavailable):
    """Another release wrote the record in a form that this process cannot read; a process of that release can."""

    code = "unreadable_record"
    sentence = "Another release of the service wrote this record: try again in a few seconds."


class QueueFull(Unavailable):
    """Too many images wait; there should be room in `retry_after_s` seconds."""

    code = "queue_full"

    sentence = "{depth} images wait, and no more are accepted: try again in {retry_after_s} s."
    example: ClassVar[Mapping[str, Any]] = {"depth": 1000, "retry_after_s": 40}


class TooManyDeliveries(Unavailable):
    """Too many webhooks are pending for a job to request another one."""

    code = "too_many_deliveries"
    retry_after_s = 60
    sentence = "Too many webhooks are pending: try again later, or ask for the status instead."


class TooManyWaiters(Unavailable):
    """Too many clients wait in this process, or too many of this client."""

    code = "too_many_waiters"
    sentence = "Too many clients are waiting: ask for the status from time to time instead."


class NoWorker(Unavailable):
    """No worker of the model has reported lately."""

    code = "no_worker"
    sentence = "No worker serves the model: images are accepted and wait. Start a worker."
