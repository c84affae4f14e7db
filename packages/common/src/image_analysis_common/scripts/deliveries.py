"""The scripts that hand out the webhooks that are pending."""

from collections.abc import Mapping

from image_analysis_common import keys
from image_analysis_common.scripts.source import ScriptCall, load

MAX_SCANNED = 200
"""The most deliveries that one call looks at; it takes Redis 0.2 ms."""

_CLAIM_DELIVERIES, _RETRY_DELIVERY = map(load, ("claim_deliveries", "retry_delivery"))


def claim_deliveries(free: int, busy: Mapping[str, int], *, retries: int, lease_s: float, aside_s: float) -> ScriptCall:
    """Claim up to `free` deliveries, `retries` of them at most that were claimed before.

    `busy` holds the number of attempts in progress for each receiver.
    """
    pairs = (word for pair in busy.items() for word in pair)
    return _CLAIM_DELIVERIES.call((keys.DELIVERIES,), free, lease_s, aside_s, MAX_SCANNED, retries, *pairs)


def retry_delivery(job_id: str, attempts: int, *, delay_s: float) -> ScriptCall:
    """Make a delivery due again after `delay_s`, if `attempts` is still its latest attempt."""
    return _RETRY_DELIVERY.call((keys.DELIVERIES, keys.delivery(job_id)), job_id, attempts, f"{delay_s:.3f}")
