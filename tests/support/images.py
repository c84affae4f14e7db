"""Images for the chaos suite: valid, large and damaged ones, and ones that make the model misbehave."""

import itertools
import random
from enum import Enum
from functools import cache

from PIL import Image

from support.samples import CHELSEA, encode

LARGE_PX = (4000, 3000)
MARKED_PX = (40, 40)
_serial = itertools.count()


class Marker(Enum):
    """A color that the misbehaving model recognizes, and what the model then does."""

    DIES_IN_DECODE = (255, 0, 255)
    DIES_IN_CLASSIFY = (0, 255, 255)
    HANGS_IN_DECODE = (255, 255, 0)
    HANGS_IN_CLASSIFY = (0, 0, 255)
    IS_SLOW = (0, 255, 0)

    @classmethod
    def of(cls, image: Image.Image) -> "Marker | None":
        """Read the marker of an RGB image of any size."""
        color = image.getpixel((image.width // 2, image.height // 2))
        return next((marker for marker in cls if marker.value == color), None)


def marked(marker: Marker) -> bytes:
    return unique(encode(Image.new("RGB", MARKED_PX, marker.value)))


def unique(image: bytes) -> bytes:
    """Make a file with new bytes that looks the same: decoders ignore bytes after the image's end."""
    return image + b"\0%d" % next(_serial)


@cache
def small_images() -> tuple[bytes, ...]:
    """Pieces of a photo, each with a different answer."""
    photo = Image.open(CHELSEA).convert("RGB")
    chance = random.Random(7)
    pieces = []
    for _ in range(20):
        left, top, side = chance.randrange(0, 300), chance.randrange(0, 150), chance.randrange(60, 150)
        pieces.append(encode(photo.crop((left, top, left + side, top + side)), "JPEG", quality=90))
    return tuple(pieces)


@cache
def large_images() -> tuple[bytes, ...]:
    """Photos of 12 megapixels: decoding one takes longer than the model."""
    photo = Image.open(CHELSEA).convert("RGB")
    turned = (photo, photo.transpose(Image.Transpose.ROTATE_180), photo.crop((0, 0, 200, 150)))
    return tuple(encode(image.resize(LARGE_PX), "JPEG", quality=80) for image in turned)


def damaged_image() -> bytes:
    """A JPEG with a valid header that ends too early."""
    image = large_images()[0]
    return image[: len(image) // 2]
