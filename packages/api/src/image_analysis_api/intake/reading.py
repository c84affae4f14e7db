"""A request's body as it arrives, within limits of bytes and time."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from image_analysis_api.server.counts import read_count
from image_analysis_common.errors import ImageTooLarge, RequestError, RequestTimeout


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How many bytes the images in a body may have together, and how long it may take to arrive."""

    max_images_bytes: int
    timeout_s: float


async def read_body(request: Request, take: Callable[[bytes], object], limit_bytes: int, limits: BodyLimits) -> None:
    """Give each piece of a body to `take` as it arrives: at most `limit_bytes`, and not a byte more.

    Raises:
        ImageTooLarge: the body is longer, whatever Content-Length says.
        RequestTimeout: it is not here in time.
        RequestError: the client has gone.
    """
    max_bytes, timeout_s = limits.max_images_bytes, limits.timeout_s
    too_large = ImageTooLarge(f"The body has more than {limit_bytes} bytes: send at most {max_bytes} bytes of images.")
    if (read_count(request.headers.get("content-length", "")) or 0) > limit_bytes:
        raise too_large
    size_bytes = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                size_bytes += len(chunk)
                if size_bytes > limit_bytes:
                    raise too_large
                take(chunk)
    except TimeoutError as error:
        raise RequestTimeout(timeout_s=timeout_s) from error
    except ClientDisconnect as error:
        raise RequestError("The connection ended before the body did.") from error
