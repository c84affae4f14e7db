"""The scripts of the rate limit and of idempotency keys."""

from image_analysis_common.scripts.source import ScriptCall, load

_ADMIT, _CLAIM_KEY, _RELEASE_KEY = map(load, ("admit", "claim_key", "release_key"))


def admit(key: str, *, limit: int, window_s: int, cost: int, whole: int) -> ScriptCall:
    """Count `cost` requests in the client's list `key`, as part of a request that costs `whole` in total."""
    return _ADMIT.call((key,), limit, window_s, cost, whole)


def claim_key(key: str, *, fingerprint: str, work_id: str, work: str, busy_s: float) -> ScriptCall:
    """Claim an idempotency key for the job or batch `work_id`, whose Redis key begins with `work`."""
    return _CLAIM_KEY.call((key,), fingerprint, work_id, work, busy_s)


def release_key(key: str, *, work_id: str, work: str) -> ScriptCall:
    """Release an idempotency key, unless its job or batch was accepted."""
    return _RELEASE_KEY.call((key,), work_id, work)
