"""How requests are sent: blocking or asynchronous. What a client does is written once, as coroutines over a channel.

The coroutines of a blocking channel never suspend, so that `run` and `iterate` can run them without an event loop.
"""

import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol, TypeVar, cast

import anyio
import anyio.to_thread
import httpx

from image_analysis_client.errors import ServiceUnreachable
from image_analysis_client.lines import Lines
from image_analysis_client.requests import Request
from image_analysis_client.sources import Image, read_source
from image_analysis_client.values import Source

DEFAULT_URL = "http://127.0.0.1:8000"
CLOSING_S = 15.0
"""How long an asynchronous client that is cancelled goes on, to cancel its jobs."""
SHORTEST_S = 0.001

T = TypeVar("T")


@dataclass(frozen=True)
class Stream:
    """An answer whose lines come one by one; None is the end."""

    response: httpx.Response
    next_line: Callable[[], Awaitable[str | None]]


class Channel(Protocol):
    """What the calls need; errors of the network are `ServiceUnreachable`."""

    async def send(self, request: Request) -> httpx.Response: ...

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]: ...

    async def read(self, source: Source) -> Image: ...

    async def sleep(self, seconds: float) -> None: ...

    def closing(self) -> AbstractContextManager[object]: ...


def client_options(base_url: str | None, api_key: str | None) -> dict[str, Any]:
    """Return what every httpx client gets: an address, the headers, and no redirects.

    Raises:
        ValueError: the address or the key is malformed; the message does not repeat them.
    """
    try:
        url = httpx.URL(base_url or os.environ.get("IMAGE_ANALYSIS_URL") or DEFAULT_URL)
        url.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL("")
    if "%" in url.host and ":" not in url.host:  # httpx escapes what no name has, such as the bracket of http://[x
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise ValueError("The service's address must be http://HOST or https://HOST, without user name or password.")
    headers = {"Accept": "application/json", "User-Agent": f"image-analysis-client/{version('image-analysis-client')}"}
    if key := (api_key or os.environ.get("IMAGE_ANALYSIS_API_KEY") or "").strip():
        if not key.isascii() or not key.isprintable():
            raise ValueError("The API key has a character that no key has.")
        headers["Authorization"] = f"Bearer {key}"
    return {"base_url": url, "headers": headers, "follow_redirects": False}


def run(coroutine: Awaitable[T]) -> T:
    """Run a coroutine of a blocking channel to its end."""
    try:
        next(coroutine.__await__())
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("A coroutine of a blocking client has suspended.")


def iterate(items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """Give what a generator of a blocking channel gives; closing this one closes that one."""
    try:
        while True:
            try:
                item = run(anext(items))
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(items.aclose())


class BlockingChannel:
    """Sends with an `httpx.Client`."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    async def send(self, request: Request) -> httpx.Response:
        with _errors_translated(self._client):
            return self._client.send(_build(request, self._client))

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Stream]:
        with _errors_translated(self._client), self._client.stream(**_arguments(request, self._client)) as response:
            if not response.is_success:
                response.read()
            texts = response.iter_text()

            async def next_text() -> str | None:
                return next(texts, None)

            yield Stream(response, Lines(next_text).next)

    async def read(self, source: Source) -> Image:
        return read_source(source)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop

    def closing(self) -> AbstractContextManager[object]:
        return nullcontext()


class AsyncChannel:
    """Sends with an `httpx.AsyncClient`, under asyncio or trio."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def send(self, request: Request) -> httpx.Response:
        with _errors_translated(self._client):
            return await self._client.send(_build(request, self._client))

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Stream]:
        with _errors_translated(self._client):
            async with self._client.stream(**_arguments(request, self._client)) as response:
                if not response.is_success:
                    await response.aread()
                texts = response.aiter_text()

                async def next_text() -> str | None:
                    return await anext(texts, None)

                yield Stream(response, Lines(next_text).next)

    async def read(self, source: Source) -> Image:
        return await anyio.to_thread.run_sync(read_source, source)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def closing(self) -> AbstractContextManager[object]:
        return anyio.move_on_after(CLOSING_S, shield=True)


def _build(request: Request, client: httpx.Client | httpx.AsyncClient) -> httpx.Request:
    built = client.build_request(**_arguments(request, client))
    if not request.form and request.json is None:
        return built
    body = _Body(built, request)
    return httpx.Request(built.method, built.url, headers=built.headers, stream=body, extensions=built.extensions)


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A request's body that notes when its last byte is sent, and ends at the deadline."""

    def __init__(self, built: httpx.Request, request: Request) -> None:
        self._chunks = cast("Iterable[bytes]", built.stream)  # a body is in memory: reading it never waits
        self._size_bytes = int(built.headers["Content-Length"])
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        left_bytes = self._size_bytes
        for chunk in self._chunks:
            if not self._request.deadline.left_s():
                raise httpx.WriteTimeout("The request took too long to send.")
            left_bytes -= len(chunk)
            if left_bytes <= 0:
                self._request.delivery.is_unanswered = True
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


def _arguments(request: Request, client: httpx.Client | httpx.AsyncClient) -> dict[str, Any]:
    timeout, wait_s = client.timeout.as_dict(), request.wait_s
    if timeout["read"] is not None:
        timeout["read"] += request.extra_s + wait_s
    for name, seconds in timeout.items():
        left_s = request.deadline.left_s(float("inf") if seconds is None else seconds)
        timeout[name] = None if left_s == float("inf") else max(left_s, SHORTEST_S)
    return {
        "method": request.method,
        "url": request.path,
        "headers": request.headers | ({"Prefer": f"wait={wait_s}"} if wait_s else {}),
        "files": request.form,
        "json": request.json,
        "timeout": httpx.Timeout(**timeout),
    }


@contextmanager
def _errors_translated(client: httpx.Client | httpx.AsyncClient) -> Iterator[None]:
    try:
        yield
    except httpx.RequestError as error:
        reason = re.sub(r"^\[Errno -?\d+\] |\.$", "", str(error)) or type(error).__name__
        raise ServiceUnreachable(f"No answer from {str(client.base_url).rstrip('/')}: {reason}.") from error
