"""The schemas of request bodies, and the error messages for malformed ones."""

import re
from codecs import BOM_UTF8
from enum import StrEnum
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from image_analysis_api.intake.labels import LABELS_RULE, TEMPLATE_RULE, Labels, Template
from image_analysis_api.intake.structure import check_structure
from image_analysis_api.outbound.urls import URL_LENGTH_MAX
from image_analysis_common.classifiers import NAME_PATTERN
from image_analysis_common.errors import RequestError
from image_analysis_common.models import DEFAULT_TEMPLATE, MAX_TOP_K, TOP_K, Question

EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAbElEQVR42hXNQRUAUQhCUaMYhShGeVGIQhSizB+XXA7ODDtouIHB"
    "Q4YOM8suWm5h8ZKl+0CskDiBsIioHhx76LiDw0eO3oN/4FVf+J8h0PduzBqZ8x/bxNQPwgaFy192SGgelC0q13/CJaXlA8Z7WAFX"
    "OTbyAAAAAElFTkSuQmCC"
)
"""An 8 x 8 px PNG in base64: with it, the example in the interactive documentation is a valid request."""

SOURCES = "image_data (base64) or image_url"
EMPTY_BODY = "The body is empty: send JSON with image_data (base64) or image_url, a form with a file, or an image."
EMPTY_BATCH = (
    "There is no image: send JSON with images, a list of objects, or a form with parts file or fields image_url."
)
EXAMPLE_URL = "https://upload.wikimedia.org/wikipedia/commons/3/3a/Cat03.jpg"
TEMPLATE_DESCRIPTION = (
    "For a zero-shot model: the sentence that it reads with each label in the place of {}. "
    f"Default: {DEFAULT_TEMPLATE}"
)
EXAMPLE_ZERO_SHOT = "openai/clip-vit-base-patch32"
EXAMPLE_WEBHOOK_URL = "https://example.com/hooks/images"


def _read_whole(value: object) -> object:
    # JSON does not distinguish integers from floats: 3.0 is 3.
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
    labels: Labels | None = Field(
        None,
        description=f"For a zero-shot model: the labels to choose from, {LABELS_RULE}. In a form or in the query: "
        "one text with commas, or several texts of one label each",
    )
    hypothesis_template: Template | None = Field(None, description=TEMPLATE_DESCRIPTION)
    embedding: bool | None = Field(
        None, description="true adds the image's embedding, a vector of length 1, to the result"
    )

    classifier: Annotated[str, Field(pattern=NAME_PATTERN)] | None = Field(
        None, description="One of your classifiers, which answers with its own labels and `none of these`"
    )

    @property
    def question(self) -> Question | None:
        """What a zero-shot model is asked; None without labels."""
        if self.labels is None:
            return None
        return Question(labels=tuple(self.labels), hypothesis_template=self.hypothesis_template or DEFAULT_TEMPLATE)


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


class InferenceParameters(BaseModel):
    """How an image is classified; null is the default."""

    model_config = ConfigDict(extra="forbid")

    top_k: TopK | None = Field(None, description=f"How many labels to return; {TOP_K} if not set")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None, description="Only the function that the model applies, as GET /models names it; another one is a 400"
    )
    candidate_labels: Labels | None = Field(
        None, description=f"For a zero-shot model: the labels to choose from, {LABELS_RULE}"
    )
    hypothesis_template: Template | None = Field(None, description=TEMPLATE_DESCRIPTION)


class InferenceRequest(BaseModel):
    """One image and how it is classified, as Hugging Face's clients send it."""

    model_config = ConfigDict(extra="forbid")

    inputs: str = Field(
        description="The image's bytes in base64, with or without a `data:image/...;base64,` prefix",
        json_schema_extra={"format": "byte"},
    )
    parameters: InferenceParameters | None = None


OPTION_NAMES = tuple(Options.model_fields)
FILE = "file"
"""The name of a part that holds an image; every other part of a form is a short text field."""

FORM_FIELDS = (FILE, "image_url", *OPTION_NAMES)
FIELDS: dict[type[BaseModel], tuple[str, ...]] = {
    AnalyzeImageRequest: ("image_data", "image_url", *OPTION_NAMES),
    AnalyzeImagesRequest: ("images", *OPTION_NAMES),
    ImageSource: ("image_data", "image_url"),
    FormFields: FORM_FIELDS,
    Options: FORM_FIELDS,
    InferenceRequest: tuple(InferenceRequest.model_fields),
    InferenceParameters: tuple(InferenceParameters.model_fields),
}
"""The fields that there are, where an unknown one comes instead."""

CONTENT: dict[type[BaseModel], str] = {
    AnalyzeImagesRequest: "images",
    InferenceRequest: "inputs (base64) and parameters",
}
"""What a JSON body consists of, if not of `SOURCES`."""

PLAIN_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,40}")
"""A field's name that an error sentence may repeat."""

FIELD_RULES = {
    "model": "the ID of a model, as GET /models names it",
    "image_data": "a string or null",
    "image_url": "a string or null",
    "images": "a list of one or more objects with image_data (base64) or image_url",
    "top_k": f"a whole number from 1 to {MAX_TOP_K}",
    "min_confidence": "a number from 0 to 1",
    "priority": "normal or high",
    "inputs": "the image's bytes in base64",
    "parameters": "null or an object with top_k, function_to_apply, candidate_labels and hypothesis_template",
    "function_to_apply": "softmax, sigmoid or none",
    "labels": LABELS_RULE,
    "candidate_labels": LABELS_RULE,
    "hypothesis_template": TEMPLATE_RULE,
    "embedding": "true or false",
    "classifier": "the name of one of your classifiers, as GET /classifiers names it",
    "webhook_url": f"a URL of 1 to {URL_LENGTH_MAX} characters",
}
Body = TypeVar("Body", AnalyzeImageRequest, AnalyzeImagesRequest, InferenceRequest)


def parse_json(kind: type[Body], body: bytes) -> Body:
    """Read a JSON body; a byte order mark before it is ignored, as RFC 8259 allows.

    Raises:
        RequestError: it is not JSON, or does not match the schema. The message repeats nothing but a field's name.
    """
    check_structure(body)
    try:
        return kind.model_validate_json(body.removeprefix(BOM_UTF8), strict=True)
    except ValidationError as error:
        raise RequestError(explain(error, kind)) from error


def explain(error: ValidationError, kind: type[BaseModel], subject: str = "The body") -> str:
    """Say what is wrong with a request and how to correct it, without repeating any of its values."""
    fault = error.errors(include_input=False, include_url=False)[0]
    path, where = "", fault["loc"]
    match where:
        case ("images", int(number), *rest):
            kind, subject, path, where = ImageSource, f"images[{number}]", f"images[{number}].", tuple(rest)
        case ("parameters", name, *_):
            kind, subject, path, where = InferenceParameters, "parameters", "parameters.", (name,)
    field, content = where[0] if where else "", CONTENT.get(kind, SOURCES)
    match fault["type"]:
        case "json_invalid":
            return f"The body is not valid JSON: send an object with {content}."
        case "extra_forbidden":
            named = f", {field}" if PLAIN_NAME.fullmatch(str(field)) else ""
            return f"{subject} has an unknown field{named}: its fields are {', '.join(FIELDS[kind])}."
        case "one_source":
            return f"{path and subject + ': '}{fault['msg']}."
        case _ if field in FIELD_RULES:
            return f"{path}{field} must be {FIELD_RULES[str(field)]}."
        case _:
            return f"{subject} must be a JSON object with {content}."
