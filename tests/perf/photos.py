"""The photos for every contender: small and large JPEGs made from one photo, no two files equal."""

import base64
from collections.abc import Iterator
from io import BytesIO
from itertools import count, cycle, islice

import numpy as np
from PIL import Image

from perf.programs import ROOT

ORIGINAL = ROOT / "tests" / "photos" / "chelsea.png"

TINY_PX = (8, 8)
SMALL_PX = (224, 224)
LARGE_PX = (4000, 3000)
NOISE = 5.0
"""Standard deviation of the sensor's noise (0 to 255): with it, a 12-megapixel file has 2.9 MB, like a camera's."""

DISTINCT = 8
"""Number of photos of a size. Each is used several times with different comments, so with different digests."""

COMMENT_BYTES = 18
"""Together with the start marker and the segment's head 24, a multiple of 3: base64 of the two parts can be joined."""

BODY_START, BODY_END = b'{"image_data": "', b'"}'


class Photos:
    """An endless stream of JPEGs of one size, all with different bytes."""

    def __init__(self, name: str, size_px: tuple[int, int]) -> None:
        self.name = name
        self._files = [_make_photo(seed, size_px) for seed in range(DISTINCT)]
        self._serial = count()

    def take(self, number: int) -> list[bytes]:
        """Return the next files."""
        return [_comment(next(self._serial)) + photo[2:] for photo in islice(cycle(self._files), number)]

    def bodies(self) -> Iterator[bytes]:
        """Return the JSON bodies that submit the next files, joined from parts that were encoded before."""
        ends = [base64.b64encode(photo[2:]) + BODY_END for photo in self._files]
        for end in cycle(ends):
            yield b"%b%b%b" % (BODY_START, base64.b64encode(_comment(next(self._serial))), end)


def to_body(photo: bytes) -> bytes:
    """Write the JSON body that submits a photo."""
    return BODY_START + base64.b64encode(photo) + BODY_END


def _comment(serial: int) -> bytes:
    """Make the start of a JPEG: the start marker and a comment segment, which differs between files of one photo."""
    return b"\xff\xd8\xff\xfe" + (COMMENT_BYTES + 2).to_bytes(2, "big") + b"%0*d" % (COMMENT_BYTES, serial)


def _make_photo(seed: int, size_px: tuple[int, int]) -> bytes:
    """Cut a piece out of the original, enlarge it and add a sensor's noise."""
    random = np.random.default_rng(seed)
    with Image.open(ORIGINAL) as original:
        height_px = int(random.integers(200, 300))
        width_px = height_px * size_px[0] // size_px[1]
        left = int(random.integers(0, original.width - width_px + 1))
        top = int(random.integers(0, original.height - height_px + 1))
        piece = original.convert("RGB").crop((left, top, left + width_px, top + height_px))
    enlarged = np.asarray(piece.resize(size_px, Image.Resampling.BICUBIC), dtype=np.int16)
    noise = random.normal(0, NOISE, enlarged.shape[:2]).astype(np.int16)[..., None]
    buffer = BytesIO()
    Image.fromarray((enlarged + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
