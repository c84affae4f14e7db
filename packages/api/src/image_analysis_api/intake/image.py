"""The bytes of a submitted image: decoded from base64 or fetched, then checked by their header, never decoded."""

import binascii
import re
import warnings
from io import BytesIO

from PIL import Image, PngImagePlugin

from image_analysis_api.intake.offload import run
from image_analysis_api.intake.submissions import Submission
from image_analysis_api.outbound.fetcher import Fetcher
from image_analysis_common.errors import ImageTooLarge, InvalidBase64, UnsupportedImage
from image_analysis_common.images import FORMATS, image_digest

DATA_URL_PREFIX = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w=.+-]+)*;base64,", re.ASCII | re.IGNORECASE)


def decode_base64(text: str, max_image_bytes: int) -> bytes:
    """Decode an image's base64, with or without a `data:` prefix. Other characters and missing padding are errors.

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
        raise InvalidBase64 from error
    if len(body) > max_image_bytes:
        raise ImageTooLarge(size=len(body), unit="bytes", limit=max_image_bytes)
    return body


def bound_pillow() -> None:
    """Limit the memory that Pillow uses for a header, in the whole process."""
    # `check_image` has its own pixel limit. Pillow's would warn below it, or refuse with another message.
    Image.MAX_IMAGE_PIXELS = None
    # 64 KB can decompress to the default of 64 MB, which blocks the event loop for 0.1 s.
    PngImagePlugin.MAX_TEXT_MEMORY = 4 * PngImagePlugin.MAX_TEXT_CHUNK
    # One damaged image can cause 60,000 warnings, each logged and kept in memory.
    warnings.filterwarnings("ignore", module=r"PIL\.")


def check_image(body: bytes, max_pixels: int) -> None:
    """Read an image's format and size from its header, without decoding it (0.15 ms).

    Raises:
        UnsupportedImage: the header is of no format in `FORMATS`.
        ImageTooLarge: more than `max_pixels` pixels.
    """
    try:
        with Image.open(BytesIO(body), formats=FORMATS) as image:
            width_px, height_px = image.size
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"The image has more than {max_pixels} pixels: send a smaller one.") from error
    except Exception as error:
        # Last line of defence: Pillow's readers raise any kind of exception on a hostile header.
        raise UnsupportedImage(formats=", ".join(FORMATS)) from error
    if width_px * height_px > max_pixels:
        raise ImageTooLarge(size=width_px * height_px, unit="pixels", limit=max_pixels)
    if width_px < 1 or height_px < 1:
        raise UnsupportedImage("The image has no pixels: send a different one.")


class ImageReader:
    """Gets the bytes of submitted images, and checks them."""

    def __init__(self, fetcher: Fetcher, *, max_bytes: int, max_pixels: int) -> None:
        self._fetcher = fetcher
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels

    async def read(self, submission: Submission, client: str) -> tuple[bytes, str]:
        """Return an image's bytes and their SHA-256 in hex.

        `client` is the owner or address whose concurrent fetches are counted.

        Raises:
            RequestError: it is not an image, is too large, or cannot be fetched.
            Unavailable: too many images are being fetched.
        """
        if submission.image_data is not None:
            size_bytes = len(submission.image_data)
            image = await run(decode_base64, submission.image_data, self._max_bytes, size_bytes=size_bytes)
        elif submission.image is not None:
            image = submission.image
            if len(image) > self._max_bytes:
                raise ImageTooLarge(size=len(image), unit="bytes", limit=self._max_bytes)
        else:
            image = await self._fetcher.fetch(submission.image_url or "", client)
        return image, await run(self._examine, image, size_bytes=len(image))

    def _examine(self, image: bytes) -> str:
        check_image(image, self._max_pixels)
        return image_digest(image)
