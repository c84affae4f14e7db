"""The size of a JPEG is read as `Image.open` reads it, whatever is in its header."""

import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from image_analysis_api.intake.image import JPEG_SIGNATURE, bound_pillow, read_size
from image_analysis_common.images import FORMATS
from support.bombs import BOMBS, CROWDED, LIMIT_PX
from support.samples import encode, make_image, make_jpeg

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus" / "decode"
SMALL_LIMIT_PX = 1000


@pytest.fixture(autouse=True)
def few_pixels() -> Iterator[None]:
    """Limit the pixels to fewer than some of the images have."""
    with warnings.catch_warnings():
        bound_pillow(SMALL_LIMIT_PX)
        yield


def outcome(body: bytes) -> tuple[int, int] | str:
    try:
        return read_size(body)
    except Image.DecompressionBombError:
        return "bomb"
    except Exception:  # noqa: BLE001 - as `check_image` catches it
        return "mistake"


def outcome_of_open(body: bytes) -> tuple[int, int] | str:
    try:
        with Image.open(BytesIO(body), formats=FORMATS) as image:
            return image.size
    except Image.DecompressionBombError:
        return "bomb"
    except Exception:  # noqa: BLE001
        return "mistake"


def make_mpo() -> bytes:
    return encode(make_image(1), "MPO", save_all=True, append_images=[make_image(2)])


JPEGS = [
    make_jpeg(),
    make_jpeg(size_px=(20, 30), mode="L"),
    encode(make_image(1, size_px=(25, 40)), "JPEG", progressive=True, comment="x" * 100, dpi=(72, 72)),
    encode(make_image(size_px=(20, 30), mode="CMYK"), "JPEG"),
    encode(make_image(size_px=(25, 41)), "JPEG"),  # one row over the limit
    make_mpo(),
    make_mpo()[:300],
]


def is_jpeg(body: bytes) -> bool:
    return body.startswith(JPEG_SIGNATURE)


def test_size_is_that_of_open_for_images_of_every_kind() -> None:
    bombs = [bomb.make() for name, bomb in BOMBS.items() if name not in CROWDED]  # these take `Image.open` minutes
    files = [path.read_bytes() for path in CORPUS.iterdir()] + bombs
    jpegs = [body for body in (*files, *JPEGS) if is_jpeg(body)]

    outcomes = [outcome(body) for body in jpegs]

    assert outcomes == [outcome_of_open(body) for body in jpegs]
    assert {"bomb", "mistake", (20, 30), (25, 40)} <= set(outcomes)


@given(st.sampled_from(JPEGS), st.lists(st.tuples(st.integers(3, 700), st.binary(min_size=1, max_size=4)), max_size=6))
def test_size_is_that_of_open_for_any_change_of_a_header(jpeg: bytes, changes: list[tuple[int, bytes]]) -> None:
    body = bytearray(jpeg)
    for at, piece in changes:
        body[at : at + len(piece)] = piece

    assert outcome(bytes(body)) == outcome_of_open(bytes(body))


@given(st.binary(max_size=60))
def test_size_is_that_of_open_for_any_bytes_after_the_signature(rest: bytes) -> None:
    assert outcome(JPEG_SIGNATURE + rest) == outcome_of_open(JPEG_SIGNATURE + rest)


def test_limit_is_the_same_for_large_images() -> None:
    bound_pillow(LIMIT_PX)
    body = bytearray(make_jpeg())
    at = body.index(b"\xff\xc0") + 5
    for size_px in ((7071, 7071), (7072, 7072), (65535, 65535), (0, 5)):
        body[at : at + 4] = size_px[1].to_bytes(2, "big") + size_px[0].to_bytes(2, "big")

        assert outcome(bytes(body)) == outcome_of_open(bytes(body))
