"""The images on which engines are compared, those of a folder or parts of the package's photos; and a blank one."""

from collections.abc import Iterator
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from image_analysis_common.startup import StartupError

PHOTOS = Path(str(files("image_analysis_worker"))) / "photos"
BUNDLED = 200
MAX_IMAGES = 2000
"""Of a folder with more, so many are used, evenly spread."""
_SHAPES = ((1, 1), (1, 0.75), (0.75, 1))
_SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"}


def draw_blank() -> bytes:
    """Draw an image that every model can classify."""
    image = BytesIO()
    Image.new("RGB", (64, 64)).save(image, "BMP")
    return image.getvalue()


def cut_photos(number: int, *, is_square: bool = True) -> list[bytes]:
    """Cut parts out of the package's photos: a part has 40 to 100 % of the photo's shorter side.

    A network that takes inputs of any sides may have been converted for a square: then two of three parts are none.
    """
    random = np.random.default_rng(0)
    photos = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    parts = []
    for index in range(number):
        photo = photos[index % len(photos)]
        side_px = int(random.uniform(0.4, 1) * min(photo.size))
        size_px = [side_px if is_square else int(side_px * share) for share in _SHAPES[index % len(_SHAPES)]]
        left, top = (int(random.integers(0, side - part + 1)) for side, part in zip(photo.size, size_px, strict=True))
        buffer = BytesIO()
        photo.crop((left, top, left + size_px[0], top + size_px[1])).save(buffer, "PNG", compress_level=1)
        parts.append(buffer.getvalue())
    return parts


def read_images(folder: Path) -> Iterator[bytes]:
    """Find a folder's images, with those of the folders in it; each is read when it is its turn.

    Raises:
        StartupError: there is none; later, if one cannot be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not paths:
        raise StartupError(f"{folder} holds no images.")
    step = -(-len(paths) // MAX_IMAGES)
    return map(_read, paths[::step])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartupError(
            f"{path} cannot be read: {error.strerror}. Take it out of the folder, or allow reading it."
        ) from error
