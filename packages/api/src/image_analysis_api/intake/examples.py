"""Reads the examples of a training from a request: labeled images, in JSON or as the parts of a form."""

from codecs import BOM_UTF8
from dataclasses import dataclass
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from starlette.requests import Request

from image_analysis_api.intake.labels import MAX_LABEL_CHARACTERS, Label
from image_analysis_api.intake.multipart import FORM_OVERHEAD_BYTES, FormReader
from image_analysis_api.intake.offload import run
from image_analysis_api.intake.reading import BodyLimits, read_body
from image_analysis_api.intake.schemas import FIELD_RULES, PLAIN_NAME, Options, WebhookUrl
from image_analysis_api.intake.structure import check_structure
from image_analysis_api.intake.submissions import (
    JSON_OVERHEAD_BYTES,
    JsonOrFormRequired,
    Submission,
    content_type,
    parse_fields,
)
from image_analysis_common.classifiers import EXAMPLES_OF_LABEL, LABELS, NONE_OF_THESE
from image_analysis_common.errors import BatchTooLarge, RequestError
from image_analysis_common.images import image_digest

MAX_EXAMPLES = (LABELS.stop - 1) * (EXAMPLES_OF_LABEL.stop - 1)
SOURCES = ("image", "image_url", "image_hash", "job_id")
LABEL_RULE = f"a text of 1 to {MAX_LABEL_CHARACTERS} characters without control characters, and not `{NONE_OF_THESE}`"
RULES = FIELD_RULES | {
    "label": LABEL_RULE,
    "image": "the image's bytes in base64",
    "image_hash": "the SHA-256 of an image, 64 hex digits",
    "job_id": "a UUID, as POST /analyze-image returned it",
    "examples": f"a list of 1 to {MAX_EXAMPLES} objects with a label and one of {', '.join(SOURCES)}",
}
EMPTY_BODY = "There is no example: send JSON with examples, or a form whose files are named by their labels."


def _check_label(label: str) -> str:
    if label == NONE_OF_THESE:
        raise PydanticCustomError("label", "This label is reserved")
    return label


OwnLabel = Annotated[Label, AfterValidator(_check_label)]
_OWN_LABEL = TypeAdapter[str](OwnLabel)


class ExampleSource(BaseModel):
    """One image of a label: its bytes, a URL, or the name of an image whose embedding the service knows."""

    model_config = ConfigDict(extra="forbid")

    label: OwnLabel
    image: str | None = Field(
        None, description="The image's bytes in base64, with or without a `data:image/...;base64,` prefix"
    )
    image_url: str | None = Field(None, description="The http or https URL from which the service fetches the image")
    image_hash: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = Field(
        None, description="The SHA-256 of an image whose embedding is in the cache"
    )
    job_id: UUID | None = Field(None, description="One of your jobs; it may still wait if it asked for the embedding")

    @model_validator(mode="after")
    def check_one_source(self) -> Self:
        if sum(getattr(self, name) is not None for name in SOURCES) != 1:
            raise PydanticCustomError("one_source", "Send exactly one of " + ", ".join(SOURCES))
        return self


