"""Errors as clients see them: RFC 9457 `application/problem+json`, made in one place."""

from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from image_analysis_api.metrics import PROBLEMS
from image_analysis_api.responses import Problem
from image_analysis_common.errors import MethodNotAllowed, NotFound, RequestError, ServiceError
from image_analysis_common.logs import request_id

MEDIA_TYPE = "application/problem+json"
log = structlog.get_logger(__name__)


def describe(kind: type[ServiceError] | ServiceError, detail: str, request: str) -> Problem:
    """Put an error into the words of RFC 9457."""
    return Problem(
        title=HTTPStatus(kind.status).phrase, status=kind.status, detail=detail, code=kind.code, request_id=request
    )


def render(error: ServiceError) -> Response:
    """Write an error as a response; one that is worth another try says when."""
    PROBLEMS.labels(error.code).inc()
    return JSONResponse(
        describe(error, error.detail, request_id()).model_dump(),
        status_code=error.status,
        headers={"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None,
        media_type=MEDIA_TYPE,
    )


def install(app: FastAPI) -> None:
    """Make every error of the app a problem document."""

    @app.exception_handler(ServiceError)
    async def on_service_error(_request: Request, error: ServiceError) -> Response:
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and (cause := error.__cause__):
            log.warning("request_failed", code=error.code, cause=f"{type(cause).__name__}: {cause}")
        return render(error)

    @app.exception_handler(HTTPException)
    async def on_http_exception(_request: Request, error: HTTPException) -> Response:
        match error.status_code:
            case HTTPStatus.NOT_FOUND:
                return render(NotFound())
            case HTTPStatus.METHOD_NOT_ALLOWED:
                response = render(MethodNotAllowed("This path does not support this method: see /docs."))
                response.headers.update(error.headers or {})
                return response
            case _:
                return render(RequestError("The request cannot be read: see /docs."))
