"""Image bombs: small files that are expensive to decode, or whose headers are wrong. All are generated here."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from support.samples import encode, make_image

LIMIT_PX = 50_000_000
"""The `MAX_IMAGE_PIXELS` for which the images below are made."""


@dataclass(frozen=True)
class Bomb:
    """An image and the expected answer: the code of a refusal, or how its job ends."""

    make: Callable[[], bytes]
    refusal: str | None = None
    end: tuple[str, str | None] = ("COMPLETED", None)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, pixels: bytes, *before: bytes, after: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + chunk(b"IDAT", pixels) + after + chunk(b"IEND", b"")


def narrow_png(width: int, height: int) -> bytes:
    """A hundred bytes that a model resizes to thousands of megapixels if it scales the shortest edge."""
    return png(width, height, zlib.compress(bytes((width + 1) * height)))


def zeros(size: int) -> bytes:
    """Compress zeros 1000 to 1, without holding all of them in memory."""
    deflate, block = zlib.compressobj(9), bytes(2**20)
    return b"".join(deflate.compress(block) for _ in range(size // len(block))) + deflate.flush()


def small_png(*before: bytes, after: bytes = b"") -> bytes:
    return png(8, 8, zlib.compress(bytes(9 * 8)), *before, after=after)


def gif(screen_px: int, frame_px: int, frames: int = 1) -> bytes:
    image = encode(Image.new("P", (8, 8)), "GIF")
    frame = replaced(image[image.index(b",") : -1], b",", 5, struct.pack("<HH", frame_px, frame_px))
    head = replaced(image[: image.index(b",")], b"GIF", 6, struct.pack("<HH", screen_px, screen_px))
    return head + frame * frames + b";"


def replaced(image: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite the bytes that follow `offset` bytes after a mark."""
    at = image.index(mark) + offset
    return image[:at] + value + image[at + len(value) :]


def jpeg_of_size(width: int, height: int) -> bytes:
    return replaced(encode(make_image(1), "JPEG"), b"\xff\xc0", 5, struct.pack(">HH", height, width))


def jpeg_of_scans(count: int) -> bytes:
    """A progressive JPEG of 49 megapixels whose last scan of a hundred bytes is repeated; each one takes 20 ms."""
    image = encode(Image.new("L", (7000, 7000), 128), "JPEG", progressive=True, quality=50)
    scan = image[image.rindex(b"\xff\xc4") : -2]
    return image[:-2] + scan * count + image[-2:]


def jpeg_with(marker: bytes, name: bytes, body: bytes) -> bytes:
    """A JPEG with as many application segments as a body needs, and without the usual JFIF segment."""
    image = encode(make_image(1), "JPEG")
    segments = b""
    for start in range(0, len(body), 65_000):
        piece = name + body[start : start + 65_000]
        segments += marker + struct.pack(">H", len(piece) + 2) + piece
    return image[:2] + segments + image[image.index(b"\xff\xdb") :]


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def crowded_jpeg(*parts: bytes) -> bytes:
    """A JPEG with more parts at its start."""
    image = encode(make_image(1), "JPEG")
    return image[:2] + b"".join(parts) + image[2:]


def crowded_gif(*parts: bytes) -> bytes:
    """A GIF with more parts before its picture."""
    image = encode(Image.new("P", (8, 8)), "GIF")
    at = image.index(b",")
    return image[:at] + b"".join(parts) + image[at:]


def exif_of_tags(count: int) -> bytes:
    """EXIF data in which every tag claims nearly all of the data: each one causes a warning."""
    tags = b"".join(struct.pack("<HHLL", tag + 1, 7, 12 * count, 8) for tag in range(count))
    return b"II*\0" + struct.pack("<LH", 8, count) + tags + bytes(4)


def webp_of_size(width: int, height: int) -> bytes:
    image = encode(Image.new("RGB", (8, 8)), "WEBP", lossless=True)
    return replaced(image, b"VP8L", 9, struct.pack("<I", (width - 1) | (height - 1) << 14))


def webp_in_small_canvas() -> bytes:
    image = encode(Image.new("RGB", (6000, 6000)), "WEBP", lossless=True, method=0)
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (7).to_bytes(3, "little") * 2
    body = b"WEBP" + canvas + image[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def avif_of_size(width: int, height: int, *, true_px: int = 3000) -> bytes:
    """An AVIF of `true_px` by `true_px` pixels with a different size in its header."""
    image = encode(Image.new("L", (true_px, true_px), 128), "AVIF", speed=10, quality=1)
    return replaced(image, b"ispe", 8, struct.pack(">II", width, height))


def bmp_of_runs(width: int) -> bytes:
    """A BMP of one line whose only run skips 255 lines: 255 times its pixels."""
    head = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 8, 1, 4, 0, 0, 1, 1)
    return b"BM" + struct.pack("<IHHI", 62, 0, 0, 58) + head + bytes(4) + b"\x00\x02" + b"\x00\xff" * 2


TOO_LARGE, NO_IMAGE = "image_too_large", "unsupported_image"

