"""Makes error responses: RFC 9457 `application/problem+json`."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from image_analysis_api.metrics import PROBLEMS
from image_analysis_api.responses import Problem
from image_analysis_api.server.proxies import public_path
from image_analysis_common.errors import MethodNotAllowed, NotFound, RequestError, ServiceError
from image_analysis_common.logs import request_id

MEDIA_TYPE = "application/problem+json"
log = structlog.get_logger(__name__)


def describe(kind: type[ServiceError] | ServiceError, detail: str, request: str) -> Problem:
    """Make the problem document of an error."""
    return Problem(
        title=HTTPStatus(kind.status).phrase, status=kind.status, detail=detail, code=kind.code, request_id=request
    )


def render(error: ServiceError) -> Response:
    """Make the response of an error, with `Retry-After` if a retry can succeed."""
    PROBLEMS.labels(error.code).inc()
    return JSONResponse(
        describe(error, error.detail, request_id()).model_dump(),
        status_code=error.status,
        headers={"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None,
        media_type=MEDIA_TYPE,
    )


def respond(error: ServiceError) -> Response:
    """Make the response of an error of a route, and log the cause of one that is not the client's."""
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and (cause := error.__cause__):
        log.warning("request_failed", code=error.code, cause=f"{type(cause).__name__}: {cause}")
    _free_frames(error)
    return render(error)


def _free_frames(error: BaseException) -> None:
    """Free what the frames of an error and its causes hold, such as a body.

    A frame that holds the error is a cycle with it, which would live until the garbage collector runs.
    """
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__


def install(app: FastAPI) -> None:
    """Install the handlers that turn every error of the app into a problem document."""

    @app.exception_handler(ServiceError)
    async def on_service_error(_request: Request, error: ServiceError) -> Response:
        return respond(error)

    @app.exception_handler(Exception)
    async def on_crash(_request: Request, _error: Exception) -> Response:
        return render(ServiceError())  # `RequestContext` logs the cause

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        documentation = public_path(request.scope, "/docs")
        match error.status_code:
            case HTTPStatus.NOT_FOUND:
                return render(NotFound(NotFound.sentence.replace("/docs", documentation)))
            case HTTPStatus.METHOD_NOT_ALLOWED:
                response = render(MethodNotAllowed(f"This path does not support this method: see {documentation}."))
                response.headers.update(error.headers or {})
                # Starlette names the methods of the first route with this path only; /models/{model_id} has two.
                path = getattr(request.scope.get("route"), "path_format", "")
                if documented := app.openapi()["paths"].get(path):
                    response.headers["Allow"] = ", ".join(_allowed(documented))
                return response
            case _:
                return render(RequestError(f"The request cannot be read: see {documentation}."))


def _allowed(operations: dict[str, Any]) -> list[str]:
    """List the methods of a path: its documented operations, and HEAD if there is a GET that is no stream."""
    methods = {method.upper() for method in operations}
    if "GET" in methods and "text/event-stream" not in operations["get"]["responses"]["200"]["content"]:
        methods.add("HEAD")
    return sorted(methods)
