"""Stand-ins that tests pass to the application instead of the real parts."""

from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from typing import Any

import httpx
from fastapi import FastAPI

from image_analysis_api.outbound.addresses import AddressPolicy
from image_analysis_api.outbound.client import Destinations, OutboundClient
from image_analysis_api.outbound.fetcher import Fetcher
from image_analysis_api.outbound.resolver import Resolver

MakeApp = Callable[..., FastAPI]
MakeClient = Callable[..., Awaitable[httpx.AsyncClient]]


def make_egress(
    *networks: str,
    allowed_ports: frozenset[int] = frozenset({80, 443}),
    allowed_hosts: frozenset[str] = frozenset(),
    **arguments: Any,
) -> OutboundClient:
    """Make a way out that also leads into some networks; `resolve` and `transport` stand in for the real ones."""
    destinations = Destinations(AddressPolicy(tuple(map(ip_network, networks))), allowed_ports, allowed_hosts)
    return OutboundClient(destinations, **{"resolve": Resolver(), **arguments})


def make_fetcher(*networks: str, max_bytes: int, timeout_s: float, max_concurrent: int = 2, **outbound: Any) -> Fetcher:
    return Fetcher(
        make_egress(*networks, **outbound), max_bytes=max_bytes, timeout_s=timeout_s, max_concurrent=max_concurrent
    )


class FakeFetcher(Fetcher):
    """Gives the bytes that it was told of, or raises the error; keeps for whom."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Exception] = {}
        self.clients: list[str] = []

    async def fetch(self, url: str, client: str) -> bytes:
        self.clients.append(client)
        answer = self.answers[url]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        pass
