"""What a service checks about Redis when it starts: that Redis accepts it and is new enough.

The version comes from HELLO. Unlike INFO, no access control list can forbid it.
"""

from collections.abc import Sequence
from typing import Any

from image_analysis_common.startup import StartupError

OLDEST_REDIS = (6, 2)
"""6.2 introduced BLMOVE, with which a worker pops a job without ever losing it."""


def check_redis_version(hello: Sequence[Any]) -> None:
    """Refuse a Redis that is too old.

    Args:
        hello: the answer to HELLO over RESP 2, names and values in turn; empty from a Redis before 6.0, which does
            not know the command.

    Raises:
        StartupError: the version is below `OLDEST_REDIS`.
    """
    answer = dict(zip(hello[::2], hello[1::2], strict=True))
    version = answer.get(b"version", b"5").decode()
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        oldest = ".".join(str(part) for part in OLDEST_REDIS)
        found = f"Redis {version}" if answer else "Redis before 6.0"
        raise StartupError(f"{found} is too old: the service needs Redis {oldest} or newer.")


def refused_by_redis(cause: Exception) -> StartupError:
    """Make the error for a wrong user, password or database, or for missing permissions."""
    return StartupError(f"Redis refuses this service: {cause}. Check user, password and database in REDIS_URL.")
