"""The page at `/`, where people try the service, and its files.

The files are read once, into memory. All of the page's links are relative: it works under a prefix of a proxy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from pathlib import PurePath
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response, status
from fastapi.responses import JSONResponse

from image_analysis_api.routes.parameters import FoundServices
from image_analysis_api.settings import ApiSettings

START = "index.html"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
LINKS = {
    "analyze_image": "analyze-image",
    "analyze_images": "analyze-images",
    "models": "models",
    "ready": "health/ready",
    "documentation": "docs",
    "reference": "redoc",
    "openapi": "openapi.json",
}
"""Relative to the document that holds them."""

# The page shows the images that it is given (blob:) and small copies of them (data:). It loads nothing from other
# hosts: only the service fetches the image of a URL.
SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Cache-Control": "no-cache",  # a browser keeps them, and asks by their ETag whether they have changed
    "Content-Security-Policy": SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class PageFile:
    """One file of the page. Its ETag comes from its content, so that all processes of a release agree on it."""

    content: bytes
    media_type: str
    etag: str


@cache
def read_files() -> Mapping[str, PageFile]:
    """Read the page's files, by name."""
    return {
        file.name: PageFile(
            content=(content := file.read_bytes()),
            media_type=MEDIA_TYPES[PurePath(file.name).suffix],
            etag=f'"{sha256(content).hexdigest()[:20]}"',
        )
        for file in resources.files("image_analysis_api").joinpath("page").iterdir()
    }


@router.api_route("/", methods=["GET", "HEAD"])
async def read_start(request: Request, services: FoundServices) -> Response:
    """Get the page, or a JSON document of links for a client that prefers JSON or where the page is switched off."""
    accepted = request.headers.get("accept", "*/*")
    request.state.headers["Vary"] = "Accept"
    if services.settings.playground and quality(accepted, "text/html") >= quality(accepted, "application/json"):
        return _send(request, read_files()[START])
    return JSONResponse(describe_service(services.settings))


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def read_page_file(request: Request, name: str, services: FoundServices) -> Response:
    """Get a file of the page."""
    file = read_files().get(name)
    if file is None or not services.settings.playground:
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    return _send(request, file)


def describe_service(settings: ApiSettings) -> dict[str, Any]:
    """Say what the service is called, whether it wants a key, and where its calls are."""
    return {
        "name": settings.api_title,
        "version": settings.api_version,
        "api_key_required": bool(settings.api_keys),
        "links": LINKS,
    }


def quality(accepted: str, media_type: str) -> float:
    """Read from an Accept header how much a media type is wanted, from 0 to 1: the most exact range decides."""
    ranges = {}
    for part in accepted.lower().split(","):
        wanted, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        ranges[wanted] = float(weight) if weight.replace(".", "", 1).isdecimal() else 0.0
    group = media_type.partition("/")[0]
    return next((ranges[known] for known in (media_type, f"{group}/*", "*/*") if known in ranges), 0.0)


def _send(request: Request, file: PageFile) -> Response:
    request.state.headers |= HEADERS | {"ETag": file.etag}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known or "*" in known:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED)
    return Response(file.content, media_type=file.media_type)
