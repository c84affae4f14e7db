"""A router whose GET routes also answer HEAD, as RFC 9110 asks; FastAPI's own answers 405."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter


class HeadRouter(APIRouter):
    """Adds a HEAD route, which no document lists, to each GET route. The web server sends no body to a HEAD."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().add_api_route(path, endpoint, **options)
        if options.get("methods") == ["GET"]:
            super().add_api_route(path, endpoint, **options | {"methods": ["HEAD"], "include_in_schema": False})
