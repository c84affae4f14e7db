"""When a failed call is worth another attempt, and when that is due."""

import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from image_analysis_client.errors import (
    APIError,
    Conflict,
    ImageAnalysisError,
    NotNow,
    RateLimited,
    ServiceUnreachable,
    Unavailable,
)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
GATEWAY_STATUSES = (404, 502, 503, 504)
"""What a service that is away for a moment, or a proxy in its place, answers as `Unavailable`."""

WAITED_FOR = frozenset({"queue_full", "rate_limited"})
"""What says only that this client or others have sent enough for now."""


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds a `Retry-After` asks for, as seconds or as an HTTP date; None if there is none."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) < 18 else None
    try:
        due = parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, OverflowError):  # no date, or one after the last that Python knows
        return None
    return max((due - datetime.now(UTC)).total_seconds(), 0.0)


def is_transient(error: ImageAnalysisError) -> bool:
    """Whether the same request can succeed later."""
    match error:
        case ServiceUnreachable() | RateLimited():
            return True
        case Unavailable():
            return error.status in GATEWAY_STATUSES
        case Conflict():
            return error.code == "request_in_progress"
        case _:
            return False


def is_refusal(error: ImageAnalysisError) -> bool:
    """Whether the API has not accepted the request: after any other error, it may have."""
    is_answered = isinstance(error, APIError) and error.status < httpx.codes.INTERNAL_SERVER_ERROR
    return error.code in WAITED_FOR or (is_answered and error.code != "request_in_progress")


class Patience:
    """How long one call is retried: `max_s` from its first failure on."""

    def __init__(
        self, max_s: float, *, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._max_s = max_s
        self._clock = clock
        self._chance = chance
        self.renew()

    def renew(self) -> None:
        """Begin anew: the next failure is the first one."""
        self._failures = 0
        self._ends_at: float | None = None

    def pause_after(self, error: ImageAnalysisError) -> float:
        """Return how many seconds to wait before the next attempt; raise the error if there is to be none."""
        now = self._clock()
        self._ends_at = now + self._max_s if self._ends_at is None else self._ends_at
        asked_s = error.retry_after if isinstance(error, NotNow) else None
        if asked_s is None:
            pause_s = min(FIRST_PAUSE_S * 2.0 ** min(self._failures, 10), LONGEST_PAUSE_S) * (0.5 + self._chance() / 2)
        else:
            pause_s = asked_s + self._chance() * min(max(asked_s, FIRST_PAUSE_S) / 2, 1.0)
        self._failures += 1
        if not is_transient(error) or now + pause_s > self._ends_at:
            raise error
        return pause_s
