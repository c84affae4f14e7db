"""The bytes of a submitted image: decoded from base64 or fetched, then checked by their header, never decoded."""

import re
import warnings
from collections.abc import Callable
from io import BytesIO

import pybase64
from PIL import Image

from image_analysis_api.intake.image_header import check_parts
from image_analysis_api.intake.offload import run
from image_analysis_api.intake.submissions import Submission
from image_analysis_api.outbound.fetcher import Fetcher, Hold
from image_analysis_common.errors import ImageTooLarge, InvalidBase64, UnsupportedImage
from image_analysis_common.images import FORMATS, image_digest

DATA_URL_PREFIX = re.compile(r'data:((?:"[^"]*"|[^,])*+),', re.IGNORECASE)
"""The start of a data URL (RFC 2397) up to the comma before its data; a quoted parameter may hold a comma too."""

MAX_PREFIX_CHARACTERS = 1024
ESCAPES = {"%2B": "+", "%2b": "+", "%2F": "/", "%2f": "/", "%3D": "=", "%3d": "="}

TEXT_BYTES = 1024
"""How much of a body is searched for the tags of SVG and HTML."""

JPEG_SIGNATURE = b"\xff\xd8\xff"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEADER_BYTES = 33
"""The signature, and the chunk IHDR with format and size."""

START_OF_PIXELS = bytes(4) + b"IDAT"
IMAGE_SIGNATURE = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|....ftyp.{0,28}avi", re.DOTALL)

HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
SIGNATURES = {
    b"%PDF-": "a PDF document: send its page as PNG or JPEG",
    b"II*\0": "a TIFF or a camera's raw file: convert it to JPEG or PNG",
    b"MM\0*": "a TIFF or a camera's raw file: convert it to JPEG or PNG",
    b"\x1aE\xdf\xa3": "a video: send one of its frames as JPEG",
}


def decode_base64(text: str, max_image_bytes: int) -> bytes:
    """Decode an image's base64, alone or in a data URL as in RFC 2397.

    Other characters, missing and surplus padding are errors.

    Raises:
        InvalidBase64, ImageTooLarge
    """
    encoded = text
    if text[:5].lower() == "data:":
        prefix = DATA_URL_PREFIX.match(text, 0, MAX_PREFIX_CHARACTERS)
        if prefix is None:
            raise InvalidBase64(
                f"The image has a data: prefix without a comma in its first {MAX_PREFIX_CHARACTERS} characters: "
                "send data:;base64, and then its bytes in base64."
            )
        # Browsers allow spaces around base64, and so do we.
        if prefix[1].rpartition(";")[2].strip(" ").lower() != "base64":
            raise InvalidBase64("The image has a data: prefix without ;base64: send its bytes in base64.")
        encoded = text[prefix.end() :]
        if "%" in encoded:
            for escape, character in ESCAPES.items():  # unquote() would take twenty times the memory of the text
                encoded = encoded.replace(escape, character)
    if not encoded:
        raise InvalidBase64("The image is empty: send its bytes in base64.")
    if len(encoded) * 3 // 4 - 2 > max_image_bytes:
        raise ImageTooLarge(f"The image has more than {max_image_bytes} bytes: send a smaller one.")
    try:
        body = pybase64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise InvalidBase64 from error
    if len(body) > max_image_bytes:
        raise ImageTooLarge(size=len(body), unit="bytes", limit=max_image_bytes)
    return body


def bound_pillow(max_pixels: int) -> None:
    """Limit the memory that Pillow uses for a header, in the whole process."""
    # Opening a GIF fills a frame of the size that it states: 251 bytes took 4 GB. Pillow refuses twice this number.
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    # One damaged image can cause 60,000 warnings, each logged and kept in memory.
    warnings.filterwarnings("ignore", module=r"PIL\.")


