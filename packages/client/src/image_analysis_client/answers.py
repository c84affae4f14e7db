"""Reading the API's answers: models, results, and errors."""

from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from image_analysis_client.errors import (
    APIError,
    AuthenticationError,
    BadRequest,
    Conflict,
    JobCancelled,
    JobError,
    JobFailed,
    NotFound,
    NotNow,
    RateLimited,
    Unavailable,
)
from image_analysis_client.responses import AnalysisStatus, Problem
from image_analysis_client.retries import read_retry_after
from image_analysis_common.models import AnalysisResult, JobStatus

UNEXPECTED = "unexpected_response"
FAMILIES: dict[int, type[APIError]] = {
    **dict.fromkeys((400, 408, 413, 414, 415, 422, 431), BadRequest),
    **dict.fromkeys((401, 403), AuthenticationError),
    404: NotFound,
    409: Conflict,
    429: RateLimited,
}

Answer = TypeVar("Answer", bound=BaseModel)


def check(response: httpx.Response, *, has_answered: bool = False) -> None:
    """Raise the error that an answer is; its body has been read.

    A 404 that is not the API's own says nothing about a job. If the API `has_answered` before at this address, it is
    away for a moment, and a proxy answers in its place.
    """
    if response.is_success:
        return
    error = _read_error(response)
    if isinstance(error, NotFound) and error.code == UNEXPECTED:
        family = Unavailable if has_answered else APIError
        raise family(error.code, error.detail, error.status, error.request_id)
    raise error


def is_from_api(response: httpx.Response) -> bool:
    """Whether a successful answer can be the API's: a page for people is from elsewhere."""
    return _kind(response).startswith(("application/json", "text/event-stream"))


def parse(response: httpx.Response, kind: type[Answer]) -> Answer:
    """Read the body of a successful answer.

    Raises:
        APIError: it is something else.
    """
    return parse_part(response, response.content, kind)


def parse_part(response: httpx.Response, content: str | bytes, kind: type[Answer]) -> Answer:
    """Read a part of a successful answer, such as an event of a stream.

    Raises:
        APIError: it is something else.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise _unexpected(response) from error


def check_stream(response: httpx.Response) -> None:
    """Check that a successful answer is a stream of events.

    Raises:
        APIError: it is something else.
    """
    if not _kind(response).startswith("text/event-stream"):
        raise _unexpected(response)


def result_of(status: AnalysisStatus) -> AnalysisResult:
    """Return the result of a job that has ended.

    Raises:
        JobFailed, JobCancelled: it has none.
    """
    if status.result is None:
        raise failure_of(status)
    return status.result


def failure_of(status: AnalysisStatus) -> JobError:
    """Return the error of a job that has ended without what was asked for."""
    if status.status is JobStatus.CANCELLED:
        return JobCancelled(status.job_id)
    code, detail = (status.error.code, status.error.detail) if status.error else (UNEXPECTED, "It has no result.")
    return JobFailed(code, detail, status.job_id)


def _read_error(response: httpx.Response) -> APIError:
    status, request_id = response.status_code, _request_id(response)
    code, detail = UNEXPECTED, _explain(response)
    if _kind(response).startswith("application/problem+json"):
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError:
            pass
        else:
            code, detail, request_id = problem.code, problem.detail, problem.request_id or request_id
    family = FAMILIES.get(status, Unavailable if status >= httpx.codes.INTERNAL_SERVER_ERROR else APIError)
    if issubclass(family, NotNow):
        return family(code, detail, status, request_id, read_retry_after(response.headers))
    return family(code, detail, status, request_id)


def _unexpected(response: httpx.Response) -> APIError:
    return APIError(
        UNEXPECTED,
        f"{_where(response)} answered {response.status_code}, but not as the API does: is the address right?",
        response.status_code,
        _request_id(response),
    )


def _explain(response: httpx.Response) -> str:
    """Describe an error that is not the API's own; its body is for people with a browser."""
    where = _where(response)
    if response.is_redirect:
        return f"{where} answered {response.status_code}, a redirect, and the client follows none: correct the address."
    kind = response.headers.get("content-type", "").partition(";")[0] or "nothing"
    return (
        f"{where} answered {response.status_code} {response.reason_phrase} with {kind}, which is not from the API: "
        "a proxy may be in between, or the address is wrong."
    )


def _kind(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).lower()


def _where(response: httpx.Response) -> str:
    url = response.request.url
    return f"{url.scheme}://{url.netloc.decode()}"


def _request_id(response: httpx.Response) -> str:
    return str(response.headers.get("x-request-id", ""))
