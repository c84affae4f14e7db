"""Outbound HTTP to user-supplied URLs: resolve once, check every address, connect to that address.

Knows neither images nor jobs. `urls` checks the form of URLs, and `addresses` which addresses are public. The caller
chooses the request and limits its total time.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self

import httpx

from image_analysis_api.outbound.addresses import AddressPolicy, IpAddress
from image_analysis_api.outbound.transport import OutboundTransport
from image_analysis_api.outbound.urls import WebUrl
from image_analysis_api.settings import OutboundSettings
from image_analysis_common.errors import FetchFailed, HostUnknown, UrlRefused

Resolve = Callable[[str, int], Awaitable[list[str]]]

# A name may have many addresses; one request must not connect to all of them.
_ATTEMPTS_MAX = 3

_CONNECT_TIMEOUT_S = 3.0

_HEADERS = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "image-analysis"}


@dataclass(frozen=True)
class Destinations:
    """The addresses and ports that the service may connect to.

    Ports other than `ports` are open on `hosts`, whose addresses are checked too, and at addresses in the policy's
    allowed networks.
    """

    policy: AddressPolicy
    ports: frozenset[int]
    hosts: frozenset[str]

    @classmethod
    def of(cls, settings: OutboundSettings) -> Self:
        return cls(
            AddressPolicy(allowed_networks=settings.fetch_allowed_networks),
            settings.fetch_allowed_ports,
            frozenset(host.lower().removesuffix(".") for host in settings.fetch_allowed_hosts),
        )

    def check(self, target: WebUrl, addresses: Iterable[IpAddress]) -> None:
        """Check the addresses of a URL's host.

        Raises:
            UrlRefused: there is none, or one of them or the port is not permitted.
        """
        found = list(addresses)
        if not found or not all(map(self.policy.permits, found)):
            raise UrlRefused
        if not self._is_open(target) and not all(map(self.policy.is_allowed, found)):
            raise self._refuse_port()

    def check_form(self, target: WebUrl) -> None:
        """Check a URL as far as possible without resolving its name.

        Raises:
            UrlRefused: its host is an address that is not permitted, or its port is open nowhere.
        """
        if target.is_literal:
            self.check(target, [ip_address(target.host)])
        elif not self._is_open(target) and not self.policy.allowed_networks:
            raise self._refuse_port()

    def _is_open(self, target: WebUrl) -> bool:
        return target.port in self.ports or target.host in self.hosts

    def _refuse_port(self) -> UrlRefused:
        return UrlRefused(f"The URL's port must be one of these: {', '.join(map(str, sorted(self.ports)))}.")


class OutboundClient:
    """Sends requests to user-supplied URLs; safe for concurrent use within one event loop.

    `resolve` returns a host's addresses or raises `socket.gaierror`, as `Resolver` does. Tests pass a `transport`.
    """

    def __init__(
        self,
        destinations: Destinations,
        resolve: Resolve,
        *,
        resolve_timeout_s: float = 3.0,
        read_timeout_s: float = 5.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._destinations = destinations
        self._resolve_timeout_s = resolve_timeout_s
        self._timeouts_s = {
            "connect": _CONNECT_TIMEOUT_S,
            "read": read_timeout_s,
            "write": read_timeout_s,
            "pool": _CONNECT_TIMEOUT_S,
        }
        self._resolve = resolve
        # A transport, not a client: a client keeps cookies, reads proxies and netrc from the environment, and logs
        # whole URLs. No connection is reused, because the next request to an address may be for another name.
        self._transport = transport or OutboundTransport()

    async def aclose(self) -> None:
        """Close the connections; running requests fail."""
        await self._transport.aclose()

    async def ask(
        self, method: str, target: WebUrl, headers: Mapping[str, str], content: bytes = b""
    ) -> httpx.Response:
        """Send a request to a checked address of the URL's host; return the response before its body is read.

        The caller closes the response.

        Raises:
            UrlRefused: an address or the port is not permitted.
            HostUnknown: the name does not exist.
            FetchFailed: the name cannot be resolved now.
            httpx.HTTPError, OSError: no web server answered.
        """
        *first, last = (await self._addresses(target))[:_ATTEMPTS_MAX]
        for address in first:
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._send(method, target, address, headers, content)
        return await self._send(method, target, last, headers, content)

    async def _addresses(self, target: WebUrl) -> list[IpAddress]:
        addresses = [ip_address(address) for address in await self._resolve_host(target)]
        self._destinations.check(target, addresses)
        return addresses

    async def _resolve_host(self, target: WebUrl) -> list[str]:
        if target.is_literal:
            return [target.host]
        try:
            async with asyncio.timeout(self._resolve_timeout_s):
                return await self._resolve(target.host, target.port)
        except (OSError, UnicodeError) as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
                raise HostUnknown from error
            raise FetchFailed("The name of the URL's host could not be looked up: check it, or try again.") from error

    async def _send(
        self, method: str, target: WebUrl, address: IpAddress, headers: Mapping[str, str], content: bytes
    ) -> httpx.Response:
        """Connect to the checked address, with the name in Host and SNI: the name is not resolved again."""
        request = httpx.Request(
            method,
            target.url.copy_with(host=str(address)),
            headers={"Host": target.url.netloc.decode("ascii"), **_HEADERS, **headers},
            content=content or None,
            extensions={"timeout": self._timeouts_s, "sni_hostname": target.host},
        )
        return await self._transport.handle_async_request(request)
