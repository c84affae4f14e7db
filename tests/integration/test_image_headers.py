"""The API refuses image bombs, or accepts them without decoding them."""

import struct
import time
import tracemalloc

import pytest

from image_analysis_api.intake.image import bound_pillow, check_image
from image_analysis_common.errors import RequestError
from support.bombs import BOMBS, LIMIT_PX, crowded_gif, crowded_jpeg, segment
from support.samples import encode, make_image

COST_BYTES = 16_000_000
COST_S = 1
"""CPU time, because the machine may be busy with other programs."""


REAL = {
    "a color profile of 13 MB": lambda: crowded_jpeg(
        *(segment(0xE2, b"ICC_PROFILE\0" + bytes((number, 200)) + bytes(65_000)) for number in range(1, 201))
    ),
    "extended XMP of 13 MB": lambda: crowded_jpeg(
        segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)) * 200
    ),
    "Photoshop's metadata of 1 MB": lambda: crowded_jpeg(
        segment(0xED, b"Photoshop 3.0\0" + (b"8BIM\4\4\0\0" + struct.pack(">I", 1000) + bytes(1000)) * 64) * 16
    ),
    "a hundred comments and some padding": lambda: crowded_jpeg(segment(0xFE, b"comment") * 100, b"\xff" * 4096),
    "further pictures": lambda: encode(make_image(1), "MPO", save_all=True, append_images=[make_image(2)]),
    "a GIF's hundred comments": lambda: crowded_gif(b"!\xfe\7comment\0" * 100),
    "a GIF's comment of 1 MB": lambda: crowded_gif(b"!\xfe", (b"\xff" + b"c" * 255) * 4000, b"\0"),
    "a GIF's XMP of 1 MB": lambda: crowded_gif(
        b"!\xff\x0bXMP DataXMP", b"<x:xmpmeta a='b'/>\n" * 50_000, b"\1", bytes(range(255, -1, -1)), b"\0"
    ),
}


def examine(image: bytes) -> str | None:
    try:
        check_image(image, LIMIT_PX)
    except RequestError as error:
        return error.code
    return None


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_costs_the_api_nothing(name: str, recwarn: pytest.WarningsRecorder) -> None:
    bound_pillow(LIMIT_PX)
    image = BOMBS[name].make()

    started_s = time.process_time()
    refusal = examine(image)
    took_s = time.process_time() - started_s
    tracemalloc.start()
    examine(image)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert refusal == BOMBS[name].refusal
    assert took_s < COST_S
    assert peak_bytes < len(image) * 3 + COST_BYTES
    assert not recwarn.list


@pytest.mark.parametrize("name", REAL)
def test_much_metadata_is_no_bomb(name: str) -> None:
    bound_pillow(LIMIT_PX)

    assert examine(REAL[name]()) is None
