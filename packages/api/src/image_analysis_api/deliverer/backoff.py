"""When a delivery that has failed is tried again."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import uniform

from image_analysis_api.server.counts import read_count

FIRST_S, FACTOR, LONGEST_S = 1.0, 4.0, 3600.0
"""After 1, 4, 16 seconds and so on, then every hour: some thirty times in a day."""


def choose_delay_s(attempts: int, retry_after: str = "") -> float:
    """Give the time until the next attempt after so many; longer, but an hour at most, where the receiver asks for it.

    Up to a fifth more or less, so that what has failed together does not come together again.
    """
    delay_s: float = min(FIRST_S * FACTOR ** min(attempts - 1, 10), LONGEST_S)
    return max(delay_s, min(_read_s(retry_after), LONGEST_S)) * uniform(0.8, 1.2)  # noqa: S311


def _read_s(retry_after: str) -> float:
    """Read `Retry-After`: seconds, or a date; 0 where it is neither."""
    if (delay_s := read_count(retry_after)) is not None:
        return float(delay_s)
    try:
        return max((parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):  # no zone: no difference to ours; a year of 20 digits: no C integer
        return 0.0
