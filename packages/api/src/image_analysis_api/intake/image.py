"""An image's bytes as a client sends them: base64 decoded, format and size read from the header, pixels never."""

import binascii
import re
import warnings
from io import BytesIO

from PIL import Image, PngImagePlugin

from image_analysis_common.errors import ImageTooLarge, InvalidBase64, UnsupportedImage
from image_analysis_common.images import FORMATS

DATA_URL_PREFIX = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w=.+-]+)*;base64,", re.ASCII | re.IGNORECASE)


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
        raise InvalidBase64 from error
    if len(body) > max_image_bytes:
        raise ImageTooLarge(size=len(body), unit="bytes", limit=max_image_bytes)
    return body


def bound_pillow() -> None:
    """Set what Pillow may spend on a header, for the whole process."""
    # Ours is the pixel limit that counts; Pillow's would warn below it or refuse in other words.
    Image.MAX_IMAGE_PIXELS = None
    # The default of 64 MB can come out of 64 KB, and takes the event loop 0.1 s.
    PngImagePlugin.MAX_TEXT_MEMORY = 4 * PngImagePlugin.MAX_TEXT_CHUNK
    # One damaged image can cause 60,000 warnings; each is logged and kept in memory.
    warnings.filterwarnings("ignore", module=r"PIL\.")


def check_image(body: bytes, max_pixels: int) -> None:
    """Read an image's format and size from its header, without decoding it (0.15 ms).

    Raises:
        UnsupportedImage: no header of a format in `FORMATS`.
        ImageTooLarge: more than `max_pixels` pixels.
    """
    try:
        with Image.open(BytesIO(body), formats=FORMATS) as image:
            width_px, height_px = image.size
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"The image has more than {max_pixels} pixels: send a smaller one.") from error
    except Exception as error:
        # A last line of defence: on a hostile header, Pillow's readers let any exception through.
        raise UnsupportedImage(formats=", ".join(FORMATS)) from error
    if width_px * height_px > max_pixels:
        raise ImageTooLarge(size=width_px * height_px, unit="pixels", limit=max_pixels)
    if width_px < 1 or height_px < 1:
        raise UnsupportedImage("The image has no pixels: send a different one.")
