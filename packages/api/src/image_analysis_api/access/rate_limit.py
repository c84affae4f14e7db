"""The rate limit: an exact sliding window for each client, in one Lua script on the Redis server's clock."""

import time
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import cast

import structlog
from redis.asyncio import Redis

from image_analysis_api.metrics import RATE_LIMIT_VERDICTS
from image_analysis_api.store.client import reaching_redis
from image_analysis_common.errors import StoreUnavailable

FAIL_OPEN_WITHIN_S = 0.1
"""An error that takes longer comes from a Redis that hangs: the rest of the request would wait as long once more."""

log = structlog.get_logger(__name__)

# A list of the times (µs) of the requests that were let through in the last window, oldest first. A refused request
# is not noted: Retry-After stays true. A clock that was set back leaves times of the future; they are dropped. What is
# refused fits when so many of the oldest have left that there is room for `whole`.
WINDOW = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local limit, window, cost, whole = tonumber(ARGV[1]), ARGV[2] * 1000000, tonumber(ARGV[3]), tonumber(ARGV[4])
local oldest = redis.call('LINDEX', KEYS[1], 0)
while oldest and (oldest + window <= now or tonumber(oldest) > now) do
  redis.call('LPOP', KEYS[1])
  oldest = redis.call('LINDEX', KEYS[1], 0)
end
local used = redis.call('LLEN', KEYS[1])
local admitted = cost == 0 or used + cost <= limit
if admitted and cost > 0 then
  for _ = 1, cost do redis.call('RPUSH', KEYS[1], string.format('%.0f', now)) end
  redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000))
  used = used + cost
  oldest = oldest or now
elseif not admitted then
  oldest = redis.call('LINDEX', KEYS[1], math.min(used + whole - limit, used) - 1)
end
local reset = oldest and oldest + window - now or 0
return {admitted and 1 or 0, math.max(limit - used, 0), math.ceil(reset / 1000000)}
"""


@dataclass(frozen=True)
class Verdict:
    """Whether a request may pass, how many more may, and when there is room again: for it, or for one more."""

    is_admitted: bool
    remaining: int
    reset_s: int


class RateLimiter:
    """Counts requests under a Redis key for each client, exactly, over any number of API processes."""

    def __init__(self, redis: Redis, *, max_requests: int, interval_s: int, is_fail_open: bool = False) -> None:
        self.max_requests = max_requests
        self.interval_s = interval_s
        self._is_fail_open = is_fail_open
        self._window = redis.register_script(WINDOW)

    async def admit(self, key: str, cost: int = 1, *, counted: int = 0) -> Verdict | None:
        """Ask for `cost` requests of a client; 0 only looks. None lets it pass, for nobody can say: the limit is open.

        Of a request that costs more than one, so many may have been `counted` before.

        Raises:
            StoreUnavailable: nobody can say now, and the limit fails closed, or Redis hangs.
        """
        started_s = time.monotonic()
        try:
            async with reaching_redis():
                answer = await self._window(keys=[key], args=[self.max_requests, self.interval_s, cost, counted + cost])
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
