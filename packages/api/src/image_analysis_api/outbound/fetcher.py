"""Fetching the image behind a user's URL: bounded in time, bytes and redirects.

Knows nothing of images, jobs or settings. What a URL may look like is the business of `urls`, where it may lead that of
`egress`.
"""

import asyncio
from collections import Counter

import httpx
import structlog

from image_analysis_api.metrics import FETCHES
from image_analysis_api.outbound.client import OutboundClient
from image_analysis_api.outbound.urls import WebUrl
from image_analysis_api.server.counts import read_count
from image_analysis_common.errors import FetchFailed, ImageTooLarge, ServiceError, Unavailable, UrlRefused

REDIRECTS_MAX = 3
# A chunk costs 23 microseconds on the event loop, however small: a host that sends single bytes stalled it for 248 ms
# with each read of 64 KiB. Honest pieces are a network packet or more.
_PIECES_FREE = 256
_PIECE_BYTES_MIN = 64

_HEADERS = {"Accept": "image/*,*/*;q=0.5"}
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})

_UNREACHABLE = (
    "The URL's host could not be reached, or is not a web server with a valid certificate: "
    "check the URL, try again, or send the image itself."
)


class Fetcher:
    """Fetches images from user-supplied URLs; safe for concurrent use within one event loop.

    `timeout_s` bounds a whole fetch; the times of `egress`, which closes with this, bound its parts. Of the
    `max_concurrent` fetches, a client may have as many under way as are left for all others: one with slow hosts takes
    half of them at most, the next one half of the rest.
    """

    def __init__(self, outbound: OutboundClient, *, max_bytes: int, timeout_s: float, max_concurrent: int) -> None:
        self._outbound = outbound
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._max_concurrent = max_concurrent
        self._under_way = Counter[str]()

    async def aclose(self) -> None:
        """Close the connections; fetches under way fail."""
        await self._outbound.aclose()

    async def fetch(self, url: str, client: str) -> bytes:
        """Fetch the bytes behind a URL for a client.

        Raises:
            UrlRefused: the URL, or one that it redirects to, is malformed or leads where we do not go.
            FetchFailed: the host did not give the bytes in time, or at all.
            ImageTooLarge: there are more than `max_bytes`.
            Unavailable: the client has its share of fetches under way.
        """
        hosts: list[str] = []
        outcome, cause = "aborted", None
        try:
            body = await self._fetch_translated(url, client, hosts)
            outcome = "fetched"
            return body
        except ServiceError as error:
            outcome, cause = error.code, type(error.__cause__).__name__ if error.__cause__ else None
            raise
        finally:
            FETCHES.labels(outcome).inc()
            host = hosts[-1] if hosts else None
            structlog.get_logger(__name__).info("image_fetch", host=host, outcome=outcome, cause=cause, hops=len(hosts))

    async def _fetch_translated(self, url: str, client: str, hosts: list[str]) -> bytes:
        if self._under_way[client] >= self._max_concurrent - self._under_way.total():
            raise Unavailable(
                "Too many images are being fetched: try again in a few seconds, or send the image itself."
            )
        self._under_way[client] += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url, hosts)
        except TimeoutError as error:
            raise FetchFailed(timeout_s=self._timeout_s) from error
        except (httpx.HTTPError, OSError) as error:
            raise FetchFailed(_UNREACHABLE) from error
        finally:
            self._under_way[client] -= 1
            if not self._under_way[client]:
                del self._under_way[client]

    async def _follow(self, url: str, hosts: list[str]) -> bytes:
        target = WebUrl.parse(url)
        for _ in range(1 + REDIRECTS_MAX):
            hosts.append(target.host)
            response = await self._outbound.ask("GET", target, _HEADERS)
            try:
                if response.status_code not in _REDIRECT_STATUSES:
                    return await self._body(response)
                target = target.redirected(response.headers.get("location", ""))
            finally:
                await response.aclose()
        raise UrlRefused(f"The URL redirects more than {REDIRECTS_MAX} times: give the address of the image itself.")

    async def _body(self, response: httpx.Response) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise FetchFailed("The URL's host did not answer with an image (status 200): check the URL, or try again.")
        if response.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
            raise FetchFailed("The URL's host sent the image in a compressed encoding: send the image itself.")
        too_large = ImageTooLarge(f"The image at the URL has more than {self._max_bytes} bytes: use a smaller one.")
        if (read_count(response.headers.get("content-length", "")) or 0) > self._max_bytes:
            raise too_large
        body, pieces = bytearray(), 0
        async for piece in response.aiter_bytes():
            pieces += 1
            body += piece
            if len(body) > self._max_bytes:
                raise too_large
            if pieces > _PIECES_FREE + len(body) // _PIECE_BYTES_MIN:
                raise FetchFailed("The URL's host sent the image in too many small pieces: send the image itself.")
        return bytes(body)