CROWDED = {
    "a JPEG with 200,000 pieces of Exif": Bomb(
        lambda: crowded_jpeg(segment(0xE1, b"Exif\0\0" + bytes(10)) * 200_000), NO_IMAGE
    ),
    "a JPEG with 500,000 empty segments": Bomb(lambda: crowded_jpeg(segment(0xE0, b"") * 500_000), NO_IMAGE),
    "a JPEG with 1,000,000 marks of a restart": Bomb(lambda: crowded_jpeg(b"\xff\xd1" * 1_000_000), NO_IMAGE),
    "a JPEG with 4 MB of padding": Bomb(lambda: crowded_jpeg(b"\xff" * 4_000_000), NO_IMAGE),
    "a JPEG with 8 MB of zeros instead of a picture": Bomb(
        lambda: b"\xff\xd8" + segment(0xFE, b"x") + bytes(8_000_000), NO_IMAGE
    ),
    "a JPEG with 2,000,000 components": Bomb(
        lambda: crowded_jpeg(segment(0xC0, b"\x08\0\x08\0\x08\x03" + b"\1\x11\0" * 20_000) * 100), NO_IMAGE
    ),
    "a JPEG with 500,000 resources of Photoshop": Bomb(
        lambda: crowded_jpeg(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\0\1\0\0\0\0\0\0" * 5000) * 100), NO_IMAGE
    ),
    "a GIF with a comment of 2,000,000 blocks": Bomb(
        lambda: crowded_gif(b"!\xfe", b"\2ab" * 2_000_000, b"\0"), NO_IMAGE
    ),
    "a GIF with 1,000,000 comments": Bomb(lambda: crowded_gif(b"!\xfe\2ab\0" * 1_000_000), NO_IMAGE),
    "a GIF with 4 MB between its parts": Bomb(lambda: crowded_gif(b"a" * 4_000_000), NO_IMAGE),
}
"""Images with so many parts before their picture that Pillow takes minutes for them, or many times their size."""

BOMBS = CROWDED | {
    "a PNG of 2,500 megapixels": Bomb(lambda: png(50_000, 50_000, zeros(2**20)), TOO_LARGE),
    "a PNG of 4 billion lines": Bomb(lambda: png(1, 2**31 - 1, zeros(2**20)), TOO_LARGE),
    "a PNG without pixels": Bomb(lambda: png(0, 8, zeros(2**20)), NO_IMAGE),
    "a JPEG of 4,000 megapixels": Bomb(lambda: jpeg_of_size(65_500, 65_500), TOO_LARGE),
    "a GIF of 4,000 megapixels": Bomb(lambda: gif(65_535, 65_535), TOO_LARGE),
    "a GIF with a frame larger than its screen": Bomb(lambda: gif(8, 65_535), TOO_LARGE),
    "a GIF that clears a frame of 4,000 megapixels": Bomb(
        lambda: gif(8, 65_535).replace(b",", b"!\xf9\x04\x08\0\0\0\0,", 1), TOO_LARGE
    ),
    "a WebP of 268 megapixels": Bomb(lambda: webp_of_size(16_383, 16_383), TOO_LARGE),
    "a WebP larger than its canvas": Bomb(webp_in_small_canvas, NO_IMAGE),
    "an AVIF of 4 billion megapixels": Bomb(lambda: avif_of_size(2**26, 2**26), NO_IMAGE),
    "an AVIF of 225 megapixels": Bomb(lambda: avif_of_size(15_000, 15_000), TOO_LARGE),
    "a BMP of 4 billion megapixels": Bomb(
        lambda: replaced(bmp_of_runs(8), b"BM", 18, b"\xff\xff\xff\x7f" * 2), TOO_LARGE
    ),
    "a PNG with a text of 128 MB": Bomb(lambda: small_png(chunk(b"zTXt", b"t\0\0" + zeros(2**27)))),
    "a PNG with a translation of 128 MB": Bomb(lambda: small_png(chunk(b"iTXt", b"t\0\x01\0\0\0" + zeros(2**27)))),
    "a PNG with a hundred texts of 1 MB": Bomb(
        lambda: small_png(*[chunk(b"zTXt", b"%d\0\0" % number + zeros(2**20)) for number in range(100)])
    ),
    "a PNG with a color profile of 128 MB": Bomb(lambda: small_png(chunk(b"iCCP", b"t\0\0" + zeros(2**27)))),
    "a PNG with a text of 128 MB behind its pixels": Bomb(
        lambda: small_png(after=chunk(b"zTXt", b"t\0\0" + zeros(2**27)))
    ),
    "a PNG of 49 megapixels in 50 KB": Bomb(lambda: png(7000, 7000, zeros(50 * 2**20))),
    "a PNG with 128 MB behind 64 pixels": Bomb(lambda: png(8, 8, zeros(2**27))),
    "a WebP of 49 megapixels in 34 bytes": Bomb(
        lambda: encode(Image.new("RGBA", (7000, 7000)), "WEBP", lossless=True, method=0)
    ),
    "an AVIF larger than its header says": Bomb(lambda: avif_of_size(8, 8)),
    # To resize one line of 50 million pixels, the bundled model's processor needs more memory than it may take.
    "a BMP that skips 255 times its size": Bomb(
        lambda: bmp_of_runs(LIMIT_PX), end=("FAILED", "unsupported_dimensions")
    ),
    "a JPEG of 20,000 scans": Bomb(lambda: jpeg_of_scans(20_000), end=("FAILED", "job_timeout")),
    "a JPEG with 60,000 broken tags": Bomb(lambda: jpeg_with(b"\xff\xe1", b"Exif\0\0", exif_of_tags(60_000))),
    "a JPEG with a color profile of 7 MB": Bomb(
        lambda: jpeg_with(b"\xff\xe2", b"ICC_PROFILE\0\x01\x01", bytes(7_000_000))
    ),
    "a GIF of 100,000 frames": Bomb(lambda: gif(8, 8, 100_000)),
}
