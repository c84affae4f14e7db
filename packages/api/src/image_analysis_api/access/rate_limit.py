"""The rate limit: an exact sliding window for each client, in one Lua script that uses the Redis server's clock."""

import time
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, cast

import structlog
from redis.asyncio import Redis

from image_analysis_api.metrics import RATE_LIMIT_VERDICTS, labeled
from image_analysis_api.store.client import run_script
from image_analysis_common.errors import StoreUnavailable
from image_analysis_common.scripts import limits

FAIL_OPEN_WITHIN_S = 0.1
"""A slower error means that Redis hangs: then the request is refused, because its next call to Redis would hang too."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Verdict:
    """Whether a request is admitted, how many more would be, and when the next one, or this one if refused, will be.

    `counted_us` is the time at which it was counted, in microseconds on Redis's clock.
    """

    is_admitted: bool
    remaining: int
    reset_s: int
    counted_us: int = field(default=0, compare=False)


class RateLimiter:
    """Counts requests under one Redis key for each client, exactly, across all API processes."""

    def __init__(self, redis: Redis, *, max_requests: int, interval_s: int, is_fail_open: bool = False) -> None:
        self._redis = redis
        self.max_requests = max_requests
        self.interval_s = interval_s
        self.is_fail_open = is_fail_open

    async def admit(self, key: str, cost: int = 1, *, instead_us: int = 0) -> Verdict | None:
        """Count `cost` requests of a client, or only check with 0. None admits the request without counting it.

        None is returned if Redis fails and the limit fails open. `instead_us` is the time of an earlier count of the
        same request, which is removed first. A refused request costs nothing.

        Raises:
            StoreUnavailable: Redis fails, and the limit fails closed; or Redis hangs.
        """
        started_s = time.monotonic()
        call = limits.rate_limit(
            key, limit=self.max_requests, window_s=self.interval_s, cost=cost, instead_us=instead_us
        )
        try:
            answer = await run_script(self._redis, call)
        except StoreUnavailable as error:
            if not self.is_fail_open or time.monotonic() - started_s > FAIL_OPEN_WITHIN_S:
                raise
            RATE_LIMIT_VERDICTS.labels("uncounted").inc()
            log.warning("rate_limit_skipped", cause=str(error.__cause__))
            return None
        return self.read(answer, cost)

    def quota(self, key: str) -> limits.Quota:
        """Return a client's quota, for a script that counts the request; `read` reads the script's answer."""
        return limits.Quota(key, self.max_requests, self.interval_s)

    def read(self, answer: Any, cost: int) -> Verdict:
        """Read the answer of a script that counted a request."""
        admitted, remaining, reset_s, now_us = cast(list[int], answer)
        if cost:
            labeled(RATE_LIMIT_VERDICTS, "admitted" if admitted else "refused").inc()
        return Verdict(bool(admitted), remaining, reset_s, now_us)

    def headers(self, verdict: Verdict) -> dict[str, str]:
        """Make the headers of a verdict (IETF draft `ratelimit-headers-10`)."""
        return {
            "RateLimit-Policy": f'"default";q={self.max_requests};w={self.interval_s}',
            "RateLimit": f'"default";r={verdict.remaining};t={verdict.reset_s}',
        }


@lru_cache(maxsize=4096)
def client_address(host: str | None) -> str:
    """Name the client that a limit counts: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        address = ip_address(host or "")
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
    return str(address)
