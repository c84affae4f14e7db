"""The bodies that clients send, and the error sentences for malformed ones."""

from enum import StrEnum
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from image_analysis_api.outbound.urls import URL_LENGTH_MAX
from image_analysis_common.errors import RequestError
from image_analysis_common.models import MAX_TOP_K, TOP_K

EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAbElEQVR42hXNQRUAUQhCUaMYhShGeVGIQhSizB+XXA7ODDtouIHB"
    "Q4YOM8suWm5h8ZKl+0CskDiBsIioHhx76LiDw0eO3oN/4FVf+J8h0PduzBqZ8x/bxNQPwgaFy192SGgelC0q13/CJaXlA8Z7WAFX"
    "OTbyAAAAAElFTkSuQmCC"
)
"""An 8 x 8 px PNG in base64, so that the interactive documentation's request works as it stands."""

SOURCES = "image_data (base64) or image_url"
EMPTY_BODY = "The body is empty: send JSON with image_data (base64) or image_url, a form with a file, or an image."
EMPTY_BATCH = (
    "There is no image: send JSON with images, a list of objects, or a form with parts file or fields image_url."
)
EXAMPLE_URL = "https://upload.wikimedia.org/wikipedia/commons/3/3a/Cat03.jpg"
EXAMPLE_WEBHOOK_URL = "https://example.com/hooks/images"


def _read_whole(value: object) -> object:
    # JSON has one kind of number: 3.0 is 3.
    return int(value) if isinstance(value, float) and value.is_integer() else value


WebhookUrl = Annotated[str, Field(min_length=1, max_length=URL_LENGTH_MAX, json_schema_extra={"format": "uri"})]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K), BeforeValidator(_read_whole)]


class Priority(StrEnum):
    """Where in the queue a job is put."""

    NORMAL = "normal"
    HIGH = "high"


class Options(BaseModel):
    """How an image is analyzed; null is the default."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="Which model analyzes the image, by its ID in GET /models; the default model if not set"
    )
    top_k: TopK | None = Field(None, description=f"How many predictions to return; {TOP_K} if not set")
    min_confidence: float | None = Field(None, ge=0, le=1, description="Leave out predictions with less confidence")
    priority: Priority | None = Field(None, description="high puts the job at the front of the queue")
    webhook_url: WebhookUrl | None = Field(
        None, description="The http or https URL to which the service sends the job's signed status when it has ended"
    )


class ImageSource(BaseModel):
    """One image, as bytes or as a URL: exactly one of the two."""

    model_config = ConfigDict(extra="forbid")

    image_data: str | None = Field(
        None, description="The image's bytes in base64, with or without a `data:image/...;base64,` prefix"
    )
    image_url: str | None = Field(None, description="The http or https URL from which the service fetches the image")

    @model_validator(mode="after")
    def check_one_source(self) -> Self:
        if (self.image_data is None) == (self.image_url is None):
            raise PydanticCustomError("one_source", "Send exactly one of image_data and image_url")
        return self


class AnalyzeImageRequest(ImageSource, Options):
    """One image and how it is analyzed."""


class AnalyzeImagesRequest(Options):
    """Several images and how they are analyzed."""

    images: Annotated[list[ImageSource], Field(min_length=1)]


class FormFields(Options):
    """The fields of a form, besides its part `file`."""

    image_url: str | None = Field(None, description="The http or https URL from which the service fetches the image")


FIELD_RULES = {
    "model": "the ID of a model, as GET /models names it",
    "image_data": "a string or null",
    "image_url": "a string or null",
    "images": "a list of one or more objects with image_data (base64) or image_url",
    "top_k": f"a whole number from 1 to {MAX_TOP_K}",
    "min_confidence": "a number from 0 to 1",
    "priority": "normal or high",
    "webhook_url": f"a URL of 1 to {URL_LENGTH_MAX} characters",
}
Body = TypeVar("Body", AnalyzeImageRequest, AnalyzeImagesRequest)

MAX_STRUCTURE = 20_000
"""Commas and opening brackets of a JSON body: 40 MB of empty objects took the parser 14 GB and a minute and a half."""


def parse_json(kind: type[Body], body: bytes) -> Body:
    """Read a JSON body.

    Raises:
        RequestError: it is not JSON, or not of this form; the message never repeats what was sent.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_STRUCTURE:
        raise RequestError(f"The body has more than {MAX_STRUCTURE} values: send images and options only.")
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise RequestError(explain(error, "images" if kind is AnalyzeImagesRequest else SOURCES)) from error


def explain(error: ValidationError, content: str = SOURCES) -> str:
    """Say what is wrong with a request, and how it is right; repeat nothing of it."""
    fault = error.errors(include_input=False, include_url=False)[0]
    subject, path, where = "The body", "", fault["loc"]
    match where:
        case ("images", int(number), *rest):
            subject, path, where, content = f"images[{number}]", f"images[{number}].", tuple(rest), SOURCES
    field = where[0] if where else ""
    match fault["type"]:
        case "json_invalid":
            return f"The body is not valid JSON: send an object with {content}."
        case "extra_forbidden":
            return f"{subject} has an unknown field: send {content}."
        case "one_source":
            return f"{path and subject + ': '}{fault['msg']}."
        case _ if field in FIELD_RULES:
            return f"{path}{field} must be {FIELD_RULES[str(field)]}."
        case _:
            return f"{subject} must be a JSON object with {content}."
