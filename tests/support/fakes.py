"""Stand-ins that tests pass to the application instead of the real parts."""

from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from typing import Any

import httpx
from fastapi import FastAPI

from image_analysis_api.outbound.addresses import AddressPolicy
from image_analysis_api.outbound.client import Destinations, OutboundClient
from image_analysis_api.outbound.fetcher import Fetcher, Hold
from image_analysis_api.outbound.resolver import Resolver

MakeApp = Callable[..., FastAPI]
MakeClient = Callable[..., Awaitable[httpx.AsyncClient]]


def make_egress(
    *networks: str,
    allowed_ports: frozenset[int] = frozenset({80, 443}),
    allowed_hosts: frozenset[str] = frozenset(),
    **arguments: Any,
) -> OutboundClient:
    """Make an outbound client that may also connect to some networks, with a fake `resolve` and `transport`."""
    destinations = Destinations(AddressPolicy(tuple(map(ip_network, networks))), allowed_ports, allowed_hosts)
    return OutboundClient(destinations, **{"resolve": Resolver(), **arguments})


def make_fetcher(
    *networks: str, max_concurrent: int = 2, user_agent: str = "image-analysis", **arguments: Any
) -> Fetcher:
    limits = {name: arguments.pop(name) for name in ("max_bytes", "timeout_s")}
    outbound = make_egress(*networks, **arguments)
    return Fetcher(outbound, max_concurrent=max_concurrent, user_agent=user_agent, **limits)


class FakeFetcher(Fetcher):
    """Returns prepared bytes or raises a prepared error; records the clients that it fetched for."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Exception] = {}
        self.clients: list[str] = []

    async def fetch(self, url: str, client: str, hold: Hold = lambda _: None) -> bytes:
        self.clients.append(client)
        answer = self.answers[url]
        if isinstance(answer, Exception):
            raise answer
        hold(len(answer))
        return answer

    async def aclose(self) -> None:
        pass
