"""From bytes to pixels: what is an image, what is none, and which way is up."""

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat

from image_analysis_common.job_errors import CorruptImage
from image_analysis_worker.decoding.decode import decode_image
from support.bombs import chunk
from support.samples import CHELSEA, encode, make_image, make_jpeg, make_png

LIMIT_PX = 1_000_000
ORIENTATION_TAG = 0x0112
UNDO = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP"])
def test_every_format_is_decoded_to_rgb(image_format: str) -> None:
    decoded = decode_image(encode(make_image(1), image_format), LIMIT_PX, input_px=32)

    assert (decoded.mode, decoded.size) == ("RGB", (48, 32))


@pytest.mark.parametrize("orientation", UNDO)
def test_picture_is_upright_whatever_its_orientation(orientation: int) -> None:
    upright = make_image(1)
    undo = UNDO[orientation]
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    stored = encode(upright.transpose(undo) if undo is not None else upright, "PNG", exif=exif)

    assert decode_image(stored, LIMIT_PX, input_px=32).tobytes() == upright.tobytes()


def sixteen_bits(image: Image.Image) -> bytes:
    """Write a gray picture as a PNG of 16 bits."""
    width, height = image.size
    rows = [image.crop((0, y, width, y + 1)).tobytes() for y in range(height)]
    pixels = b"".join(b"\0" + b"".join(bytes([value, value]) for value in row) for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


TWINS = {
    "16-bit gray PNG": (sixteen_bits(make_image(1, mode="L")), make_image(1, mode="L")),
    "gray JPEG": (make_jpeg(1, mode="L"), make_image(1, mode="L")),
    "CMYK JPEG": (make_jpeg(1, mode="CMYK"), make_image(1)),
    "palette PNG": (make_png(1, mode="P"), make_image(1, mode="P")),
    "palette GIF": (encode(make_image(1, mode="P"), "GIF"), make_image(1, mode="P")),
    "PNG with alpha": (make_png(1, mode="RGBA"), make_image(1)),
    "WebP with alpha": (encode(make_image(1, mode="RGBA"), "WEBP", lossless=True), make_image(1)),
    "gray PNG with alpha": (make_png(1, mode="LA"), make_image(1, mode="L")),
    "black and white BMP": (encode(make_image(1, mode="1"), "BMP"), make_image(1, mode="1")),
}


@pytest.mark.parametrize("name", TWINS)
def test_picture_is_that_of_its_plain_twin(name: str) -> None:
    image, plain = TWINS[name]

    difference = ImageChops.difference(decode_image(image, LIMIT_PX, input_px=32), plain.convert("RGB"))

    assert max(ImageStat.Stat(difference).mean) < 1.5


def test_first_frame_of_an_animation_counts() -> None:
    first, second = make_image(1, mode="P"), make_image(2, mode="P")

    decoded = decode_image(encode(first, "GIF", save_all=True, append_images=[second]), LIMIT_PX, input_px=32)

    assert decoded.tobytes() == first.convert("RGB").tobytes()


def test_truncated_jpeg_is_corrupt() -> None:
    image = make_jpeg(size_px=(200, 200))

    with pytest.raises(CorruptImage, match="damaged or cut short"):
        decode_image(image[: len(image) // 2], LIMIT_PX, input_px=32)


def test_pixels_over_the_limit_are_never_decoded() -> None:
    with pytest.raises(CorruptImage, match="more than 1535 pixels"):
        decode_image(make_png(), 48 * 32 - 1, input_px=32)


def test_far_larger_jpeg_is_decoded_at_a_fraction_of_its_size() -> None:
    large = decode_image(make_jpeg(size_px=(1024, 768)), LIMIT_PX, input_px=32)
    just_large_enough = decode_image(make_jpeg(size_px=(127, 127)), LIMIT_PX, input_px=32)

    assert (large.size, just_large_enough.size) == ((128, 96), (127, 127))


def test_reduced_decoding_shows_the_model_the_same_picture() -> None:
    with Image.open(CHELSEA) as photo:
        body = encode(photo.convert("RGB").resize((2400, 1600), Image.Resampling.LANCZOS), "JPEG", quality=92)

    reduced = decode_image(body, 4 * LIMIT_PX, input_px=224)
    in_full = decode_image(body, 4 * LIMIT_PX, input_px=2400)

    seen = [image.resize((224, 224), Image.Resampling.BILINEAR) for image in (reduced, in_full)]
    apart = ImageStat.Stat(ImageChops.difference(*seen))
    assert (reduced.size, in_full.size) == ((1200, 800), (2400, 1600))
    assert max(apart.mean) < 0.7
    assert max(high for _, high in apart.extrema) <= 8


SEEDS = [encode(make_image(1), form) for form in ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP")] + [CHELSEA.read_bytes()]


@settings(max_examples=300, deadline=None)
@given(
    image=st.sampled_from(SEEDS),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    end=st.floats(0, 1),
)
def test_damaged_images_are_decoded_or_corrupt_and_nothing_else(
    image: bytes, flips: list[tuple[float, int]], end: float
) -> None:
    damaged = bytearray(image)
    for position, value in flips:
        damaged[int(position * len(damaged))] = value

    try:
        decoded = decode_image(bytes(damaged[: int(end * len(damaged)) + 1]), LIMIT_PX, input_px=32)
    except CorruptImage:
        return
    assert decoded.mode == "RGB"
