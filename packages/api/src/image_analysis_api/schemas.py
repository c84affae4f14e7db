"""The bodies that clients send and get; the OpenAPI document is made from them."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from image_analysis_api.listing import Entry
from image_analysis_api.places import NOWHERE, Place
from image_analysis_common.errors import RequestError
from image_analysis_common.models import MAX_TOP_K, TOP_K, AnalysisResult, JobFailure, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.settings import BUNDLED_MODEL

EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAbElEQVR42hXNQRUAUQhCUaMYhShGeVGIQhSizB+XXA7ODDtouIHB"
    "Q4YOM8suWm5h8ZKl+0CskDiBsIioHhx76LiDw0eO3oN/4FVf+J8h0PduzBqZ8x/bxNQPwgaFy192SGgelC0q13/CJaXlA8Z7WAFX"
    "OTbyAAAAAElFTkSuQmCC"
)
"""An 8 x 8 px PNG in base64, so that the interactive documentation's request works as it stands."""

EMPTY_BODY = "The body is empty: send JSON with image_data (base64) or image_url, a form with a file, or an image."
EXAMPLE_URL = "https://upload.wikimedia.org/wikipedia/commons/3/3a/Cat03.jpg"
EXAMPLE_JOB_ID = "5f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e"


def _read_whole(value: object) -> object:
    # JSON has one kind of number: 3.0 is 3.
    return int(value) if isinstance(value, float) and value.is_integer() else value


TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K), BeforeValidator(_read_whole)]


class Options(BaseModel):
    """How an image shall be treated; null stands for the default."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="Which model looks at the image, as GET /models names it; the default if not set"
    )
    top_k: TopK | None = Field(None, description=f"How many predictions to give; {TOP_K} if not set")
    min_confidence: float | None = Field(None, ge=0, le=1, description="Leave out predictions below this")
    priority: Literal["normal", "high"] | None = Field(None, description="high goes before all that wait")


class AnalyzeImageRequest(Options):
    """One image, by its bytes or by its address: exactly one of the two."""

    image_data: str | None = Field(
        None, description="The image's bytes in base64, with or without a `data:image/...;base64,` prefix"
    )
    image_url: str | None = Field(None, description="Where the service fetches the image: http or https")

    @model_validator(mode="after")
    def check_one_source(self) -> Self:
        if (self.image_data is None) == (self.image_url is None):
            raise PydanticCustomError("one_source", "Send exactly one of image_data and image_url")
        return self

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read a JSON body.

        Raises:
            RequestError: it is not JSON, or not of this form; the message never repeats what was sent.
        """
        if not body:
            raise RequestError(EMPTY_BODY)
        try:
            return cls.model_validate_json(body, strict=True)
        except ValidationError as error:
            raise RequestError(explain(error)) from error


class FormFields(Options):
    """The fields of a form, beside its part `file`."""

    image_url: str | None = Field(None, description="Where the service fetches the image: http or https")


FIELD_RULES = {
    "model": "the ID of a model, as GET /models names it",
    "image_data": "a string or null",
    "image_url": "a string or null",
    "top_k": f"a whole number from 1 to {MAX_TOP_K}",
    "min_confidence": "a number from 0 to 1",
    "priority": "normal or high",
}


def explain(error: ValidationError) -> str:
    """Say what is wrong with a request, and how it is right; repeat nothing of it."""
    fault = error.errors(include_input=False, include_url=False)[0]
    field = fault["loc"][0] if fault["loc"] else ""
    match fault["type"]:
        case "json_invalid":
            return "The body is not valid JSON: send an object with image_data (base64) or image_url."
        case "extra_forbidden":
            return "The body has a field that does not exist: send image_data or image_url."
        case "one_source":
            return f"{fault['msg']}."
        case _ if field in FIELD_RULES:
            return f"{field} must be {FIELD_RULES[str(field)]}."
        case _:
            return "The body must be a JSON object with image_data (base64) or image_url."