def read_size(body: bytes) -> tuple[int, int]:
    """Read an image's width and height in pixels from its header.

    Raises:
        Image.DecompressionBombError: it has more pixels than Pillow may open.
        Exception: of any kind, the header is of no format in `FORMATS`.
    """
    if body.startswith(JPEG_SIGNATURE):
        # Of all readers, `Image.open` would call this one alone; finding it takes 15 microseconds.
        if "JPEG" not in Image.OPEN:
            Image.preinit()
        read_jpeg, _ = Image.OPEN["JPEG"]
        width_px, height_px = read_jpeg(BytesIO(body), "").size
        if Image.MAX_IMAGE_PIXELS and width_px * height_px > 2 * Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError
        return width_px, height_px
    # Pillow would decompress all texts of a PNG, which come before its pixels: 64 KB can become 64 MB.
    is_png = body.startswith(PNG_SIGNATURE)
    header = body[:PNG_HEADER_BYTES] + START_OF_PIXELS if is_png else body
    with Image.open(BytesIO(header), formats=FORMATS) as image:
        return image.size


def check_image(body: bytes, max_pixels: int) -> None:
    """Read an image's format and size from its header, without decoding it (0.15 ms).

    Raises:
        UnsupportedImage: the header is of no format in `FORMATS`, or has too many parts.
        ImageTooLarge: more than `max_pixels` pixels.
    """
    check_parts(body)
    try:
        width_px, height_px = read_size(body)
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"The image has more than {max_pixels} pixels: send a smaller one.") from error
    except Exception as error:
        # Last line of defence: Pillow's readers raise any kind of exception on a hostile header.
        raise _name_mistake(body) from error
    if width_px * height_px > max_pixels:
        raise ImageTooLarge(size=width_px * height_px, unit="pixels", limit=max_pixels)
    if width_px < 1 or height_px < 1:
        raise UnsupportedImage("The image has no pixels: send a different one.")


def _name_mistake(body: bytes) -> UnsupportedImage:
    """Make the error for bytes that are not a supported image; it names the kinds of file that people often send."""
    text = body[:TEXT_BYTES].lower()
    kind = next((kind for signature, kind in SIGNATURES.items() if body.startswith(signature)), None)
    if body[4:8] == b"ftyp" and b"avi" not in body[8:40]:
        is_photo = body[8:12] in HEIF_BRANDS
        kind = "a HEIC photo: convert it to JPEG" if is_photo else "a video: send one of its frames as JPEG"
    elif b"<svg" in text:
        kind = "an SVG drawing: export it as PNG"
    elif b"<html" in text or b"<!doctype html" in text:
        kind = "a web page: send the image itself, or the URL of the image itself"
    if kind is None:
        if IMAGE_SIGNATURE.match(body):
            return UnsupportedImage(
                "The image's header is damaged, cut short, or of a kind that the service does not read: "
                "send the whole file, or save it as PNG or JPEG."
            )
        return UnsupportedImage(formats=", ".join(FORMATS))
    return UnsupportedImage(f"This is {kind}. The service reads {', '.join(FORMATS)}.")


class ImageReader:
    """Gets the bytes of submitted images, and checks them."""

    def __init__(
        self, fetcher: Fetcher, *, max_bytes: int, max_pixels: int, is_checked: Callable[[str], bool] = lambda _: False
    ) -> None:
        """`is_checked` returns whether this process has checked an image with this SHA-256 before."""
        self._fetcher = fetcher
        self._is_checked = is_checked
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels

    async def read(self, submission: Submission, client: str, hold: Hold) -> tuple[bytes, str]:
        """Return an image's bytes and their SHA-256 in hex.

        `client` is the owner or address whose concurrent fetches are counted. `hold` counts the bytes that are fetched.

        Raises:
            RequestError: it is not an image, is too large, or cannot be fetched.
            Unavailable: too many images are being fetched, or `hold` has refused.
        """
        if submission.image_data is not None:
            size_bytes = len(submission.image_data)
            image = await run(decode_base64, submission.image_data, self._max_bytes, size_bytes=size_bytes)
        elif submission.image is not None:
            image = submission.image
            if len(image) > self._max_bytes:
                raise ImageTooLarge(size=len(image), unit="bytes", limit=self._max_bytes)
        else:
            image = await self._fetcher.fetch(submission.image_url or "", client, hold)
        return image, await run(self._examine, image, size_bytes=len(image))

    def _examine(self, image: bytes) -> str:
        digest = image_digest(image)
        if not self._is_checked(digest):
            check_image(image, self._max_pixels)
        return digest
