"""Files that people often send instead of an image: the error says what they are and what to send."""

import base64

import httpx
import pytest

pytestmark = pytest.mark.anyio

READ = " The service reads JPEG, PNG, WEBP, GIF, AVIF, BMP."
HEIC = "This is a HEIC photo: convert it to JPEG."
TIFF = "This is a TIFF or a camera's raw file: convert it to JPEG or PNG."
VIDEO = "This is a video: send one of its frames as JPEG."
SVG = "This is an SVG drawing: export it as PNG."
WEB_PAGE = "This is a web page: send the image itself, or the URL of the image itself."
PLAIN = "These bytes are not a supported image: send one of JPEG, PNG, WEBP, GIF, AVIF, BMP."
DAMAGED = (
    "The image's header is damaged, cut short, or of a kind that the service does not read: "
    "send the whole file, or save it as PNG or JPEG."
)
FILES = {
    "an iPhone's photo": (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(40), HEIC),
    "a HEIC with the brand of its structure": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(40), HEIC),
    "a burst of photos": (b"\0\0\0\x18ftyphevc\0\0\0\0" + bytes(40), HEIC),
    "a broken AVIF": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif" + bytes(40), DAMAGED),
    "a TIFF, little end first": (b"II*\0\x08\0\0\0" + bytes(40), TIFF),
    "a TIFF, big end first": (b"MM\0*\0\0\0\x08" + bytes(40), TIFF),
    "a PDF": (b"%PDF-1.7\n", "This is a PDF document: send its page as PNG or JPEG."),
    "an MP4": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(40), VIDEO),
    "a MOV": (b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(40), VIDEO),
    "a WebM": (b"\x1aE\xdf\xa3" + bytes(40), VIDEO),
    "an SVG": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', SVG),
    "a web page": (b"\n<!DOCTYPE html><title>Cat</title>", WEB_PAGE),
    "a text": (b"a photo of my cat", PLAIN),
    "a photo's first bytes": (b"\xff\xd8\xff\xe0", DAMAGED),
    "a PNG without its header": (b"\x89PNG\r\n\x1a\n" + bytes(40), DAMAGED),
}


@pytest.mark.parametrize("file", FILES)
async def test_file_that_is_no_image_is_named(client: httpx.AsyncClient, file: str) -> None:
    body, sentence = FILES[file]

    answers = [
        await client.post("/analyze-image", files={"file": ("photo", body)}),
        await client.post("/analyze-image", content=body, headers={"Content-Type": "image/png"}),
        await client.post("/analyze-image", json={"image_data": base64.b64encode(body).decode()}),
    ]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(400, "unsupported_image")}
    expected = sentence if sentence in (PLAIN, DAMAGED) else sentence + READ
    assert {answer.json()["detail"] for answer in answers} == {expected}
