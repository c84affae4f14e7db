"""The delay before a failed delivery is retried."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import uniform

from image_analysis_api.server.counts import read_count

FIRST_S, FACTOR, LONGEST_S = 1.0, 4.0, 3600.0
"""Retries after 1, 4, 16 seconds and so on, then every hour: about thirty in a day."""


def choose_delay_s(attempts: int, retry_after: str = "") -> float:
    """Choose the time until the next attempt, from the number of attempts so far.

    A longer `Retry-After` is respected, up to an hour. The time varies by 20 %, so that deliveries that failed together
    are not retried together; but none comes before its `Retry-After`.
    """
    delay_s: float = min(FIRST_S * FACTOR ** min(attempts - 1, 10), LONGEST_S)
    asked_s = min(_read_s(retry_after), LONGEST_S)
    return max(delay_s * uniform(0.8, 1.2), asked_s * uniform(1, 1.2))  # noqa: S311


def _read_s(retry_after: str) -> float:
    """Read `Retry-After`, in seconds or as a date; return 0 if it is neither."""
    if (delay_s := read_count(retry_after)) is not None:
        return float(delay_s)
    try:
        return max((parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):  # a date without a time zone; a year of 20 digits
        return 0.0
