"""The context of a request: its ID, its log line, and the headers of every answer."""

import re
import time
from collections.abc import Iterable, Mapping
from functools import cache
from http import HTTPStatus
from secrets import token_hex

import structlog
from starlette.responses import Response
from starlette.status import WS_1011_INTERNAL_ERROR
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.utils import ClientDisconnected

from image_analysis_api.metrics import WEBSOCKET, count_request
from image_analysis_api.server.problems import render
from image_analysis_common.errors import ServiceError

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# Headers that the OWASP REST guide requires. No answer may be stored, so none needs Vary.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
log = structlog.get_logger(__name__)


def refuse(error: ServiceError) -> Response:
    """Make, log and count the answer to a request that was refused before it reached the app."""
    identifier = token_hex(16)
    with structlog.contextvars.bound_contextvars(request_id=identifier):
        response = render(error)
        response.headers.update({"X-Request-ID": identifier, **HEADERS})
        log.info("request_refused", status=error.status, code=error.code)
    return response


def _replace(headers: Iterable[tuple[bytes, bytes]], extra: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Add headers to those of an answer, in place of others with their names."""
    added = [(_encode_name(name), value.encode("latin-1")) for name, value in extra.items()]
    names = {name for name, _ in added}
    return [header for header in headers if header[0] not in names] + added


@cache
def _encode_name(name: str) -> bytes:
    return name.lower().encode("latin-1")


class RequestContext:
    """ASGI middleware: binds `request_id` for every log line, echoes it, and logs the request when it ends.

    The client's `X-Request-ID` is used if it is short and plain; otherwise a new one is made. Headers that a route puts
    into `request.state.headers` are sent with any answer, also with an error. The latency does not include
    `request.state.waited_s`, in which the request waited for its body, or for an end as its client asked.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        identifier = given if REQUEST_ID.fullmatch(given) else token_hex(16)
        extra: dict[str, str] = {"X-Request-ID": identifier, **HEADERS}
        state = scope.setdefault("state", {})
        state |= {"headers": extra, "waited_s": 0.0}
        path = scope["path"].removeprefix(scope.get("root_path", ""))  # a mounted app changes both
        status, has_body, started_s = 0, False, time.perf_counter()

        async def receive_body() -> Message:
            nonlocal has_body
            asked_s = time.perf_counter()
            message = await receive()
            if not has_body:  # what comes after it is a disconnect, which nobody waits for
                state["waited_s"] += time.perf_counter() - asked_s
                has_body = not message.get("more_body", False)
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.accept"):
                status = message.get("status", HTTPStatus.SWITCHING_PROTOCOLS)
                message["headers"] = _replace(message.get("headers", ()), extra)
            await send(message)

        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=identifier)
        try:
            await self.app(scope, receive_body, send_with_headers)
        except WebSocketDisconnect:
            pass  # The client disconnected during a send: a normal end.
        except ClientDisconnected:
            raise  # The same before the answer to the handshake: uvicorn handles it.
        except Exception:
            # Last line of defence: the log has the cause, the client gets a general error.
            log.exception("request_crashed")
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": WS_1011_INTERNAL_ERROR})
            elif not status:
                await render(ServiceError())(scope, receive, send_with_headers)
        finally:
            duration_s = time.perf_counter() - started_s
            count_request(scope, status, max(0.0, duration_s - state["waited_s"]))
            write = log.debug if path.startswith("/health") else log.info
            write(
                "request_ended",
                method=scope.get("method", WEBSOCKET),
                path=path,
                status=status,
                duration_ms=round(duration_s * 1000, 2),
            )
