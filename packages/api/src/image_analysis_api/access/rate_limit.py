"""The rate limit: an exact sliding window for each client, in one Lua script on the Redis server's clock."""

import time
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import cast

import structlog
from redis.asyncio import Redis

from image_analysis_api.metrics import RATE_LIMIT_VERDICTS
from image_analysis_api.store.client import run_script
from image_analysis_common.errors import StoreUnavailable
from image_analysis_common.scripts import limits

FAIL_OPEN_WITHIN_S = 0.1
"""An error that takes longer comes from a Redis that hangs: the rest of the request would wait as long once more."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Verdict:
    """Whether a request may pass, how many more may, and when there is room again: for it, or for one more."""

    is_admitted: bool
    remaining: int
    reset_s: int


class RateLimiter:
    """Counts requests under a Redis key for each client, exactly, over any number of API processes."""

    def __init__(self, redis: Redis, *, max_requests: int, interval_s: int, is_fail_open: bool = False) -> None:
        self._redis = redis
        self.max_requests = max_requests
        self.interval_s = interval_s
        self._is_fail_open = is_fail_open

    async def admit(self, key: str, cost: int = 1, *, counted: int = 0) -> Verdict | None:
        """Ask for `cost` requests of a client; 0 only looks. None lets it pass, for nobody can say: the limit is open.

        Of a request that costs more than one, so many may have been `counted` before.

        Raises:
            StoreUnavailable: nobody can say now, and the limit fails closed, or Redis hangs.
        """
        started_s = time.monotonic()
        call = limits.admit(key, limit=self.max_requests, window_s=self.interval_s, cost=cost, whole=counted + cost)
        try:
            answer = await run_script(self._redis, call)
        except StoreUnavailable as error:
            if not self._is_fail_open or time.monotonic() - started_s > FAIL_OPEN_WITHIN_S:
                raise
            RATE_LIMIT_VERDICTS.labels("uncounted").inc()
            log.warning("rate_limit_skipped", cause=str(error.__cause__))
            return None
        admitted, remaining, reset_s = cast(list[int], answer)
        if cost:
            RATE_LIMIT_VERDICTS.labels("admitted" if admitted else "refused").inc()
        return Verdict(bool(admitted), remaining, reset_s)

    def headers(self, verdict: Verdict) -> dict[str, str]:
        """Write a verdict as the IETF draft `ratelimit-headers-10` has it."""
        return {
            "RateLimit-Policy": f'"default";q={self.max_requests};w={self.interval_s}',
            "RateLimit": f'"default";r={verdict.remaining};t={verdict.reset_s}',
        }


def client_address(host: str | None) -> str:
    """Name the client that a limit counts: an IPv4 address, or the /64 that an IPv6 client has to itself."""
    try:
        address = ip_address(host or "")
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
    return str(address)
