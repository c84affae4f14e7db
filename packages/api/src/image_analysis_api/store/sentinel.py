"""Connections to the primary whose address Redis Sentinel knows; they move to the next primary after a failover."""

import asyncio
from collections.abc import Mapping
from typing import Any

import redis
import redis.sentinel
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.connection import SSLConnection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from image_analysis_common.settings import Sentinels

TIMEOUT_S = 0.2
"""A sentinel that does not answer costs this time, once: the next search begins with one that has answered."""


class _Connection(SentinelManagedConnection):
    """Also leaves a primary that has lost its replicas: another one may have taken its place."""

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)
        except ResponseError as error:
            if "NOREPLICAS" not in str(error):
                raise
            await self.disconnect()
            raise RedisConnectionError(str(error)) from error


class _TlsConnection(_Connection, SentinelManagedSSLConnection):
    pass


class _Discovery(Sentinel):
    """Runs one search at a time: redis-py reorders its list of sentinels, and concurrent searches could lose one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
        self._lock = asyncio.Lock()

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        async with self._lock:
            address: tuple[str, int] = await super().discover_master(service_name)
            return address


class _Pool(SentinelConnectionPool, BlockingConnectionPool):
    """Closes all connections when the primary changes, also those in use, such as a subscription."""

    def __init__(self, service_name: str, discovery: Sentinel, **options: Any) -> None:
        super().__init__(service_name, discovery, **options)  # type: ignore[no-untyped-call]
        self._discovery = discovery

    async def get_master_address(self) -> tuple[str, int]:
        known = self.master_address
        address: tuple[str, int] = await super().get_master_address()  # type: ignore[no-untyped-call]
        if known not in (None, address):
            await self.disconnect()
        return address

    async def aclose(self) -> None:
        await super().aclose()
        await self._discovery.aclose()


def make_pool(dsn: str, sentinels: Sentinels, options: Mapping[str, Any]) -> BlockingConnectionPool:
    """Make a pool of connections to the primary; `options` are those of `BlockingConnectionPool`."""
    to_redis, to_sentinels = _split_options(dsn, sentinels, options)
    discovery = _Discovery(sentinels.addresses, sentinel_kwargs=to_sentinels)
    kind = _TlsConnection if to_redis.pop("ssl", False) else _Connection
    return _Pool(sentinels.service, discovery, connection_class=kind, **to_redis)


def connect_to_primary(dsn: str, sentinels: Sentinels, options: Mapping[str, Any]) -> redis.Redis:
    """Make a client without asyncio, for reading."""
    to_redis, to_sentinels = _split_options(dsn, sentinels, options)
    discovery = redis.sentinel.Sentinel(sentinels.addresses, sentinel_kwargs=to_sentinels)
    client: redis.Redis = discovery.master_for(sentinels.service, **to_redis)
    return client


def _split_options(dsn: str, sentinels: Sentinels, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of connections to Redis, and of those to sentinels, which share the URL's TLS options."""
    url: dict[str, Any] = {**parse_url(dsn)}
    tls: dict[str, Any] = {name: value for name, value in url.items() if name.startswith("ssl_")}
    if url.pop("connection_class", None) is SSLConnection:
        tls["ssl"] = True
    for name in ("host", "port"):
        url.pop(name, None)
    times = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    to_sentinels = {"protocol": 2, "retry": options["retry"], "password": sentinels.password, **times, **tls}
    return {**options, **url, **tls}, to_sentinels