class JobAccepted(BaseModel):
    """The image is in the queue."""

    job_id: UUID = Field(examples=[EXAMPLE_JOB_ID])
    status: JobStatus = Field(examples=["PENDING"])
    message: str = Field(examples=[f"Accepted. Ask GET /analysis-status/{EXAMPLE_JOB_ID} for the result."])


def _is_none(value: object) -> bool:
    return value is None


class AnalysisStatus(BaseModel):
    """Where a job stands, with its result or its error once it has ended."""

    job_id: UUID = Field(examples=[EXAMPLE_JOB_ID])
    status: JobStatus
    result: AnalysisResult | None = Field(None, description="Set when status is COMPLETED")
    error: JobFailure | None = Field(None, description="Set when status is FAILED")
    cached: bool = Field(False, description="Whether the result was known before this job")
    processing_time_ms: float | None = Field(
        None,
        description="Time from the worker's first touch to the result, in milliseconds; of the first run if cached",
    )
    queue_position: int | None = Field(
        None,
        description="Only while the job waits: its place in the queue, 1 being the next to be taken",
        ge=1,
        exclude_if=_is_none,
    )
    estimated_wait_ms: int | None = Field(
        None,
        description="Only while the job waits: how long it will at the queue's present pace, where there is one",
        ge=0,
        exclude_if=_is_none,
    )

    @classmethod
    def of(cls, job_id: UUID, record: JobRecord, place: Place = NOWHERE) -> Self:
        return cls(
            job_id=job_id,
            status=record.status,
            result=record.answer,
            error=record.error,
            cached=record.cached,
            processing_time_ms=record.processing_time_ms,
            queue_position=place.queue_position,
            estimated_wait_ms=place.estimated_wait_ms,
        )


class ModelStatus(BaseModel):
    """A model that jobs can be sent to, as its latest worker describes it."""

    id: str = Field(description="Give it as `model` when you submit an image", examples=[BUNDLED_MODEL])
    is_default: bool = Field(description="Whether it looks at the images that come without a `model`")
    revision: str = Field(description="Commit on the hub, or a digest of the checkpoint's files")
    labels_count: int = Field(description="How many labels it knows")
    accuracy: float | None = Field(description="Measured top-1 accuracy, where the checkpoint states one")
    backend: str = Field(description="What computes", examples=["torch"])
    device: str = Field(description="Where", examples=["cpu"])
    precision: str = Field(examples=["float32", "bfloat16"])
    max_batch_size: int = Field(description="Images that go through it together")
    inference_ms: float = Field(description="Time of one image through the warm model, in milliseconds")
    workers: int = Field(description="Workers heard of in the last 10 seconds; without one, jobs wait")
    queue_depth: int = Field(description="Jobs that wait for one of them")


class ModelDetails(ModelStatus):
    """A model with its labels."""

    labels: list[str]


class ModelList(BaseModel):
    """Every model that a worker has served in the last day, by ID."""

    models: list[ModelStatus]


class ListedAnalysis(AnalysisStatus):
    """A job in a list."""

    submitted_at: datetime

    @classmethod
    def of_entry(cls, entry: Entry) -> Self:
        status = AnalysisStatus.of(entry.job_id, entry.record)
        return cls(**dict(status), submitted_at=entry.submitted_at)


class AnalysisList(BaseModel):
    """A page of the caller's jobs, newest first."""

    analyses: list[ListedAnalysis]
    next_cursor: str | None = Field(description="Send it as cursor for the next page; null at the end")


class Health(BaseModel):
    """The process is up."""

    status: str = Field("healthy", examples=["healthy"])
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))


class Readiness(Health):
    """Images are taken in and analyzed."""

    status: str = Field("ready", examples=["ready"])
    model: str = Field(description="The model that answers", examples=["vit-tiny-cifar10"])


class Problem(BaseModel):
    """An error as RFC 9457 writes it; `code` is stable and meant for programs, `detail` for people."""

    type: str = "about:blank"
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    detail: str = Field(description="What happened and what to do", examples=["image_data is not valid base64."])
    code: str = Field(examples=["invalid_base64"])
    request_id: str = Field(description="Quote it when you report the error")
