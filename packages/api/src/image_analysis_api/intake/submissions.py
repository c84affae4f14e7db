"""Reads submissions from requests: one image or many, as JSON, a form or raw bytes, with their options."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from image_analysis_api.intake.labels import LISTS, split_labels
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
"""Bytes allowed for everything in JSON except the images and labels, for each image."""

JSON_LABELS_BYTES = 32 * 1024
"""Bytes allowed for the labels in JSON, which may write a character of 2 bytes as an escape of 6."""

NEWER = ("labels", "hypothesis_template", "embedding", "classifier")
"""The options that the release before did not have."""

BINARY_TYPES = {
    "application/octet-stream",
    "application/binary",
    "application/x-binary",
    "application/x-octet-stream",
    "binary/octet-stream",
}
"""What clients call bytes of a kind that they do not know."""

IMAGE_SIGNATURE = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|BM|RIFF....WEBP|....ftyp.{0,28}avi", re.DOTALL)
"""How the formats in `FORMATS` start."""

Fields = TypeVar("Fields", bound=BaseModel)


class JsonOrFormRequired(UnsupportedMediaType):
    """The body is neither JSON nor a form, where the call reads nothing else."""

    sentence = "Set the Content-Type to application/json or multipart/form-data."


@dataclass(frozen=True, slots=True)
class Submission:
    """One image: as bytes, in base64 or by URL. Exactly one of the three is set."""

    options: Options
    image: bytes | None = None
    image_data: str | None = None
    image_url: str | None = None

    async def fingerprint(self) -> str:
        """Hash the image and its options, to compare requests. A form's boundary or spaces in JSON do not matter."""
        data = self.image if self.image is not None else (self.image_data or "").encode()
        digest = await run(image_digest, data, size_bytes=len(data))
        options = {name: getattr(self.options, name) for name in Options.model_fields if name not in NEWER}
        # Without the newer options, the same as in a process of the release before.
        asked: list[object] = [question] if (question := self.options.question) else []
        asked += ["embedding"] if self.options.embedding else []
        asked += [self.options.classifier] if self.options.classifier else []
        return image_digest(repr((options, self.image is None, digest, self.image_url, *asked)).encode())


async def read_submission(request: Request, limits: BodyLimits) -> Submission:
    """Read a body with one image, and the options from the body or the query.

    Raises:
        ImageTooLarge: the body is longer than the largest image needs; the rest is not read.
        UnsupportedMediaType: its media type is neither JSON nor a form nor an image; or there is none, and the body is
            no image.
        RequestError: something else is wrong with the request.
    """
    max_bytes, chunks = limits.max_images_bytes, list[bytes]()
    header, kind = content_type(request)
    if kind == "multipart/form-data":
        reader = FormReader(header, max_files=1)
        await read_body(request, reader.write, max_bytes + FORM_OVERHEAD_BYTES, limits)
        submission = of_form(reader.close())
    elif not kind or is_image(kind):
        await read_body(request, chunks.append, max_bytes, limits)
        image = b"".join(chunks)
        if not image:
            raise RequestError(EMPTY_BODY)
        if not kind and not IMAGE_SIGNATURE.match(image):
            raise UnsupportedMediaType
        submission = Submission(Options(), image=image)
    else:
        asked = await read_json(request, AnalyzeImageRequest, limits, kind=kind, max_images=1, empty=EMPTY_BODY)
        submission = Submission(asked, image_data=asked.image_data, image_url=asked.image_url)
    if request.scope["query_string"]:
        submission = with_options(submission, read_query(request))
    check_question(submission.options)
    return submission


