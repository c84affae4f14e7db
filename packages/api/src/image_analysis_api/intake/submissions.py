"""Reading a submission: one image or many, in any accepted form, with the options."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from image_analysis_api.intake.multipart import FORM_OVERHEAD_BYTES, Form, FormReader
from image_analysis_api.intake.offload import run
from image_analysis_api.intake.reading import BodyLimits, read_body
from image_analysis_api.intake.schemas import (
    EMPTY_BATCH,
    EMPTY_BODY,
    AnalyzeImageRequest,
    AnalyzeImagesRequest,
    Body,
    FormFields,
    Options,
    explain,
    parse_json,
)
from image_analysis_common.errors import BatchTooLarge, RequestError, UnsupportedMediaType
from image_analysis_common.images import image_digest

JSON_OVERHEAD_BYTES = 4096
BATCH_KINDS = "JSON (application/json) or a form (multipart/form-data)"
KINDS = "JSON (application/json), a form (multipart/form-data) or an image (image/*, application/octet-stream)"

Fields = TypeVar("Fields", bound=Options)


@dataclass(frozen=True, slots=True)
class Submission:
    """One image, by its bytes, by these in base64 or by its address; exactly one of the three is set."""

    options: Options
    image: bytes | None = None
    image_data: str | None = None
    image_url: str | None = None

    async def fingerprint(self) -> str:
        """Tell this submission from any other; a form's boundary or JSON's spaces make no difference."""
        data = self.image if self.image is not None else (self.image_data or "").encode()
        digest = await run(image_digest, data, size_bytes=len(data))
        options = {name: getattr(self.options, name) for name in Options.model_fields}
        return image_digest(repr((options, self.image is None, digest, self.image_url)).encode())


async def read_submission(request: Request, limits: BodyLimits) -> Submission:
    """Read a body that can hold the largest image, and the options in it or in the query.

    Raises:
        ImageTooLarge: the body is longer; no more of it is read.
        UnsupportedMediaType: it is none of `KINDS`.
        RequestError: whatever else is wrong with it.
    """
    max_bytes, chunks = limits.max_images_bytes, list[bytes]()
    content_type, kind = _content_type(request)
    if kind == "multipart/form-data":
        reader = FormReader(content_type, max_files=1)
        await read_body(request, reader.write, max_bytes + FORM_OVERHEAD_BYTES, limits)
        submission = of_form(reader.close())
    elif is_image(kind):
        await read_body(request, chunks.append, max_bytes, limits)
        submission = Submission(Options(), image=b"".join(chunks))
        if not submission.image:
            raise RequestError(EMPTY_BODY)
    else:
        asked = await _read_json(request, AnalyzeImageRequest, limits, max_images=1, kinds=KINDS, empty=EMPTY_BODY)
        submission = Submission(asked, image_data=asked.image_data, image_url=asked.image_url)
    if request.scope["query_string"]:
        return with_options(submission, read_query(request))
    return submission


async def read_batch(request: Request, limits: BodyLimits, max_images: int) -> list[Submission]:
    """Read a body that can hold the most that a batch may have; the options in it or in the query are for every image.

    Raises:
        ImageTooLarge: the body is longer; no more of it is read.
        BatchTooLarge: there are more than `max_images`.
        UnsupportedMediaType: it is neither JSON nor a form.
        RequestError: whatever else is wrong with it as a whole.
    """
    content_type, kind = _content_type(request)
    if kind == "multipart/form-data":
        reader = FormReader(content_type, max_files=max_images, max_fields=max_images)
        limit_bytes = limits.max_images_bytes + FORM_OVERHEAD_BYTES * (1 + max_images // 16)
        await read_body(request, reader.write, limit_bytes, limits)
        form = reader.close()
        options = parse_fields(Options, [pair for pair in form.fields if pair[0] != "image_url"])
        urls = [text for name, text in form.fields if name == "image_url"]
        images = [Submission(options, image=file) for file in form.files]
        images += [Submission(options, image_url=url) for url in urls]
    else:
        asked = await _read_json(
            request, AnalyzeImagesRequest, limits, max_images=max_images, kinds=BATCH_KINDS, empty=EMPTY_BATCH
        )
        images = [Submission(asked, image_data=image.image_data, image_url=image.image_url) for image in asked.images]
    if not images:
        raise RequestError(EMPTY_BATCH)
    if len(images) > max_images:
        raise BatchTooLarge(limit=max_images, images=len(images))
    if request.scope["query_string"]:
        query = read_query(request)
        images = [with_options(image, query) for image in images]
    return images


def _content_type(request: Request) -> tuple[str, str]:
    """Return the header as it is, and the media type in it."""
    header = request.headers.get("content-type", "")
    return header, header.partition(";")[0].strip().lower()


async def _read_json(
    request: Request, body_type: type[Body], limits: BodyLimits, *, max_images: int, kinds: str, empty: str
) -> Body:
    """Read a body that is none of the other `kinds`, with images in base64; `empty` says what an empty one lacks."""
    chunks = list[bytes]()
    limit_bytes = limits.max_images_bytes * 4 // 3 + JSON_OVERHEAD_BYTES * max_images
    await read_body(request, chunks.append, limit_bytes, limits)
    body = b"".join(chunks)
    if not body:
        raise RequestError(empty)
    if _content_type(request)[1] != "application/json":
        raise UnsupportedMediaType(kinds=kinds)
    return await run(parse_json, body_type, body, size_bytes=len(body))


def is_image(kind: str) -> bool:
    """Whether a media type says that the body is an image; which one it is, its bytes tell."""
    return kind.startswith("image/") or kind == "application/octet-stream"


def of_form(form: Form) -> Submission:
    """Make a submission of a form with one image, its part `file` or its field `image_url`.

    Raises:
        RequestError: it has both or neither, or a field that it must not have.
    """
    fields = parse_fields(FormFields, form.fields)
    if bool(form.files) == (fields.image_url is not None):
        raise RequestError("Send exactly one image in the form: a part file or a field image_url.")
    return Submission(fields, image=form.files[0] if form.files else None, image_url=fields.image_url)


def read_query(request: Request) -> Options:
    """Read the options of the query; other names in it are ignored.

    Raises:
        RequestError: one is given twice or makes no sense.
    """
    named = [pair for pair in request.query_params.multi_items() if pair[0] in Options.model_fields]
    return parse_fields(Options, named)


def parse_fields(kind: type[Fields], pairs: Iterable[tuple[str, str]]) -> Fields:
    """Read what came as text.

    Raises:
        RequestError: a name is given twice or unknown, or its text makes no sense.
    """
    fields: dict[str, str] = {}
    for name, text in pairs:
        if name in fields:
            raise RequestError(
                f"{name if name in kind.model_fields else 'A field'} is given more than once: send it once."
            )
        fields[name] = text
    try:
        return kind.model_validate_strings(fields)
    except ValidationError as error:
        raise RequestError(explain(error)) from error


def with_options(submission: Submission, options: Options) -> Submission:
    """Add the options of the query where the body, which is nearer to the image, leaves them open."""
    own = {name: getattr(submission.options, name) for name in Options.model_fields}
    given = {name: value for name, value in own.items() if value is not None}
    return replace(submission, options=options.model_copy(update=given))
