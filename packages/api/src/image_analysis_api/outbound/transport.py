"""The HTTP transport of `client`: httpx's, with a limit on what a host sends before the body of its response.

httpcore reads any number of informational responses (status 100 to 199) before the final one. It decodes all those of a
read without a pause: a host that sends nothing else would block the event loop.
"""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

MAX_HEAD_BYTES = 64 * 1024
"""Of the final response's head and of all informational responses together."""

READ_BYTES = 4096
"""The most that is read at once until the final response's head is complete. 160 small responses take 10 ms."""


class _Stream(httpcore.AsyncNetworkStream):
    """A connection for one response. After its head, `end_head` lifts the limits."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._head_bytes = 0
        self._has_head = False

    def end_head(self) -> None:
        self._has_head = True

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        if self._has_head:
            return await self._stream.read(max_bytes, timeout)
        if self._head_bytes >= MAX_HEAD_BYTES:
            raise httpcore.RemoteProtocolError(f"more than {MAX_HEAD_BYTES} bytes before the body of a response")
        if self._head_bytes:
            # Bytes that TLS has already decrypted are read without a pause.
            await asyncio.sleep(0)
        read = await self._stream.read(min(max_bytes, READ_BYTES), timeout)
        self._head_bytes += len(read)
        return read

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.AnyIOBackend):
    """Connects to hosts."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await super().connect_tcp(host, port, timeout, local_address, socket_options))


class OutboundTransport(httpx.AsyncHTTPTransport):
    """Sends each request on a connection of its own. Proxies and certificates of the environment are not used."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        # httpx offers no choice of the backend. The pool is all that its own transport has.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or httpx.create_ssl_context(trust_env=False),
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=_Backend(),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if isinstance(stream := response.extensions.get("network_stream"), _Stream):
            stream.end_head()
        return response
