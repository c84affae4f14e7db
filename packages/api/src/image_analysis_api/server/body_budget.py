"""The bodies of all requests together, bounded: a thousand clients that send large ones do not fill the memory."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from image_analysis_common.errors import Unavailable


class BodyBudget:
    """ASGI middleware: holds the bodies of the requests in work to `max_bytes` together, of what has arrived of them.

    The request whose bytes would pass that is refused; while it works on a body, a request takes about three times its
    size. A route counts in what it fetches by `request.state.hold(size_bytes)`. A body counts until its answer begins.
    A route that lets its client wait calls `request.state.release()` before, once nothing refers to the bytes any more.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self._max_bytes = max_bytes
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own_bytes = 0

        def hold(size_bytes: int) -> None:
            nonlocal own_bytes
            if self._held_bytes + size_bytes > self._max_bytes:
                raise Unavailable("Too many large requests are being read: try again in a few seconds.")
            own_bytes += size_bytes
            self._held_bytes += size_bytes

        def release() -> None:
            nonlocal own_bytes
            self._held_bytes -= own_bytes
            own_bytes = 0

        async def receive_bounded() -> Message:
            message = await receive()
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
