"""Limits the bytes of all request bodies together, so that many large ones do not exhaust the memory."""

import gc
from collections import defaultdict
from collections.abc import Callable, Hashable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from image_analysis_common.errors import Unavailable

COLLECT_BYTES = 32_000_000
"""The garbage collector also runs after as many bytes of bodies: cycles may hold some of them."""


class _Client:
    """The bodies of one client that hold bytes, with their sizes, the oldest first."""

    def __init__(self) -> None:
        self.sizes: dict[object, int] = {}
        self.total_bytes = 0

    def has_room(self, body: object, size_bytes: int, max_bytes: int) -> bool:
        """Whether a body may get larger: the first one may, the others get half of what that one leaves free."""
        first = next(iter(self.sizes), body)
        if first is body:
            return True
        first_bytes = self.sizes[first]
        return self.total_bytes - first_bytes + size_bytes <= (max_bytes - first_bytes) // 2

    def add(self, body: object, size_bytes: int) -> None:
        self.sizes[body] = self.sizes.get(body, 0) + size_bytes
        self.total_bytes += size_bytes

    def remove(self, body: object) -> None:
        self.total_bytes -= self.sizes.pop(body, 0)


class BodyBudget:
    """ASGI middleware: limits the received bytes of all current requests to `max_bytes`, and refuses further ones.

    `client_of` names the client of a request. The oldest body of a client is refused only if there is no room at all;
    its further ones together get half of what that one leaves free. Even if the oldest grows after them to a third of
    `max_bytes`, as the largest JSON does with default settings, a sixth stays for other clients. Without `client_of`,
    each request is a client of its own.

    Processing a body takes about three times its size. A body counts until its answer begins. A route adds the bytes
    that it fetches by `request.state.hold(size_bytes)`, with a negative number for those that it drops. A route that
    makes its client wait first drops all references to the bytes and calls `request.state.release()`. What arrives
    after that, or after the answer has begun, does not count: nothing keeps it.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, client_of: Callable[[Scope], Hashable] = id) -> None:
        self.app = app
        self._max_bytes = max_bytes
        self._client_of = client_of
        self._clients = defaultdict[Hashable, _Client](_Client)
        self._held_bytes = 0
        self._freed_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own_bytes, is_kept = 0, True
        name: Hashable = None
        body = object()

        def hold(size_bytes: int) -> None:
            nonlocal own_bytes, name
            size_bytes = max(size_bytes, -own_bytes)  # a release may have come before
            if not size_bytes:
                return
            name = name or self._client_of(scope)
            client = self._clients[name]
            has_room = size_bytes < 0 or client.has_room(body, size_bytes, self._max_bytes)
            if self._held_bytes + size_bytes > self._max_bytes or not has_room:
                raise Unavailable("Too many large requests are being read: try again in a few seconds.")
            client.add(body, size_bytes)
            own_bytes += size_bytes
            self._held_bytes += size_bytes

        def release() -> None:
            nonlocal own_bytes, is_kept
            is_kept = False
            if name in self._clients:
                self._clients[name].remove(body)
                if not self._clients[name].sizes:
                    del self._clients[name]
            self._held_bytes -= own_bytes
            self._freed_bytes += own_bytes
            own_bytes = 0
            if self._freed_bytes > COLLECT_BYTES:
                self._freed_bytes = 0
                gc.collect()

        async def receive_bounded() -> Message:
            message = await receive()
            if is_kept:
                hold(len(message.get("body", b"")))
            return message

        async def send_released(message: Message) -> None:
            release()
            await send(message)

        scope.setdefault("state", {}).update(hold=hold, release=release)
        try:
            await self.app(scope, receive_bounded, send_released)
        finally:
            release()
