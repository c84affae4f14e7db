"""What surrounds a request: its ID, its log line, and the headers that every answer carries."""

import re
import time
from http import HTTPStatus
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.status import WS_1011_INTERNAL_ERROR
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.utils import ClientDisconnected

from image_analysis_api.metrics import WEBSOCKET, count_request
from image_analysis_api.server.problems import render
from image_analysis_common.errors import ServiceError

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# What the OWASP REST guide asks of every answer. All of it is for one caller at one moment, so nothing needs Vary.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
log = structlog.get_logger(__name__)


def refuse(error: ServiceError) -> Response:
    """Make the answer to what never became a request, log it, and count it."""
    identifier = uuid4().hex
    with structlog.contextvars.bound_contextvars(request_id=identifier):
        response = render(error)
        response.headers.update({"X-Request-ID": identifier, **HEADERS})
        log.info("request_refused", status=error.status, code=error.code)
    return response


class RequestContext:
    """ASGI middleware: binds `request_id` for every log line, echoes it, and logs the request when it ends.

    `X-Request-ID` is taken from the client where it is short and plain, and made otherwise. Headers that a route
    leaves in `request.state.headers` are sent with whatever answer comes, an error's as well.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        identifier = given if REQUEST_ID.fullmatch(given) else uuid4().hex
        extra: dict[str, str] = {"X-Request-ID": identifier, **HEADERS}
        scope.setdefault("state", {})["headers"] = extra
        status, started_s = 0, time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.accept"):
                status = message.get("status", HTTPStatus.SWITCHING_PROTOCOLS)
                MutableHeaders(scope=message).update(extra)
            await send(message)

        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=identifier)
        try:
            await self.app(scope, receive, send_with_headers)
        except WebSocketDisconnect:
            pass  # The client left while something was sent to it: an end like any other.
        except ClientDisconnected:
            raise  # The same before the handshake was answered: uvicorn knows it.
        except Exception:
            # The last line of defence: the client learns nothing of the cause, the log has all of it.
            log.exception("request_crashed")
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": WS_1011_INTERNAL_ERROR})
            elif not status:
                await render(ServiceError())(scope, receive, send_with_headers)
        finally:
            duration_s = time.perf_counter() - started_s
            count_request(scope, status, duration_s)
            write = log.debug if scope["path"].startswith("/health") else log.info
            write(
                "request_ended",
                method=scope.get("method", WEBSOCKET),
                path=scope["path"],
                status=status,
                duration_ms=round(duration_s * 1000, 2),
            )
