"""Admission of requests: who calls, and whether the caller is within its rate limit.

Both are decided from the headers, in one round trip to Redis, so a refused request costs no body read, no fetch and no
place in the queue.
"""

from collections.abc import Sequence

import structlog
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from image_analysis_api.access.rate_limit import RateLimiter, client_address
from image_analysis_api.api_keys import ApiKey, find_owner
from image_analysis_common import keys
from image_analysis_common.errors import BatchTooLarge, RateLimited, Unauthorized

CHALLENGE = 'Bearer realm="image-analysis"'


class Admission:
    """Finds out whose a request is, and counts it.

    A key has a quota of its own, wherever it is used. A request without a valid key counts against its address, so
    that guessing keys ends as 429 and cannot lock out the keys of others behind that address.
    """

    def __init__(self, api_keys: Sequence[ApiKey], limiter: RateLimiter) -> None:
        self._api_keys = api_keys
        self._limiter = limiter

    async def admit(self, request: HTTPConnection, cost: int) -> str | None:
        """Count `cost` requests of the caller, 0 to only look; return the key's owner, None without `API_KEYS`.

        Raises:
            Unauthorized: keys are required, and this is none of them.
            RateLimited: the caller has used up its quota.
            StoreUnavailable: the requests cannot be counted.
        """
        presented = _presented_key(request.headers) if self._api_keys else ""
        owner = find_owner(self._api_keys, presented) if presented else None
        is_refused = bool(self._api_keys) and owner is None
        if owner:
            structlog.contextvars.bind_contextvars(owner=owner)
        await self._count(request, owner, 1 if is_refused else cost)
        if is_refused:
            request.state.headers["WWW-Authenticate"] = CHALLENGE + (', error="invalid_token"' if presented else "")
            raise Unauthorized
        return owner

    async def admit_images(self, request: HTTPConnection, owner: str | None, images: int) -> None:
        """Count the images of a request that was counted once already: all of them or none.

        Raises:
            BatchTooLarge: the quota can never admit this many.
            RateLimited: it cannot now.
        """
        limiter = self._limiter
        if images > limiter.max_requests:
            raise BatchTooLarge(
                f"Each of the {images} images counts as a request, and the limit is {limiter.max_requests} requests in "
                f"{limiter.interval_s} s: send at most {limiter.max_requests} images at once."
            )
        await self._count(request, owner, images - 1, counted=1)

    async def _count(self, request: HTTPConnection, owner: str | None, cost: int, *, counted: int = 0) -> None:
        limiter = self._limiter
        verdict = await limiter.admit(keys.rate_limit(caller(request, owner)), cost, counted=counted)
        if verdict:
            request.state.headers.update(limiter.headers(verdict))
        if verdict and not verdict.is_admitted:
            raise RateLimited(
                max_requests=limiter.max_requests, interval_s=limiter.interval_s, retry_after_s=verdict.reset_s
            )


def caller(request: HTTPConnection, owner: str | None) -> str:
    """Name whom a request is counted for: the owner of its key, or its client's address."""
    return f"key:{owner}" if owner else client_address(request.client.host if request.client else None)


def _presented_key(headers: Headers) -> str:
    """Find the key that a request brings; an Authorization of another scheme is meant for someone on the way."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
