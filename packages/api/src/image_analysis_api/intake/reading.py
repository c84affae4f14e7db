"""From a request's body to an image's bytes that are worth queuing; reads headers, never pixels."""

import asyncio
import binascii
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, PngImagePlugin
from starlette.requests import ClientDisconnect, Request

from image_analysis_api.server.counts import read_count
from image_analysis_common.errors import (
    ImageTooLarge,
    InvalidBase64,
    RequestError,
    RequestTimeout,
    UnsupportedImage,
)
from image_analysis_common.images import FORMATS

DATA_URL_PREFIX = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w=.+-]+)*;base64,", re.ASCII | re.IGNORECASE)


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
        raise RequestTimeout(f"The body did not arrive within {timeout_s:g} s: send a smaller one.") from error
    except ClientDisconnect as error:
        raise RequestError("The connection ended before the body did.") from error


def decode_base64(text: str, max_image_bytes: int) -> bytes:
    """Decode an image's base64, with or without a `data:` prefix; strict: no other character, full padding.

    Raises:
        InvalidBase64, ImageTooLarge
    """
    prefix = DATA_URL_PREFIX.match(text, 0, 256)
    if prefix is None and text[:5].lower() == "data:":
        raise InvalidBase64("image_data has a data: prefix without ;base64: send the image's bytes in base64.")
    encoded = text[prefix.end() :] if prefix else text
    if not encoded:
        raise InvalidBase64("image_data is empty: send the image's bytes in base64.")
    if len(encoded) * 3 // 4 - 2 > max_image_bytes:
        raise ImageTooLarge(f"The image has more than {max_image_bytes} bytes: send a smaller one.")
    try:
        body = binascii.a2b_base64(encoded.encode("ascii"), strict_mode=True)
    except ValueError as error:
        raise InvalidBase64(
            "image_data is not valid base64: use the standard alphabet, with padding and no line breaks."
        ) from error
    if len(body) > max_image_bytes:
        raise ImageTooLarge(f"The image has {len(body)} bytes, and the limit is {max_image_bytes}: send a smaller one.")
    return body


def bound_pillow() -> None:
    """Set what Pillow may spend on a header, for the whole process."""
    # Ours is the pixel limit that counts; Pillow's would warn below it or refuse in other words.
    Image.MAX_IMAGE_PIXELS = None
    # The default of 64 MB can come out of 64 KB, and takes the event loop 0.1 s.
    PngImagePlugin.MAX_TEXT_MEMORY = 4 * PngImagePlugin.MAX_TEXT_CHUNK
    # One damaged image can be worth 60,000 warnings, each a log line and remembered for ever.
    warnings.filterwarnings("ignore", module=r"PIL\.")


def check_image(body: bytes, max_pixels: int) -> None:
    """Read an image's format and size from its header, without decoding it (0.15 ms).

    Raises:
        UnsupportedImage: no header of a format in `FORMATS`.
        ImageTooLarge: more than `max_pixels` pixels.
    """
    formats = ", ".join(FORMATS)
    try:
        with Image.open(BytesIO(body), formats=FORMATS) as image:
            width_px, height_px = image.size
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"The image has more than {max_pixels} pixels: send a smaller one.") from error
    except Exception as error:
        # A last line of defence: on a hostile header, Pillow's readers let any exception through.
        raise UnsupportedImage(f"These bytes are not a supported image: send one of {formats}.") from error
    if width_px * height_px > max_pixels:
        raise ImageTooLarge(
            f"The image has {width_px * height_px} pixels, and the limit is {max_pixels}: send a smaller one."
        )
    if width_px < 1 or height_px < 1:
        raise UnsupportedImage("The image has no pixels: send a different one.")
