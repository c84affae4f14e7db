"""Generates images for tests; each one is small and different."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

CHELSEA = Path(__file__).parents[1] / "photos" / "chelsea.png"


def make_image(seed: int = 0, *, size_px: tuple[int, int] = (48, 32), mode: str = "RGB") -> Image.Image:
    """Make a picture of smooth colors; each seed makes a different one."""
    width_px, height_px = size_px
    horizontal = Image.linear_gradient("L").rotate(90).resize(size_px)
    vertical = Image.linear_gradient("L").resize(size_px)
    flat = Image.new("L", size_px, (seed * 37 + width_px + height_px) % 256)
    return Image.merge("RGB", (horizontal, vertical, flat)).rotate(seed % 360).convert(mode)


def encode(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    """Return an image file's bytes."""
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def make_png(seed: int = 0, **options: Any) -> bytes:
    return encode(make_image(seed, **options))


def make_jpeg(seed: int = 0, **options: Any) -> bytes:
    return encode(make_image(seed, **options), "JPEG", quality=90)


def base64_body(image: bytes) -> dict[str, str]:
    """Return the JSON body that submits an image."""
    return {"image_data": base64.b64encode(image).decode()}
