"""The two functions that read bytes of strangers, as a fuzzer calls them: with any bytes, and one kind of error."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from PIL import Image
from starlette.requests import Request
from starlette.types import Message

from image_analysis_api.intake.image import check_image, decode_base64
from image_analysis_api.intake.inference import read_inference
from image_analysis_api.intake.reading import BodyLimits
from image_analysis_api.intake.submissions import Submission, read_batch, read_submission
from image_analysis_common.errors import ServiceError
from image_analysis_common.job_errors import CorruptImage
from image_analysis_worker.decoding.decode import decode_image

MAX_PIXELS = 200_000
MAX_BYTES = 100_000
MAX_IMAGES = 4
PIECE_BYTES = 700
INPUT_PX = 32

TYPES = [
    b"application/json",
    b"multipart/form-data; boundary=b",
    b"image/png",
    b"",
    b"application/octet-stream",
    b"text/plain",
]
QUERIES = [b"", b"top_k=2&min_confidence=0.5", b"webhook_url=http%3A%2F%2Fa.example&priority=high", b"top_k=&top_k=x"]
_loop = asyncio.new_event_loop()


def decode(data: bytes) -> None:
    """Decode an image as the worker does; it has few enough pixels, or is corrupt."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # as in the decoding process
    with suppress(CorruptImage):
        image = decode_image(data, MAX_PIXELS, reduced_px=INPUT_PX)
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= MAX_PIXELS


def submit(data: bytes) -> None:
    """Read a request as the API does. The first two bytes choose the call, the type, the query, and how it arrives."""
    if len(data) < 2:
        return
    choice, body = data[0] | data[1] << 8, data[2:]
    choice, call = divmod(choice, 3)
    choice, kind = divmod(choice, len(TYPES))
    choice, query = divmod(choice, len(QUERIES))
    pieces = [body[start : start + PIECE_BYTES] for start in range(0, len(body), PIECE_BYTES)] if choice % 2 else [body]
    with suppress(ServiceError):
        _loop.run_until_complete(_read(call, TYPES[kind], QUERIES[query], pieces))


async def _read(call: int, kind: bytes, query: bytes, pieces: list[bytes]) -> None:
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0)

    headers = [(b"content-type", kind)]
    scope = {"type": "http", "method": "POST", "query_string": query, "headers": headers, "state": {}}
    request, limits = Request(scope, receive), BodyLimits(MAX_BYTES, timeout_s=60)
    submissions: list[Submission] = []
    match call:
        case 0:
            submissions = [await read_submission(request, limits)]
        case 1:
            submissions = await read_batch(request, limits, MAX_IMAGES)
        case _:
            submissions = [(await read_inference(request, "m", limits))[0]]
    assert 0 < len(submissions) <= MAX_IMAGES
    for submission in submissions:
        given = [submission.image, submission.image_data, submission.image_url]
        assert sum(source is not None for source in given) == 1
        await submission.fingerprint()
        image = submission.image if submission.image_data is None else decode_base64(submission.image_data, MAX_BYTES)
        if image is not None:
            check_image(image, MAX_PIXELS)


DOORS: dict[str, Callable[[bytes], None]] = {"decode": decode, "submissions": submit}
