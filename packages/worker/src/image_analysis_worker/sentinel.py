"""Connections to the primary whose address Redis Sentinel knows; they move to the next primary after a failover."""

import threading
from collections.abc import Mapping
from typing import Any

from redis import Redis
from redis.connection import SSLConnection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection

from image_analysis_common.settings import Sentinels

TIMEOUT_S = 0.5
"""A sentinel that does not answer costs this time, once: the next search begins with one that has answered."""


class _Connection(SentinelManagedConnection):
    """Also leaves a primary that has lost its replicas: another one may have taken its place."""

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().read_response(*arguments, **options)
        except ResponseError as error:
            if "NOREPLICAS" not in str(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise RedisConnectionError(str(error)) from error


class _TlsConnection(_Connection, SentinelManagedSSLConnection):
    pass


class _Discovery(Sentinel):
    """Runs one search at a time: redis-py reorders its list of sentinels, and concurrent searches could lose one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
        self._lock = threading.Lock()

    def discover_master(self, service_name: str) -> tuple[str, int]:
        with self._lock:
            address: tuple[str, int] = super().discover_master(service_name)  # type: ignore[no-untyped-call]
            return address


def connect_to_primary(dsn: str, sentinels: Sentinels, options: Mapping[str, Any]) -> Redis:
    """Make a client for the primary. TLS options of the URL also apply to the sentinels."""
    url: dict[str, Any] = {**parse_url(dsn)}
    tls: dict[str, Any] = {name: value for name, value in url.items() if name.startswith("ssl_")}
    has_tls = url.pop("connection_class", None) is SSLConnection
    for name in ("host", "port"):
        url.pop(name, None)
    times = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    to_sentinels = {**options, **times, **tls, "ssl": has_tls, "password": sentinels.password}
    discovery = _Discovery(sentinels.addresses, sentinel_kwargs=to_sentinels)
    kind = _TlsConnection if has_tls else _Connection
    client: Redis = discovery.master_for(sentinels.service, connection_class=kind, **{**options, **url})  # type: ignore[no-untyped-call]
    return client
