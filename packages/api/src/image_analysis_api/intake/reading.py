"""Reads a request's body, with limits on its bytes and its time."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from image_analysis_api.server.counts import read_count
from image_analysis_api.server.framing import HAS_ARRIVED
from image_analysis_common.errors import ImageTooLarge, RequestError, RequestTimeout


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Most bytes of all images in a body together, and the longest time for the body to arrive."""

    max_images_bytes: int
    timeout_s: float


async def read_body(request: Request, write: Callable[[bytes], object], limit_bytes: int, limits: BodyLimits) -> None:
    """Pass each piece of a body to `write` when it arrives, at most `limit_bytes` in all.

    Raises:
        ImageTooLarge: the body is longer, even if Content-Length says otherwise.
        RequestTimeout: the body did not arrive in time.
        RequestError: the client disconnected.
    """
    max_bytes, timeout_s = limits.max_images_bytes, limits.timeout_s

    def too_large() -> ImageTooLarge:
        return ImageTooLarge(f"The body has more than {limit_bytes} bytes: send at most {max_bytes} bytes of images.")

    if (read_count(request.headers.get("content-length", "")) or 0) > limit_bytes:
        raise too_large()
    size_bytes = 0
    try:
        # `asyncio.timeout` takes 5 microseconds.
        has_arrived = request.scope["state"].get(HAS_ARRIVED)
        async with nullcontext() if has_arrived else asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                size_bytes += len(chunk)
                if size_bytes > limit_bytes:
                    raise too_large()
                write(chunk)
    except TimeoutError as error:
        raise RequestTimeout(timeout_s=timeout_s) from error
    except ClientDisconnect as error:
        raise RequestError("The connection ended before the body did.") from error
