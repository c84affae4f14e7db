"""The oldest supported Redis."""

from image_analysis_common.startup import StartupError

OLDEST_REDIS = (6, 2)
"""6.2 introduced BLMOVE, with which a worker pops a job without ever losing it."""


def check_redis_version(version: str) -> None:
    """Refuse a Redis that is too old.

    Raises:
        StartupError: `version`, as INFO reports it, is below `OLDEST_REDIS`.
    """
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        oldest = ".".join(str(part) for part in OLDEST_REDIS)
        raise StartupError(f"Redis {version} is too old: the service needs Redis {oldest} or newer.")
