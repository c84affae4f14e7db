"""From bytes to pixels: valid and damaged images, and their orientation."""

import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat

from image_analysis_common.job_errors import CorruptImage
from image_analysis_worker.decoding.decode import decode_image
from support.bombs import chunk, jpeg_with, png, zeros
from support.samples import CHELSEA, encode, make_image, make_jpeg, make_png

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as in the decoding process

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
    decoded = decode_image(encode(make_image(1), image_format), LIMIT_PX, reduced_px=32)

    assert (decoded.mode, decoded.size) == ("RGB", (48, 32))


@pytest.mark.parametrize("orientation", UNDO)
def test_picture_is_upright_whatever_its_orientation(orientation: int) -> None:
    upright = make_image(1)
    undo = UNDO[orientation]
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    stored = encode(upright.transpose(undo) if undo is not None else upright, "PNG", exif=exif)

    assert decode_image(stored, LIMIT_PX, reduced_px=32).tobytes() == upright.tobytes()


def tiff(*tags: tuple[int, int, int, int]) -> bytes:
    """Write EXIF data from tags: number, type, count, value."""
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + b"".join(struct.pack("<HHLL", *tag) for tag in tags) + bytes(4)


ASCII, SHORT, SIGNED_SHORT = 2, 3, 8
TURNED = (ORIENTATION_TAG, SHORT, 1, 2)
ODD_EXIF = {
    "XResolution as text": tiff(TURNED, (0x011A, ASCII, 2, 0x61)),
    "ResolutionUnit as text": tiff(TURNED, (0x0128, ASCII, 2, 0x26)),
    "XMP as text": tiff(TURNED, (0x02BC, ASCII, 2, 0x61)),
    "StripOffsets as text": tiff((0x0111, ASCII, 2, 0x61), TURNED),
    "a negative height": tiff((0x0101, SIGNED_SHORT, 1, 0xFFFB), TURNED),
    "an unknown type": tiff((0x010E, 99, 1, 0), TURNED),
    "a value outside of the data": tiff((0x010E, ASCII, 900, 900), TURNED),
    "an end inside of its tags": tiff(TURNED, (0x0131, ASCII, 2, 0x61))[:-10],
}


@pytest.mark.parametrize("name", ODD_EXIF)
def test_only_the_orientation_of_exif_matters(name: str) -> None:
    plain, odd = (jpeg_with(b"\xff\xe1", b"Exif\0\0", exif) for exif in (tiff(), ODD_EXIF[name]))

    mirrored = decode_image(plain, LIMIT_PX, reduced_px=32).transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    assert decode_image(odd, LIMIT_PX, reduced_px=32).tobytes() == mirrored.tobytes()


UNREADABLE_EXIF = {
    "nothing": b"",
    "no TIFF": b"odd bytes, not EXIF",
    "an offset outside of the data": b"II*\0\xff\xff\xff\xff",
    "an orientation of 0": tiff((ORIENTATION_TAG, SHORT, 1, 0)),
    "an orientation of 9": tiff((ORIENTATION_TAG, SHORT, 1, 9)),
    "an orientation as text": tiff((ORIENTATION_TAG, ASCII, 2, 0x32)),
}


@pytest.mark.parametrize("name", UNREADABLE_EXIF)
def test_picture_whose_exif_cannot_be_read_is_upright(name: str) -> None:
    files = [jpeg_with(b"\xff\xe1", b"Exif\0\0", exif) for exif in (tiff(), UNREADABLE_EXIF[name])]

    plain, odd = (decode_image(file, LIMIT_PX, reduced_px=32) for file in files)

    assert odd.tobytes() == plain.tobytes()


EXIF_CHUNK = chunk(b"eXIf", tiff(TURNED))
ODD_CHUNKS = {
    "70 texts of 1 MB each": [chunk(b"zTXt", b"%d\0\0" % number + zeros(2**20)) for number in range(70)],
    "a text of 2 MB": [chunk(b"zTXt", b"a\0\0" + zeros(2**21))],
    "XMP of 2 MB": [chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + zeros(2**21))],
    "a color profile of 2 MB": [chunk(b"iCCP", b"a\0\0" + zeros(2**21))],
    "a text with a wrong checksum": [chunk(b"tEXt", b"a\0b")[:-4] + b"\0\0\0\0"],
    "a resolution of 1 byte": [chunk(b"pHYs", b"\0")],
}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("name", ODD_CHUNKS)
def test_what_is_written_around_the_pixels_of_a_png_does_not_matter(name: str, before: bool) -> None:
    odd, pixels = ODD_CHUNKS[name], zlib.compress(bytes([0, *range(0, 160, 20)] * 8))
    image = png(8, 8, pixels, EXIF_CHUNK, *odd) if before else png(8, 8, pixels, EXIF_CHUNK, after=b"".join(odd))

    decoded, plain, mirrored = (
        decode_image(image, LIMIT_PX, reduced_px=32)
        for image in (image, png(8, 8, pixels), png(8, 8, pixels, EXIF_CHUNK))
    )

    assert decoded.tobytes() == mirrored.tobytes()
    assert decoded.tobytes() != plain.tobytes()


