"""Images as people have them, through the API and a worker: what is sound gets its label, the rest a true reason."""

import base64
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from support.api_processes import one_api
from support.bombs import chunk, narrow_png, zeros
from support.samples import CHELSEA, encode

PNG_HEAD_BYTES = 33
ORIENTATION, ASCII, SHORT, SIGNED_SHORT = 0x0112, 2, 3, 8
MIRRORED = 2


def photo() -> Image.Image:
    return Image.open(BytesIO(CHELSEA.read_bytes())).convert("RGB")


def jpeg(**options: Any) -> bytes:
    return encode(photo(), "JPEG", quality=90, **options)


def mirrored_jpeg(*odd: tuple[int, int, int, int]) -> bytes:
    """Store the photo mirrored, with an orientation that says so and odd tags: number, type, count, value."""
    tags = sorted([(ORIENTATION, SHORT, 1, MIRRORED), *odd])
    exif = b"II*\0" + struct.pack("<LH", 8, len(tags)) + b"".join(struct.pack("<HHLL", *tag) for tag in tags) + bytes(4)
    return encode(photo().transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG", quality=90, exif=b"Exif\0\0" + exif)


def png_with(*chunks: bytes) -> bytes:
    image = CHELSEA.read_bytes()
    return image[:PNG_HEAD_BYTES] + b"".join(chunks) + image[PNG_HEAD_BYTES:]


SOUND = {
    "ResolutionUnit as text": mirrored_jpeg((0x0128, ASCII, 2, 0x26)),
    "XMP as text": mirrored_jpeg((0x02BC, ASCII, 2, 0x61)),
    "a negative height": mirrored_jpeg((0x0101, SIGNED_SHORT, 1, 0xFFFB)),
    "4.5 MB of texts in a PNG": png_with(*[chunk(b"zTXt", b"%d\0\0" % n + zeros(2**19)) for n in range(9)]),
    "a text of 2 MB in a PNG": png_with(chunk(b"zTXt", b"a\0\0" + zeros(2**21))),
    "a JPEG without its end marker": jpeg()[:-2],
    "a progressive JPEG without its end marker": jpeg(progressive=True)[:-2],
}
LOST_ROWS = "The image is cut short: a part of its picture is missing. Send the whole file."
UNSOUND = {
    "a JPEG without its last rows": (jpeg()[:-3000], LOST_ROWS),
    "a JPEG whose last rows are zeros": (jpeg()[:-3000] + bytes(20_000), LOST_ROWS),
    "half a PNG": (CHELSEA.read_bytes()[:200_000], "The image is damaged or cut short: send the whole file."),
}
DATA_URLS = [
    "data:image/png;name=my%20cat.png;base64,",
    "data:image/png;name=cat(1).png;base64,",
    "data:image/png;name=M%C3%BCnchen.png;base64,",
    'data:image/png;name="cat.png";base64,',
    "data:;base64,",
    "data:;charset=utf-8;base64,",
    "data:image/png; base64,",
]


@pytest.fixture(scope="module")
def client(redis_url: str, worker: int) -> Iterator[httpx.Client]:
    with (
        one_api(redis_url, RATE_LIMIT_MAX_REQUESTS="1000000") as url,
        httpx.Client(base_url=url, headers={"Prefer": "wait=30"}, trust_env=False, timeout=60) as client,
    ):
        yield client


def submit(client: httpx.Client, image: bytes) -> dict[str, Any]:
    """Return the job at its end."""
    answer = client.post("/analyze-image", content=image, headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


@pytest.mark.parametrize("name", SOUND)
def test_sound_picture_gets_its_label(client: httpx.Client, name: str) -> None:
    job = submit(client, SOUND[name])

    assert (job["status"], job["error"]) == ("COMPLETED", None)
    assert job["result"]["label"] == "cat"
    assert job["result"]["confidence"] == pytest.approx(submit(client, jpeg())["result"]["confidence"], abs=0.02)


@pytest.mark.parametrize("name", UNSOUND)
def test_picture_with_a_missing_part_fails_with_the_reason(client: httpx.Client, name: str) -> None:
    image, sentence = UNSOUND[name]

    job = submit(client, image)

    assert (job["status"], job["result"]) == ("FAILED", None)
    assert job["error"] == {"code": "corrupt_image", "detail": sentence}


def test_picture_of_one_column_is_labeled(client: httpx.Client) -> None:
    assert submit(client, narrow_png(1, 2000))["status"] == "COMPLETED"


@pytest.mark.parametrize("prefix", DATA_URLS)
def test_data_url_is_read(client: httpx.Client, prefix: str) -> None:
    answer = client.post(
        "/analyze-image", json={"image_data": prefix + base64.b64encode(CHELSEA.read_bytes()).decode()}
    )

    assert answer.status_code == 200
    assert answer.json()["result"]["label"] == "cat"
