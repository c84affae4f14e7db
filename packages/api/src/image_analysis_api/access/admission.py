"""Admission: finds out who calls, and checks the caller's rate limit.

It needs only the headers. A request with a large body is counted before its body is read, in a round trip of its own.
A small body has arrived anyway: the script that queues its image also counts the request. If the client has no request
left, or has as many requests under way that are not counted yet, this request is counted first, too. So a client that
is over its limit gets its refusals before its bodies are read.
"""

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import structlog
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from image_analysis_api.access.rate_limit import RateLimiter, Verdict, client_address
from image_analysis_api.api_keys import ApiKey, find_owner
from image_analysis_api.server.counts import read_count
from image_analysis_common import keys
from image_analysis_common.errors import BatchTooLarge, RateLimited, Unauthorized
from image_analysis_common.scripts.limits import NO_QUOTA, Quota

SMALL_BODY_BYTES = 65_536
"""uvicorn receives as much before anything reads the body."""

MAX_EXHAUSTED = 10_000
"""The most clients that one process remembers because they have no request left."""

CHALLENGE = 'Bearer realm="image-analysis"'


class Admission:
    """Finds the owner of a request's key, and counts the request.

    Requests with a key count for its owner, from any address. Requests without a valid key count for their address:
    guessing keys soon gets 429, and does not use up the quota of owners at the same address.
    """

    def __init__(self, api_keys: Sequence[ApiKey], limiter: RateLimiter) -> None:
        self._api_keys = api_keys
        self._limiter = limiter
        self._uncounted = Counter[str]()
        self._exhausted_until_s: dict[str, float] = {}

    def charge(self, request: HTTPConnection, cost: int) -> "Charge":
        """Admit the caller in a block: within it, or at its end, `cost` requests of the caller are counted."""
        return Charge(self, request, cost)

    def may_count_later(self, request: HTTPConnection, owner: str | None, cost: int) -> bool:
        """Return whether a script that the request needs anyway may count it."""
        if self._limiter.is_fail_open or (self._api_keys and owner is None):
            return False
        if not cost:
            return True
        size_bytes = read_count(request.headers.get("content-length", ""))
        if size_bytes is None or size_bytes > SMALL_BODY_BYTES or "idempotency-key" in request.headers:
            return False
        client = caller(request, owner)
        until_s = self._exhausted_until_s.get(client, 0)
        return time.monotonic() >= until_s and self._uncounted[client] < self._limiter.max_requests

    def find_owner(self, request: HTTPConnection) -> str | None:
        """Return the owner of the request's key; None if there is no such key, or without `API_KEYS`."""
        presented = _presented_key(request.headers) if self._api_keys else ""
        owner = find_owner(self._api_keys, presented) if presented else None
        if owner:
            structlog.contextvars.bind_contextvars(owner=owner)
        return owner

    def begin(self, request: HTTPConnection, owner: str | None, cost: int) -> Quota:
        """Return the quota of a request that is counted later."""
        client = caller(request, owner)
        if cost:
            self._uncounted[client] += 1
        return self._limiter.quota(keys.rate_limit(client))

    def end(self, request: HTTPConnection, owner: str | None, cost: int) -> None:
        """Forget a request for which `begin` was called."""
        client = caller(request, owner)
        if cost:
            self._uncounted[client] -= 1
            if not self._uncounted[client]:
                del self._uncounted[client]

    def note(self, request: HTTPConnection, owner: str | None, answer: Any, cost: int) -> None:
        """Read the answer of a script that counted a request.

        Raises:
            RateLimited
        """
        self._judge(request, owner, self._limiter.read(answer, cost))

    async def admit(self, request: HTTPConnection, cost: int) -> str | None:
        """Count `cost` requests of the caller, or only check with 0; return the key's owner, None without `API_KEYS`.

        Raises:
            Unauthorized: a key is required, and the request has none or a wrong one.
            RateLimited: the caller has used up its quota.
            StoreUnavailable: the requests cannot be counted.
        """
        owner = self.find_owner(request)
        await self.admit_owner(request, owner, cost)
        return owner

    async def admit_owner(self, request: HTTPConnection, owner: str | None, cost: int) -> None:
        """Do the same for a request whose owner has been found."""
        is_refused = bool(self._api_keys) and owner is None
        self._judge(request, owner, await self._count(request, owner, 1 if is_refused else cost))
        if is_refused:
            has_key = bool(_presented_key(request.headers))
            request.state.headers["WWW-Authenticate"] = CHALLENGE + (', error="invalid_token"' if has_key else "")
            raise Unauthorized

    async def admit_images(self, request: HTTPConnection, owner: str | None, images: int) -> None:
        """Count the images of a request that was counted as one before its body was read: all of them, or none.

        A refused batch costs nothing. While its body is read it counts as one, so that a client never has more bodies
        under way than it has requests left, and with none left it is refused before its body is read.

        Raises:
            BatchTooLarge: there are more images than the rate limit ever allows.
            RateLimited: there are more images than the rate limit allows now.
        """
        limiter = self._limiter
        verdict = await self._count(request, owner, images, instead_us=request.state.counted_us)
        self._describe(request, verdict)
        if images > limiter.max_requests:
            raise BatchTooLarge(
                f"Each of the {images} images counts as a request, and the limit is {limiter.max_requests} requests in "
                f"{limiter.interval_s} s: send at most {limiter.max_requests} images at once."
            )
        if verdict and not verdict.is_admitted:
            raise RateLimited(
                f"The batch has {images} images, and you may send {verdict.remaining} now: send at most "
                f"{verdict.remaining}, or all of them in {verdict.reset_s} s.",
                retry_after_s=verdict.reset_s,
            )

    async def _count(
        self, request: HTTPConnection, owner: str | None, cost: int, *, instead_us: int = 0
    ) -> Verdict | None:
        return await self._limiter.admit(keys.rate_limit(caller(request, owner)), cost, instead_us=instead_us)

    def _describe(self, request: HTTPConnection, verdict: Verdict | None) -> None:
        """Leave the limiter's headers for the answer."""
        if verdict:
            request.scope["state"]["headers"].update(self._limiter.headers(verdict))

    def _judge(self, request: HTTPConnection, owner: str | None, verdict: Verdict | None) -> None:
        """Note the verdict on a request.

        Raises:
            RateLimited
        """
        self._describe(request, verdict)
        if verdict and not verdict.remaining:
            client = caller(request, owner)
            self._exhausted_until_s.pop(client, None)  # so that it goes to the end
            if len(self._exhausted_until_s) >= MAX_EXHAUSTED:
                del self._exhausted_until_s[next(iter(self._exhausted_until_s))]
            self._exhausted_until_s[client] = time.monotonic() + verdict.reset_s
        if verdict and not verdict.is_admitted:
            raise RateLimited(
                max_requests=self._limiter.max_requests,
                interval_s=self._limiter.interval_s,
                retry_after_s=verdict.reset_s,
            )
        request.scope["state"]["counted_us"] = verdict.counted_us if verdict else 0


