"""What a process remembers of clients that have no request left: within a bound, the latest ones."""

from unittest.mock import Mock

import pytest
from starlette.requests import HTTPConnection

from image_analysis_api.access import admission as module
from image_analysis_api.access.admission import Admission
from image_analysis_api.access.rate_limit import RateLimiter

LAST_REQUEST = [1, 0, 60, 1]
"""A script's answer: admitted, none left, for 60 seconds."""


def connection(address: str) -> HTTPConnection:
    headers = [(b"content-length", b"100")]
    return HTTPConnection({"type": "http", "client": (address, 1), "headers": headers, "state": {"headers": {}}})


@pytest.fixture
def admission(monkeypatch: pytest.MonkeyPatch) -> Admission:
    monkeypatch.setattr(module, "MAX_EXHAUSTED", 2)
    return Admission([], RateLimiter(Mock(), max_requests=5, interval_s=60))


def test_client_that_uses_up_its_quota_again_takes_no_place_of_another_one(admission: Admission) -> None:
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.2"):
        admission.note(connection(address), None, LAST_REQUEST, 1)

    assert not admission.may_count_later(connection("192.0.2.1"), None, 1)
    assert not admission.may_count_later(connection("192.0.2.2"), None, 1)


def test_client_that_was_noted_longest_ago_is_forgotten_first(admission: Admission) -> None:
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        admission.note(connection(address), None, LAST_REQUEST, 1)

    assert admission.may_count_later(connection("192.0.2.2"), None, 1)
    assert not admission.may_count_later(connection("192.0.2.1"), None, 1)