class TrainingOptions(BaseModel):
    """What a training needs besides its examples; null is the default."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="The model whose embeddings are used, by its ID in GET /models; the default model if not set"
    )
    webhook_url: WebhookUrl | None = Field(
        None, description="The http or https URL to which the service sends the job's signed status when it has ended"
    )


class TrainingRequest(TrainingOptions):
    """The examples of a classifier."""

    examples: Annotated[list[ExampleSource], Field(min_length=1, max_length=MAX_EXAMPLES)]


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """An example: with the image, or the name of one that the service knows."""

    label: str
    image: bytes | None = None
    source: ExampleSource | None = None

    @property
    def is_image(self) -> bool:
        """Whether the image itself comes with the request, or by URL."""
        source = self.source
        return source is None or source.image is not None or source.image_url is not None


@dataclass(frozen=True, slots=True)
class Examples:
    """The examples of a request, in their order, and its options."""

    options: TrainingOptions
    images: list[LabeledImage]

    async def fingerprint(self, call: str) -> str:
        """Hash the request, to compare requests; `call` names what it does."""
        parts = [call, repr(self.options)]
        for example in self.images:
            data = example.image if example.image is not None else repr(example.source).encode()
            parts += (example.label, await run(image_digest, data, size_bytes=len(data)))
        return image_digest(repr(parts).encode())


async def read_examples(request: Request, limits: BodyLimits, max_images: int) -> Examples:
    """Read a body with examples; options are in JSON or in the query, and JSON wins.

    Raises:
        ImageTooLarge: the body is longer than the largest batch needs; the rest is not read.
        BatchTooLarge: there are more than `max_images` images, besides those that are only named.
        JsonOrFormRequired: it is neither JSON nor a form.
        RequestError: something else is wrong with the request as a whole.
    """
    header, kind = content_type(request)
    named = [pair for pair in request.query_params.multi_items() if pair[0] in TrainingOptions.model_fields]
    query = parse_fields(TrainingOptions, named)
    if kind == "multipart/form-data":
        reader = FormReader(header, max_files=max_images, is_labeled=True)
        limit_bytes = limits.max_images_bytes + FORM_OVERHEAD_BYTES * (1 + max_images // 16)
        await read_body(request, reader.write, limit_bytes, limits)
        form = reader.close()
        found = [LabeledImage(_read_label(name), image) for name, image in zip(form.names, form.files, strict=True)]
        examples = Examples(query, found)
    else:
        examples = await _read_json(request, query, limits, kind=kind, max_images=max_images)
    if not examples.images:
        raise RequestError(EMPTY_BODY)
    if (count := sum(example.is_image for example in examples.images)) > max_images:
        raise BatchTooLarge(
            f"A training may have {max_images} images, and this one has {count}: send them before, with "
            "`embedding`, and name their jobs."
        )
    return examples


async def _read_json(
    request: Request, query: TrainingOptions, limits: BodyLimits, *, kind: str, max_images: int
) -> Examples:
    chunks = list[bytes]()
    limit_bytes = limits.max_images_bytes * 4 // 3 + JSON_OVERHEAD_BYTES * max_images
    await read_body(request, chunks.append, limit_bytes, limits)
    body = b"".join(chunks)
    if not body:
        raise RequestError(EMPTY_BODY)
    if kind != "application/json":
        raise JsonOrFormRequired
    asked = await run(_parse, body, size_bytes=len(body))
    given = {name: getattr(asked, name) for name in TrainingOptions.model_fields}
    options = query.model_copy(update={name: value for name, value in given.items() if value is not None})
    return Examples(options, [LabeledImage(example.label, source=example) for example in asked.examples])


def _parse(body: bytes) -> TrainingRequest:
    check_structure(body)
    try:
        return TrainingRequest.model_validate_json(body.removeprefix(BOM_UTF8), strict=True)
    except ValidationError as error:
        raise RequestError(_explain(error)) from error


def _explain(error: ValidationError) -> str:
    """Say what is wrong with a request and how to correct it, without repeating any of its values."""
    fault = error.errors(include_input=False, include_url=False)[0]
    where, path, fields = fault["loc"], "", [*TrainingRequest.model_fields]
    match where:
        case ("examples", int(number), *rest):
            where, path, fields = tuple(rest), f"examples[{number}]", [*ExampleSource.model_fields]
    field = str(where[0]) if where else ""
    match fault["type"]:
        case "json_invalid":
            return "The body is not valid JSON: send an object with examples."
        case "extra_forbidden":
            name = f", {field}" if PLAIN_NAME.fullmatch(field) else ""
            return f"{path or 'The body'} has an unknown field{name}: its fields are {', '.join(fields)}."
        case "one_source":
            return f"{path}: {fault['msg']}."
        case _ if field in RULES:
            return f"{path and path + '.'}{field} must be {RULES[field]}."
        case _:
            return f"{path or 'The body'} must be a JSON object with {', '.join(fields)}."


def _read_label(name: str) -> str:
    # Clients write a quotation mark of a part's name so, and none of them writes it otherwise.
    try:
        return _OWN_LABEL.validate_python(name.replace("%22", '"'))
    except ValidationError as error:
        raise RequestError(f"The name of each file is its label: {LABEL_RULE}.") from error


def to_submission(example: LabeledImage) -> Submission:
    """Return an example's image in the form of all others."""
    source = example.source
    return Submission(
        Options(),
        image=example.image,
        image_data=source.image if source else None,
        image_url=source.image_url if source else None,
    )