async def read_batch(request: Request, limits: BodyLimits, max_images: int) -> list[Submission]:
    """Read a body with many images; the options in the body or the query apply to all of them.

    Raises:
        ImageTooLarge: the body is longer than the largest batch needs; the rest is not read.
        BatchTooLarge: there are more than `max_images`.
        JsonOrFormRequired: it is neither JSON nor a form.
        RequestError: something else is wrong with the request as a whole.
    """
    header, kind = content_type(request)
    if kind == "multipart/form-data":
        reader = FormReader(header, max_files=max_images, max_fields=max_images)
        limit_bytes = limits.max_images_bytes + FORM_OVERHEAD_BYTES * (1 + max_images // 16)
        await read_body(request, reader.write, limit_bytes, limits)
        form = reader.close()
        options = parse_fields(Options, [pair for pair in form.fields if pair[0] != "image_url"])
        urls = [text for name, text in form.fields if name == "image_url" and text]
        images = [Submission(options, image=file) for file in form.files]
        images += [Submission(options, image_url=url) for url in urls]
    else:
        asked = await read_json(
            request, AnalyzeImagesRequest, limits, kind=kind, max_images=max_images, empty=EMPTY_BATCH
        )
        images = [Submission(asked, image_data=image.image_data, image_url=image.image_url) for image in asked.images]
    if not images:
        raise RequestError(EMPTY_BATCH)
    if len(images) > max_images:
        raise BatchTooLarge(limit=max_images, images=len(images))
    if request.scope["query_string"]:
        query = read_query(request)
        images = [with_options(image, query) for image in images]
    check_question(images[0].options)
    return images


def content_type(request: Request) -> tuple[str, str]:
    """Return the Content-Type header, and the media type in it."""
    header = request.headers.get("content-type", "")
    return header, header.partition(";")[0].strip().lower()


async def read_json(
    request: Request, body_type: type[Body], limits: BodyLimits, *, kind: str, max_images: int, empty: str
) -> Body:
    """Read a body of the media type `kind`, which must be JSON; `empty` is the error message for an empty body."""
    chunks = list[bytes]()
    limit_bytes = limits.max_images_bytes * 4 // 3 + JSON_OVERHEAD_BYTES * max_images + JSON_LABELS_BYTES
    await read_body(request, chunks.append, limit_bytes, limits)
    body = b"".join(chunks)
    if not body:
        raise RequestError(empty)
    if kind != "application/json":
        raise JsonOrFormRequired if body_type is AnalyzeImagesRequest else UnsupportedMediaType
    return await run(parse_json, body_type, body, size_bytes=len(body))


def is_image(kind: str) -> bool:
    """Whether a media type means that the body is an image; its format is read from its bytes."""
    return kind.startswith("image/") or kind in BINARY_TYPES


def of_form(form: Form) -> Submission:
    """Read a form with one image, as a part `file` or a field `image_url`.

    Raises:
        RequestError: it has both or neither, or an unknown field.
    """
    fields = parse_fields(FormFields, form.fields)
    files = [file for file in form.files if file or fields.image_url is None]
    if bool(files) == (fields.image_url is not None):
        raise RequestError("Send exactly one image in the form: a part file or a field image_url.")
    return Submission(fields, image=files[0] if files else None, image_url=fields.image_url)


def read_query(request: Request) -> Options:
    """Read the options of the query; other names in it are ignored.

    Raises:
        RequestError: an option is given twice or is invalid.
    """
    named = [pair for pair in request.query_params.multi_items() if pair[0] in Options.model_fields]
    return parse_fields(Options, named)


def parse_fields(kind: type[Fields], pairs: Iterable[tuple[str, str]]) -> Fields:
    """Read options or fields that were sent as text. An empty one is not set: a browser's form sends every input.

    Raises:
        RequestError: a name that is no list is given twice, a name is unknown, or a value is invalid.
    """
    fields: dict[str, str | list[str]] = {}
    lists: dict[str, list[str]] = {}
    for name, text in pairs:
        if name in LISTS and name in kind.model_fields:
            lists.setdefault(name, []).append(text)
            continue
        if not text and name in kind.model_fields:
            continue
        if name in fields:
            raise RequestError(
                f"{name if name in kind.model_fields else 'A field'} is given more than once: send it once."
            )
        fields[name] = text
    fields |= {name: labels for name, texts in lists.items() if (labels := split_labels(texts))}
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise RequestError(explain(error, kind, "The form")) from error


def with_options(submission: Submission, options: Options) -> Submission:
    """Add the options of the query that the body does not set."""
    own = {name: getattr(submission.options, name) for name in Options.model_fields}
    given = {name: value for name, value in own.items() if value is not None}
    return replace(submission, options=options.model_copy(update=given))


def check_question(options: Options) -> None:
    """Check the options together, wherever each of them came from.

    Raises:
        RequestError: there is a template without labels, or there are labels and a classifier.
    """
    if options.classifier is not None and options.labels is not None:
        raise RequestError("A classifier has labels of its own: send either labels or classifier.")
    if options.hypothesis_template is not None and options.labels is None:
        raise RequestError("hypothesis_template needs labels: send both, or leave it out.")
