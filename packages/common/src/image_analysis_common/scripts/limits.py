"""The scripts of the rate limit and of idempotency keys."""

from typing import NamedTuple

from image_analysis_common.scripts.source import ScriptCall, load

_RATE_LIMIT, _CLAIM_KEY, _RELEASE_KEY = map(load, ("rate_limit", "claim_key", "release_key"))


class Quota(NamedTuple):
    """A client's list of requests, and how many it may send in a window."""

    key: str = ""
    limit: int = 0
    window_s: int = 0


NO_QUOTA = Quota()
"""For a request that is counted elsewhere."""


def rate_limit(key: str, *, limit: int, window_s: int, cost: int, instead_us: int = 0) -> ScriptCall:
    """Count `cost` requests in the client's list `key`, instead of the one counted at `instead_us`, if there is one."""
    return _RATE_LIMIT.call((key,), limit, window_s, cost, instead_us)


def claim_key(key: str, *, fingerprint: str, work_id: str, work: str, busy_s: float) -> ScriptCall:
    """Claim an idempotency key for the job or batch `work_id`, whose Redis key begins with `work`."""
    return _CLAIM_KEY.call((key,), fingerprint, work_id, work, busy_s)


def release_key(key: str, *, work_id: str, work: str) -> ScriptCall:
    """Release an idempotency key, unless its job or batch was accepted."""
    return _RELEASE_KEY.call((key,), work_id, work)
