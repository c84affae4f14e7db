"""Retries while Redis does not answer, and one log line at the start and the end of an outage."""

import math
from threading import Event

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError
from structlog.testing import capture_logs

from image_analysis_worker.outage import Outage


def test_call_is_repeated_until_redis_answers_and_each_change_is_one_line() -> None:
    outage, errors = Outage(Event()), [RedisConnectionError("gone"), ReadOnlyError("replica")]

    def call() -> str:
        if errors:
            raise errors.pop(0)
        return "answer"

    with capture_logs() as lines:
        answers = [outage.retry(call) for _ in range(3)]

    assert answers == ["answer"] * 3
    assert [(line["event"], line.get("cause")) for line in lines] == [
        ("store_unavailable", "ConnectionError: gone"),
        ("store_available", None),
    ]


def test_full_redis_is_no_outage_and_one_line_while_a_call_is_repeated() -> None:
    outage = Outage(Event())
    errors = [OutOfMemoryError(), OutOfMemoryError()]

    def call() -> str:
        if errors:
            outage.record(None)  # a heartbeat, which a full Redis accepts
            raise errors.pop()
        return "answer"

    with capture_logs() as lines:
        answer = outage.retry(call)

    assert (answer, outage.available_for_s) == ("answer", math.inf)
    assert [line["event"] for line in lines] == ["store_full"]


def test_outage_is_over_when_a_full_redis_answers() -> None:
    outage = Outage(Event())
    outage.record(RedisConnectionError())

    outage.record(OutOfMemoryError())

    assert 0 < outage.available_for_s < math.inf


def test_stopping_worker_does_not_wait_for_redis() -> None:
    is_stopping = Event()
    is_stopping.set()
    outage = Outage(is_stopping)

    def call() -> None:
        raise RedisConnectionError

    with pytest.raises(RedisError):
        outage.retry(call)


def test_time_since_an_outage_starts_at_its_end() -> None:
    outage = Outage(Event())

    never_s = outage.available_for_s
    outage.record(RedisConnectionError())
    away_s = outage.available_for_s
    outage.record(None)

    assert (never_s, away_s) == (math.inf, 0)
    assert 0 <= outage.available_for_s < 5
