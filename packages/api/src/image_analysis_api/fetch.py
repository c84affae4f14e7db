"""Fetching the image behind a user's URL: only from addresses that were checked, bounded in time, bytes and redirects.

Knows nothing of images, jobs or settings. What a URL may look like is the business of `urls`, which addresses are
public that of `addresses`.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import httpx
import structlog

from image_analysis_api.addresses import AddressPolicy, IpAddress
from image_analysis_api.metrics import FETCHES
from image_analysis_api.urls import ImageUrl
from image_analysis_common.errors import FetchFailed, ImageTooLarge, ServiceError, Unavailable, UrlRefused

Resolve = Callable[[str, int], Awaitable[list[str]]]

REDIRECTS_MAX = 3
# A name may have many addresses; a caller must not make us knock at all of them.
_ATTEMPTS_MAX = 3
# A chunk costs 23 microseconds on the event loop, however small: a host that sends single bytes stalled it for 248 ms
# with each read of 64 KiB. Honest pieces are a network packet or more.
_PIECES_FREE = 256
_PIECE_BYTES_MIN = 64

_HEADERS = {
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "image-analysis",
}
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
_UNKNOWN_NAME_ERRORS = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}

# One text for a name that does not exist and one that leads inside, so that nobody can list our internal names.
_NO_PUBLIC_ADDRESS = "The URL's host has no public address to fetch from; check the name, or send the image itself"
_UNREACHABLE = (
    "The URL's host could not be reached, or did not answer as a web server with a valid certificate should; "
    "check the URL, try again, or send the image itself"
)


class Fetcher:
    """Fetch images by URL for strangers; safe for concurrent use within one event loop.

    Ports other than `allowed_ports` are open on `allowed_hosts` (whose addresses are checked like any) and at addresses
    in the policy's allowed networks. `timeout_s` bounds a whole fetch; the other times bound its parts.
    `transport` and `resolve` (host and port to addresses, raising `socket.gaierror`) stand in for the network.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        max_bytes: int,
        timeout_s: float,
        allowed_ports: frozenset[int],
        allowed_hosts: frozenset[str],
        max_concurrent: int,
        resolve_timeout_s: float = 3.0,
        connect_timeout_s: float = 3.0,
        read_timeout_s: float = 5.0,
        resolve: Resolve | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._policy = policy
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._allowed_ports = allowed_ports
        self._allowed_hosts = frozenset(host.lower().removesuffix(".") for host in allowed_hosts)
        self._max_concurrent = max_concurrent
        self._resolve_timeout_s = resolve_timeout_s
        self._timeouts_s = {
            "connect": connect_timeout_s,
            "read": read_timeout_s,
            "write": read_timeout_s,
            "pool": connect_timeout_s,
        }
        # Threads of our own: uvloop's four resolver threads also serve Redis, and slow names would take them all.
        self._threads = ThreadPoolExecutor(max_concurrent, thread_name_prefix="resolve")
        self._resolve = resolve or self._ask_system
        # A bare transport, not a client: a client keeps cookies, reads proxies and netrc from the environment, and
        # logs whole URLs. No connection is kept, for the next one to the same address may be for another name.
        self._transport = transport or httpx.AsyncHTTPTransport(
            trust_env=False, http2=False, limits=httpx.Limits(max_keepalive_connections=0), retries=0
        )
        self._under_way = 0

    async def aclose(self) -> None:
        """Close the connections; fetches under way fail."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._transport.aclose()

    async def fetch(self, url: str) -> bytes:
        """Fetch the bytes behind a URL.

        Raises:
            UrlRefused: the URL, or one that it redirects to, is malformed or leads where we do not go.
            FetchFailed: the host did not give the bytes in time, or at all.
            ImageTooLarge: there are more than `max_bytes`.
            Unavailable: `max_concurrent` fetches are under way.
        """
        hosts: list[str] = []
        outcome, cause = "aborted", None
        try:
            body = await self._fetch_translated(url, hosts)
            outcome = "fetched"
            return body
        except ServiceError as error:
            outcome, cause = error.code, type(error.__cause__).__name__ if error.__cause__ else None
            raise
        finally:
            FETCHES.labels(outcome).inc()
            host = hosts[-1] if hosts else None
            structlog.get_logger(__name__).info("image_fetch", host=host, outcome=outcome, cause=cause, hops=len(hosts))

    async def _fetch_translated(self, url: str, hosts: list[str]) -> bytes:
        if self._under_way >= self._max_concurrent:
            raise Unavailable("Too many images are being fetched; try again in a few seconds, or send the image itself")
        self._under_way += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url, hosts)
        except TimeoutError as error:
            raise FetchFailed(
                f"The image did not arrive within {self._timeout_s:g} s; try again, or send the image itself"
            ) from error
        except (httpx.HTTPError, OSError) as error:
            raise FetchFailed(_UNREACHABLE) from error
        finally:
            self._under_way -= 1

    async def _follow(self, url: str, hosts: list[str]) -> bytes:
        target = ImageUrl.parse(url)
        for _ in range(1 + REDIRECTS_MAX):
            hosts.append(target.host)
            response = await self._request(target, await self._addresses(target))
            try:
                if response.status_code not in _REDIRECT_STATUSES:
                    return await self._body(response)
                target = target.redirected(response.headers.get("location", ""))
            finally:
                await response.aclose()
        raise UrlRefused(f"The URL redirects more than {REDIRECTS_MAX} times; give the address of the image itself")

    async def _addresses(self, target: ImageUrl) -> list[IpAddress]:
        addresses = [ip_address(address) for address in await self._found(target)]
        if not addresses or not all(map(self._policy.permits, addresses)):
            raise UrlRefused(_NO_PUBLIC_ADDRESS)
        is_open = target.port in self._allowed_ports or target.host in self._allowed_hosts
        if not is_open and not all(map(self._policy.is_allowed, addresses)):
            ports = ", ".join(map(str, sorted(self._allowed_ports)))
            raise UrlRefused(f"Images are fetched from these ports only: {ports}")
        return addresses

    async def _found(self, target: ImageUrl) -> list[str]:
        if target.is_literal:
            return [target.host]
        try:
            async with asyncio.timeout(self._resolve_timeout_s):
                return await self._resolve(target.host, target.port)
        except (OSError, UnicodeError) as error:
            if isinstance(error, socket.gaierror) and error.errno in _UNKNOWN_NAME_ERRORS:
                raise UrlRefused(_NO_PUBLIC_ADDRESS) from error
            raise FetchFailed("The name of the URL's host could not be looked up; check it, or try again") from error

    async def _ask_system(self, host: str, port: int) -> list[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(address[0]) for *_, address in found]

    async def _request(self, target: ImageUrl, addresses: list[IpAddress]) -> httpx.Response:
        *first, last = addresses[:_ATTEMPTS_MAX]
        for address in first:
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._transport.handle_async_request(self._pinned(target, address))
        return await self._transport.handle_async_request(self._pinned(target, last))

    def _pinned(self, target: ImageUrl, address: IpAddress) -> httpx.Request:
        """Ask the very address that was checked, in the name of the host: nobody resolves the name again."""
        return httpx.Request(
            "GET",
            target.url.copy_with(host=str(address)),
            headers={"Host": target.url.netloc.decode("ascii"), **_HEADERS},
            extensions={"timeout": self._timeouts_s, "sni_hostname": target.host},
        )

    async def _body(self, response: httpx.Response) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise FetchFailed("The URL's host did not answer with an image (status 200); check the URL, or try again")
        if response.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
            raise FetchFailed("The URL's host sent the image in a compressed encoding, which was not asked for")
        too_large = ImageTooLarge(f"The image at the URL is larger than {self._max_bytes} bytes, the limit")
        declared = response.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise too_large
        body, pieces = bytearray(), 0
        async for piece in response.aiter_bytes():
            pieces += 1
            body += piece
            if len(body) > self._max_bytes:
                raise too_large
            if pieces > _PIECES_FREE + len(body) // _PIECE_BYTES_MIN:
                raise FetchFailed("The URL's host sent the image in too many small pieces; send the image itself")
        return bytes(body)
