"""The bodies of answers; the OpenAPI document is generated from them."""

from collections import Counter
from datetime import UTC, datetime
from typing import NamedTuple, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from image_analysis_common.classifiers import Classifier
from image_analysis_common.models import (
    AnalysisResult,
    Confidence,
    EngineReport,
    JobFailure,
    JobStatus,
    ScoreFunction,
    Task,
)
from image_analysis_common.records import JobRecord
from image_analysis_common.settings import BUNDLED_MODEL

EXAMPLE_JOB_ID = "5f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e"


class Answer(BaseModel):
    """A body that the service sends; fields with a default are always present."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class TrainingAccepted(Answer):
    """The training is in the queue, behind the jobs of its examples."""

    job_id: UUID = Field(examples=[EXAMPLE_JOB_ID])
    status: JobStatus = Field(examples=["PENDING"])
    classifier: str = Field(description="The name of the classifier", examples=["products"])


class ClassifierList(Answer):
    """The caller's classifiers, by name."""

    classifiers: list[Classifier]


class JobAccepted(Answer):
    """The image is in the queue."""

    job_id: UUID = Field(examples=[EXAMPLE_JOB_ID])
    status: JobStatus = Field(examples=["PENDING"])
    message: str = Field(examples=[f"Accepted. Ask GET /analysis-status/{EXAMPLE_JOB_ID} for the result."])


class Position(NamedTuple):
    """A job's place in the queue, 1 being the next, and its estimated wait at the current pace; None if unknown."""

    queue_position: int | None = None
    estimated_wait_ms: int | None = None


NO_POSITION = Position()


def _is_none(value: object) -> bool:
    return value is None


class AnalysisStatus(Answer):
    """The status of a job, with its result or its error once it has ended."""

    job_id: UUID = Field(examples=[EXAMPLE_JOB_ID])
    status: JobStatus
    result: AnalysisResult | None = Field(None, description="Set when status is COMPLETED, but for a training")
    classifier: Classifier | None = Field(
        None, description="Only of a training that is COMPLETED: the classifier", exclude_if=_is_none
    )
    error: JobFailure | None = Field(None, description="Set when status is FAILED")
    cached: bool = Field(
        False, description="Whether the result, or the embedding that it is made from, came from the cache"
    )
    processing_time_ms: float | None = Field(
        None,
        description="Time from the worker's first touch to the result in milliseconds; the first run's if cached",
    )
    queue_position: int | None = Field(
        None,
        description="Only while the job waits: its place in the queue, 1 being the next",
        ge=1,
        exclude_if=_is_none,
    )
    estimated_wait_ms: int | None = Field(
        None,
        description="Only while the job waits: how long it will wait at the queue's current pace, if there is one",
        ge=0,
        exclude_if=_is_none,
    )

    @classmethod
    def of(cls, job_id: UUID, record: JobRecord, place: Position = NO_POSITION) -> Self:
        return cls(
            job_id=job_id,
            status=record.status,
            result=record.answer,
            classifier=record.trained,
            error=record.error,
            cached=record.cached,
            processing_time_ms=record.processing_time_ms,
            queue_position=place.queue_position,
            estimated_wait_ms=place.estimated_wait_ms,
        )


class BatchCounts(Answer):
    """How many of a batch's jobs have which status."""

    PENDING: int = 0
    PROCESSING: int = 0
    COMPLETED: int = 0
    FAILED: int = 0
    CANCELLED: int = 0


class BatchStatus(Answer):
    """The jobs of one batch, in the order of its images."""

    batch_id: UUID = Field(examples=[EXAMPLE_JOB_ID])
    total: int = Field(
        description="How many images the batch had; jobs that have expired or were forgotten are not in the list"
    )
    counts: BatchCounts
    jobs: list[AnalysisStatus]

    @classmethod
    def of(cls, batch_id: UUID, total: int, jobs: list[AnalysisStatus]) -> Self:
        return cls(
            batch_id=batch_id, total=total, counts=BatchCounts(**Counter(job.status.value for job in jobs)), jobs=jobs
        )


class BatchAccepted(BatchStatus):
    """The batch was accepted. An image that was refused is a job that has FAILED."""

    message: str


class LabelScore(BaseModel):
    """One label and how sure the model is of it, in the words of Hugging Face's clients."""

    label: str = Field(examples=["cat"])
    score: Confidence


class ModelStatus(BaseModel):
    """A model that jobs can ask for, as its latest worker describes it."""

    id: str = Field(description="Send it as `model` when you submit an image", examples=[BUNDLED_MODEL])
    is_default: bool = Field(description="Whether it analyzes the images that are sent without a `model`")
    revision: str = Field(description="Commit on the hub, or a digest of the checkpoint's files")
    task: Task = Field(description="A zero-shot model needs `labels` with each image; other models have their own")
    labels_count: int = Field(description="How many labels it knows; 0 for a zero-shot model")
    accuracy: float | None = Field(description="Measured top-1 accuracy, where the checkpoint states one")
    backend: str = Field(description="The engine that runs the model", examples=["torch"])
    device: str = Field(description="The device that it runs on", examples=["cpu"])
    precision: str = Field(examples=["float32", "bfloat16"])
    max_batch_size: int = Field(description="Most images that go through it together")
    inference_ms: float = Field(description="Time of one image through the warm model, in milliseconds")
    function_to_apply: ScoreFunction | None = Field(
        description="What makes the confidences of the model's logits; null until a worker of this release has said it"
    )
    embeds: bool = Field(description="Whether it gives the embedding of an image: send `embedding`")
    trains: bool = Field(description="Whether its workers train classifiers from examples")
    workers: int = Field(description="Workers that have reported in the last 10 seconds; without one, jobs wait")
    queue_depth: int = Field(description="Jobs that wait for a worker")


class ModelDetails(ModelStatus):
    """A model with its labels, and the comparison of its engines."""

    labels: list[str]
    engines: list[EngineReport] = Field(
        description="How the engines compared before one was chosen; empty if they were not compared"
    )


class ModelList(BaseModel):
    """Every model that a worker has served in the last day, sorted by ID."""

    models: list[ModelStatus]


class ListedAnalysis(AnalysisStatus):
    """A job in a list."""

    submitted_at: datetime


class AnalysisList(BaseModel):
    """A page of the caller's jobs, newest first."""

    analyses: list[ListedAnalysis]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null at the end")


class Health(Answer):
    """The process is up."""

    status: str = Field("healthy", examples=["healthy"])
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))


class Readiness(Health):
    """The service accepts and analyzes images."""

    status: str = Field("ready", examples=["ready"])
    model: str = Field(description="The default model", examples=["vit-tiny-cifar10"])


class Problem(Answer):
    """An error in the form of RFC 9457. `code` is stable and for programs, `detail` is for people."""

    type: str = "about:blank"
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    detail: str = Field(description="What happened and what to do", examples=["The image is not valid base64."])
    code: str = Field(examples=["invalid_base64"])
    request_id: str = Field(description="Quote it when you report the error")