class Charge:
    """The count of a request, as a block that is entered with the caller's admission.

    The block may hand the quota to a script, which then counts the request. If it did not, the request is counted at
    the end of the block, also after an error: a bad request counts like any other, and a refusal wins over the error.
    """

    owner: str | None = None
    _quota = NO_QUOTA

    def __init__(self, admission: Admission, request: HTTPConnection, cost: int) -> None:
        self._admission = admission
        self._request = request
        self._cost = cost

    async def __aenter__(self) -> Self:
        """Find the owner of the request's key, and count the request unless that may come later.

        Raises:
            Unauthorized, RateLimited, StoreUnavailable: see `Admission.admit`.
        """
        admission, request, cost = self._admission, self._request, self._cost
        self.owner = admission.find_owner(request)
        if admission.may_count_later(request, self.owner, cost):
            self._quota = admission.begin(request, self.owner, cost)
        else:
            await admission.admit_owner(request, self.owner, cost)
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            await self.settle()
        else:
            self.take()

    def take(self) -> Quota:
        """Return the quota for a script that counts the request, once; then `NO_QUOTA`."""
        quota, self._quota = self._quota, NO_QUOTA
        if quota.key:
            self._admission.end(self._request, self.owner, self._cost)
        return quota

    def note(self, answer: Any) -> None:
        """Read the answer of a script that counted the request.

        Raises:
            RateLimited
        """
        self._admission.note(self._request, self.owner, answer, self._cost)

    async def settle(self) -> None:
        """Count the request now, if nothing has counted it.

        Raises:
            RateLimited, StoreUnavailable
        """
        if self.take().key:
            await self._admission.admit_owner(self._request, self.owner, self._cost)


def caller(request: HTTPConnection, owner: str | None) -> str:
    """Name the caller that a request counts for: the owner of its key, or its client's address."""
    if owner:
        return f"key:{owner}"
    client = request.scope.get("client")
    return client_address(client[0] if client else None)


def _presented_key(headers: Headers) -> str:
    """Read the key of a request; an Authorization header of another scheme is ignored, it may be for a proxy."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
