"""The OpenAPI document beyond the signatures: bodies, headers, and an example for every error."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from image_analysis_api.access.idempotency import HEADER, PATTERN
from image_analysis_api.openapi.bodies import BODIES, SCHEMAS
from image_analysis_api.openapi.training import TRAINING_SCHEMAS
from image_analysis_api.responses import Problem
from image_analysis_api.server.problems import MEDIA_TYPE, describe
from image_analysis_common import errors

EXAMPLE_REQUEST_ID = "b2c4d6e8f0a1"

RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which the same request can succeed",
        "schema": {"type": "integer", "minimum": 1},
    }
}
REQUEST_ID = {"X-Request-ID": {"description": "Identifies the request in every log line", "schema": {"type": "string"}}}
CHALLENGE = {"WWW-Authenticate": {"description": "Bearer", "schema": {"type": "string"}}}
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key in the Authorization header"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key, by itself"},
}
RATE_LIMIT = {
    "RateLimit-Policy": {"description": "Quota (q) and window in seconds (w)", "schema": {"type": "string"}},
    "RateLimit": {
        "description": "Requests left (r) and seconds until there is one more (t)",
        "schema": {"type": "string"},
    },
}


IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Makes the request safe to repeat: the same request with the same key gets the same job. "
    "Use a new UUID for each request",
    "schema": {"type": "string", "pattern": PATTERN},
}


def describe_errors(*kinds: type[errors.ServiceError]) -> dict[int | str, dict[str, Any]]:
    """Describe a route's errors: one response for each status, in it one example for each code."""
    responses: dict[int | str, dict[str, Any]] = {}
    every: list[type[errors.ServiceError]] = [*kinds, errors.ServiceError]
    for kind in every:
        response = responses.setdefault(
            kind.status,
            {
                "model": Problem,
                "description": HTTPStatus(kind.status).phrase,
                "content": {MEDIA_TYPE: {"examples": {}}},
            },
        )
        example = describe(kind, kind.sentence.format(**kind.example), EXAMPLE_REQUEST_ID).model_dump()
        response["content"][MEDIA_TYPE]["examples"][kind.code] = {"value": example}
        if kind.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            response["headers"] = RETRY_AFTER
        if kind.status == HTTPStatus.UNAUTHORIZED:
            response["headers"] = CHALLENGE
    return responses


def install(app: FastAPI, *, has_keys: bool) -> None:
    """Let the app's document show what it really answers."""

    def make_document() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                webhooks=app.webhooks.routes,
                tags=app.openapi_tags,
            )
            for path, operations in document["paths"].items():
                is_limited = path.startswith(("/analy", "/classifiers", "/models"))
                for operation in operations.values():
                    if is_limited and has_keys:
                        operation["security"] = [{name: []} for name in SECURITY_SCHEMES]
                        _add_errors(operation, errors.Unauthorized, errors.RateLimited)
                    _add_errors(operation, errors.UrlTooLong, errors.HeadersTooLarge)
                    _complete(operation["responses"], is_limited=is_limited)
            if has_keys:
                document["components"]["securitySchemes"] = SECURITY_SCHEMES
            schemas = document["components"]["schemas"]
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            document["components"]["schemas"] = dict(sorted((schemas | BODIES | TRAINING_SCHEMAS).items()))
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = make_document  # type: ignore[method-assign]


def _add_errors(operation: dict[str, Any], *kinds: type[errors.ServiceError]) -> None:
    """Add the answers that come before any route."""
    for status, response in describe_errors(*kinds).items():
        del response["model"]
        response["content"][MEDIA_TYPE]["schema"] = {"$ref": f"{SCHEMAS}Problem"}
        operation["responses"].setdefault(str(status), response)


def _complete(responses: dict[str, Any], *, is_limited: bool) -> None:
    """Correct one operation: no 422 of FastAPI's, which is not sent; problems as such; the headers of every answer."""
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    for status, response in responses.items():
        response["headers"] = response.get("headers", {}) | REQUEST_ID | (RATE_LIMIT if is_limited else {})
        content = response.get("content", {})
        if int(status) >= HTTPStatus.BAD_REQUEST and "application/json" in content:
            content[MEDIA_TYPE] |= content.pop("application/json")
