"""Answers that are errors: each status has its class, and a refusal for now says when to come again."""

import httpx
import pytest

from image_analysis_client import errors
from image_analysis_client.answers import check

PROBLEM = {"code": "a_code", "detail": "What happened.", "request_id": "r1"}


def read_error(status: int, **headers: str) -> errors.APIError:
    request = httpx.Request("GET", "http://127.0.0.1:8000/models")
    kind = {"Content-Type": "application/problem+json"}
    with pytest.raises(errors.APIError) as caught:
        check(httpx.Response(status, json=PROBLEM, headers=kind | headers, request=request))
    return caught.value


@pytest.mark.parametrize(
    ("status", "family"),
    [
        (400, errors.BadRequest),
        (401, errors.AuthenticationError),
        (404, errors.NotFound),
        (408, errors.BadRequest),
        (409, errors.Conflict),
        (418, errors.APIError),
        (429, errors.RateLimited),
        (500, errors.Unavailable),
        (503, errors.Unavailable),
    ],
)
def test_status_decides_the_class(status: int, family: type[errors.APIError]) -> None:
    error = read_error(status)

    assert type(error) is family
    assert (error.code, error.detail, error.status, error.request_id) == ("a_code", "What happened.", status, "r1")


@pytest.mark.parametrize(("has_answered", "family"), [(False, errors.APIError), (True, errors.Unavailable)])
def test_404_of_a_proxy_says_nothing_about_a_job(family: type[errors.APIError], *, has_answered: bool) -> None:
    request = httpx.Request("GET", "http://127.0.0.1:8000/analysis-batches/1")

    with pytest.raises(errors.APIError, match="a proxy may be in between, or the address is wrong") as caught:
        check(httpx.Response(404, text="404 page not found", request=request), has_answered=has_answered)

    assert type(caught.value) is family
    assert (caught.value.code, caught.value.status) == ("unexpected_response", 404)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 -1200"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_refusal_for_now_says_when_to_come_again(status: int, headers: dict[str, str], expected: float | None) -> None:
    error = read_error(status, **headers)

    assert isinstance(error, errors.NotNow)
    assert error.retry_after == expected
