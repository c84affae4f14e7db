"""Limits the bytes of all request bodies together, so that many large ones do not exhaust the memory."""

import gc

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from image_analysis_common.errors import Unavailable

COLLECT_BYTES = 32_000_000
"""The garbage collector also runs after as many bytes of bodies: cycles may hold some of them."""


class BodyBudget:
    """ASGI middleware: limits the received bytes of all current requests to `max_bytes`, and refuses further ones.

    Processing a body takes about three times its size. A body counts until its answer begins. A route adds the bytes
    that it fetches by `request.state.hold(size_bytes)`, with a negative number for those that it drops. A route that
    makes its client wait first drops all references to the bytes and calls `request.state.release()`. What arrives
    after that, or after the answer has begun, does not count: nothing keeps it.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._freed_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own_bytes, is_kept = 0, True

        def hold(size_bytes: int) -> None:
            nonlocal own_bytes
            size_bytes = max(size_bytes, -own_bytes)  # a release may have come before
            if self._held_bytes + size_bytes > self._max_bytes:
                raise Unavailable("Too many large requests are being read: try again in a few seconds.")
            own_bytes += size_bytes
            self._held_bytes += size_bytes

        def release() -> None:
            nonlocal own_bytes, is_kept
            is_kept = False
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