def sixteen_bits(image: Image.Image) -> bytes:
    """Write a gray image as a PNG of 16 bits."""
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

    difference = ImageChops.difference(decode_image(image, LIMIT_PX, reduced_px=32), plain.convert("RGB"))

    assert max(ImageStat.Stat(difference).mean) < 1.5


def test_first_frame_of_an_animation_counts() -> None:
    first, second = make_image(1, mode="P"), make_image(2, mode="P")

    decoded = decode_image(encode(first, "GIF", save_all=True, append_images=[second]), LIMIT_PX, reduced_px=32)

    assert decoded.tobytes() == first.convert("RGB").tobytes()


KINDS_OF_JPEG: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "gray": {"mode": "L"},
    "with restart markers": {"restart_marker_rows": 1},
    "at a fraction of its size": {"size_px": (640, 480)},
}
EOI = b"\xff\xd9"


def make_kind(kind: str, seed: int = 1) -> bytes:
    options = {"size_px": (200, 150), "mode": "RGB"} | KINDS_OF_JPEG[kind]
    return encode(make_image(seed, size_px=options.pop("size_px"), mode=options.pop("mode")), "JPEG", **options)


@pytest.mark.parametrize("tail", [b"", b"\xff", b"\xff\xff", bytes(1), bytes(5000)])
@pytest.mark.parametrize("kind", KINDS_OF_JPEG)
def test_jpeg_without_its_end_marker_is_complete(kind: str, tail: bytes) -> None:
    image = make_kind(kind)

    decoded = decode_image(image.removesuffix(EOI) + tail, LIMIT_PX, reduced_px=32)

    assert decoded.tobytes() == decode_image(image, LIMIT_PX, reduced_px=32).tobytes()


@pytest.mark.parametrize("tail", [b"", bytes(1), bytes(100_000)])
@pytest.mark.parametrize("lost", [5, 100, 0.1, 0.5])
@pytest.mark.parametrize("kind", KINDS_OF_JPEG)
def test_jpeg_without_its_last_rows_is_cut_short(kind: str, lost: float, tail: bytes) -> None:
    image = make_kind(kind)
    kept = len(image) - 2 - int(lost if lost > 1 else lost * len(image))

    with pytest.raises(CorruptImage, match="cut short: a part of its picture is missing"):
        decode_image(image[:kept] + tail, LIMIT_PX, reduced_px=None)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP"])
def test_half_an_image_is_corrupt(image_format: str) -> None:
    image = encode(make_image(1, size_px=(200, 200)), image_format)

    with pytest.raises(CorruptImage, match="cut short"):
        decode_image(image[: len(image) // 2], LIMIT_PX, reduced_px=32)


def test_pixels_over_the_limit_are_never_decoded() -> None:
    with pytest.raises(CorruptImage, match="more than 1535 pixels"):
        decode_image(make_png(), 48 * 32 - 1, reduced_px=32)


def test_far_larger_jpeg_is_decoded_at_a_fraction_of_its_size() -> None:
    large = decode_image(make_jpeg(size_px=(1024, 768)), LIMIT_PX, reduced_px=32)
    just_large_enough = decode_image(make_jpeg(size_px=(127, 127)), LIMIT_PX, reduced_px=32)

    assert (large.size, just_large_enough.size) == ((128, 96), (127, 127))


def test_reduced_decoding_shows_the_model_the_same_picture() -> None:
    with Image.open(CHELSEA) as photo:
        body = encode(photo.convert("RGB").resize((2400, 1600), Image.Resampling.LANCZOS), "JPEG", quality=92)

    reduced = decode_image(body, 4 * LIMIT_PX, reduced_px=224)
    in_full = decode_image(body, 4 * LIMIT_PX, reduced_px=None)

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
        decoded = decode_image(bytes(damaged[: int(end * len(damaged)) + 1]), LIMIT_PX, reduced_px=32)
    except CorruptImage:
        return
    assert decoded.mode == "RGB"
