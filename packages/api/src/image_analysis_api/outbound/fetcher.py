"""Fetches images from user-supplied URLs, with limits on time, bytes and redirects.

Knows neither image formats, jobs nor settings. `urls` checks the form of URLs, and `client` where they lead.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

import httpx
import structlog

from image_analysis_api.metrics import FETCHES
from image_analysis_api.outbound.client import OutboundClient
from image_analysis_api.outbound.urls import WebUrl
from image_analysis_api.server.counts import read_count
from image_analysis_common.errors import FetchFailed, ImageTooLarge, ServiceError, Unavailable, UrlRefused

REDIRECTS_MAX = 3
# Each chunk takes the event loop 23 microseconds, however small it is: a host that sends single bytes blocked the loop
# for 248 ms with each 64 KiB. Chunks of ordinary servers have at least the size of a network packet.
_PIECES_FREE = 256
_PIECE_BYTES_MIN = 64

_ACCEPT = "image/*,*/*;q=0.5"
Hold = Callable[[int], None]
"""Counts bytes that are in memory from now on, and no longer if their number is negative; it may refuse more."""

_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})

_UNREACHABLE = (
    "The URL's host could not be reached, or is not a web server with a valid certificate: "
    "check the URL, try again, or send the image itself."
)


class Fetcher:
    """Fetches images from user-supplied URLs; safe for concurrent use within one event loop.

    `timeout_s` limits a whole fetch; the timeouts of `outbound`, which is closed with this, limit its parts. A client
    may have at most as many running fetches as there are free ones: the first client gets at most half of
    `max_concurrent`, the next one half of the rest.
    """

    def __init__(
        self, outbound: OutboundClient, *, max_bytes: int, timeout_s: float, max_concurrent: int, user_agent: str
    ) -> None:
        self._outbound = outbound
        self._headers = {"Accept": _ACCEPT, "User-Agent": user_agent}
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._max_concurrent = max_concurrent
        self._running = Counter[str]()

    async def aclose(self) -> None:
        """Close the connections; running fetches fail."""
        await self._outbound.aclose()

    async def fetch(self, url: str, client: str, hold: Hold = lambda _: None) -> bytes:
        """Fetch the bytes behind a URL for a client; `hold` counts them as they arrive, and not those of a failure.

        Raises:
            UrlRefused: the URL, or one that it redirects to, is malformed or leads to a forbidden address or port.
            FetchFailed: the host did not send the image, or not in time.
            ImageTooLarge: there are more than `max_bytes`.
            Unavailable: the client has too many running fetches, or `hold` has refused.
        """
        hosts: list[str] = []
        outcome, cause = "aborted", None
        try:
            body = await self._fetch_translated(url, client, hosts, hold)
            outcome = "fetched"
            return body
        except ServiceError as error:
            outcome, cause = error.code, type(error.__cause__).__name__ if error.__cause__ else None
            raise
        finally:
            FETCHES.labels(outcome).inc()
            host = hosts[-1] if hosts else None
            structlog.get_logger(__name__).info("image_fetch", host=host, outcome=outcome, cause=cause, hops=len(hosts))

    async def _fetch_translated(self, url: str, client: str, hosts: list[str], hold: Hold) -> bytes:
        if self._running[client] >= self._max_concurrent - self._running.total():
            raise Unavailable(
                "Too many images are being fetched: try again in a few seconds, or send the image itself."
            )
        self._running[client] += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url, hosts, hold)
        except TimeoutError as error:
            raise FetchFailed(timeout_s=self._timeout_s) from error
        except (httpx.HTTPError, OSError) as error:
            raise FetchFailed(_UNREACHABLE) from error
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]

    async def _follow(self, url: str, hosts: list[str], hold: Hold) -> bytes:
        target = WebUrl.parse(url)
        for _ in range(1 + REDIRECTS_MAX):
            hosts.append(target.host)
            response = await self._outbound.ask("GET", target, self._headers)
            try:
                if response.status_code not in _REDIRECT_STATUSES:
                    return await self._body(response, hold)
                target = target.redirected(response.headers.get("location", ""))
            finally:
                await response.aclose()
        raise UrlRefused(f"The URL redirects more than {REDIRECTS_MAX} times: give the address of the image itself.")

    async def _body(self, response: httpx.Response, hold: Hold) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise FetchFailed("The URL's host did not answer with an image (status 200): check the URL, or try again.")
        if response.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
            raise FetchFailed("The URL's host sent the image in a compressed encoding: send the image itself.")
        too_large = ImageTooLarge(f"The image at the URL has more than {self._max_bytes} bytes: use a smaller one.")
        if (read_count(response.headers.get("content-length", "")) or 0) > self._max_bytes:
            raise too_large
        body, pieces = bytearray(), 0
        try:
            async for piece in response.aiter_bytes():
                hold(len(piece))
                pieces += 1
                body += piece
                if len(body) > self._max_bytes:
                    raise too_large
                if pieces > _PIECES_FREE + len(body) // _PIECE_BYTES_MIN:
                    raise FetchFailed("The URL's host sent the image in too many small pieces: send the image itself.")
        except BaseException:
            hold(-len(body))
            raise
        return bytes(body)
