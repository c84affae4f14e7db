"""The values that the services exchange: statuses, results, failures, and announcements of models."""

import hashlib
import json
import sys
from array import array
from base64 import b64decode, b64encode
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

TOP_K = 5
"""How many predictions an answer holds by default."""

MAX_TOP_K = 100
"""The most predictions a client can ask for. If it asks for more than `TOP_K`, run and cache keep this many."""

DEEP_SUFFIX = "+100"
"""The suffix of the cache field of a result with up to `MAX_TOP_K` predictions."""

EXACT = "float32"
"""The precision in which every engine gives the same answers."""

Confidence = Annotated[float, Field(ge=0, le=1, description="How sure the model is, from 0 to 1")]


Task = Literal["image-classification", "zero-shot-image-classification"]
"""What a model does, as Hugging Face names it: tell its own labels apart, or labels that come with each image."""

ZERO_SHOT: Task = "zero-shot-image-classification"

DEFAULT_TEMPLATE = "This is a photo of {}."
"""The hypothesis template of Hugging Face's pipeline."""

MAX_DIMENSION = 8192
"""The most numbers of an embedding that is part of a result: 44 kB in base64. The usual models have 192 to 4096."""

ScoreFunction = Literal["softmax", "sigmoid"]
"""What makes a model's confidences of its logits: softmax where one label excludes the others, sigmoid where not."""


class JobStatus(StrEnum):
    """The status of a job; the last three are final."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        return self not in (JobStatus.PENDING, JobStatus.PROCESSING)


class FrozenModel(BaseModel):
    """The base of immutable values."""

    model_config = ConfigDict(frozen=True)


class ModelRef(FrozenModel):
    """One revision of one model: results of different revisions are never mixed."""

    id: str = Field(description="Hub ID, or the folder's name")
    revision: str = Field(description="Commit on the hub, or a digest of the checkpoint's files")
    preprocessing: str = Field(description="Version of the steps between the bytes and the model")
    precision: str = Field(
        EXACT,
        description="Precision of the arithmetic, if it is not float32",
        examples=["bfloat16", "int8"],
        exclude_if=lambda precision: precision == EXACT,
    )

    @property
    def cache_field(self) -> str:
        """Name this model's result under an image; a new revision or another precision never sees an old result."""
        field = f"{self.id}@{self.revision}#{self.preprocessing}"
        return field if self.precision == EXACT else f"{field}/{self.precision}"


class Question(FrozenModel):
    """What a zero-shot model is asked about an image: which of these labels fits it."""

    labels: tuple[str, ...]
    hypothesis_template: str = DEFAULT_TEMPLATE

    @property
    def digest(self) -> str:
        """16 hex digits that differ between questions; the labels' order counts, because it is that of equal scores."""
        text = json.dumps([self.hypothesis_template, *self.labels])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Prediction(FrozenModel):
    """One label and how sure the model is of it."""

    label: str
    confidence: Confidence


class ImageEmbedding(FrozenModel):
    """A vector that tells images apart: similar images have a large scalar product."""

    dimension: int = Field(description="How many numbers it has", ge=1, le=MAX_DIMENSION, examples=[192])
    values: str = Field(description="The numbers, little-endian float32, in base64; the vector's length is 1")

    @classmethod
    def pack(cls, values: bytes) -> Self:
        """Write little-endian float32 as text."""
        return cls(dimension=len(values) // 4, values=b64encode(values).decode())

    @property
    def vector(self) -> "array[float]":
        """The numbers as an array, which numpy takes without a copy.

        Raises:
            ValueError: `values` are not base64 of float32.
        """
        vector = array("f", b64decode(self.values, validate=True))
        if sys.byteorder == "big":
            vector.byteswap()
        return vector


class AnalysisResult(FrozenModel):
    """What a model sees in an image: the best label, then the best few with their confidences."""

    label: str = Field(description="The best label")
    confidence: Confidence
    predictions: list[Prediction] = Field(
        description="The best labels, best first: `top_k` at most, none below `min_confidence`"
    )
    model: ModelRef
    embedding: ImageEmbedding | None = Field(
        None, description="Of the image, if the request asked for it", exclude_if=lambda embedding: embedding is None
    )

    def trimmed(self, top_k: int | None, min_confidence: float | None) -> "AnalysisResult":
        """Apply `top_k` and `min_confidence` to the predictions; `label` and `confidence` stay."""
        if top_k is None and min_confidence is None and len(self.predictions) <= TOP_K:
            return self
        predictions = [
            prediction
            for prediction in self.predictions[: top_k or TOP_K]
            if prediction.confidence >= (min_confidence or 0)
        ]
        return self.model_copy(update={"predictions": predictions})


class JobFailure(FrozenModel):
    """Why a job FAILED: a stable code and a sentence for people."""

    code: str = Field(examples=["corrupt_image"])
    detail: str


class CachedResult(FrozenModel):
    """A result in the cache, with the time that the analysis took."""

    result: AnalysisResult
    processing_time_ms: float


class EngineReport(FrozenModel):
    """How an engine with a precision compares with the reference, a model's exact engine, on the same images."""

    engine: str = Field(examples=["torch", "openvino"])
    precision: str = Field(examples=["float32", "bfloat16", "int8"])
    agreement: float = Field(description="Share of the images with the same best label, from 0 to 1", ge=0, le=1)
    confidence_difference: float = Field(description="Mean difference of the confidence in the reference's best label")
    images_per_s: float = Field(description="Speed in full batches, where it was measured")

    @property
    def name(self) -> str:
        return f"{self.engine} {self.precision}"


class ModelAnnouncement(FrozenModel):
    """A worker's description of the model that it serves."""

    model: ModelRef
    labels: list[str]
    accuracy: float | None = Field(description="Measured top-1 accuracy, where the checkpoint states one")
    backend: str = Field("torch", description="The engine that runs the model")
    device: str
    dtype: str
    max_batch_size: int
    inference_ms: float = Field(description="Time of one image through the warm model, in milliseconds")
    function_to_apply: ScoreFunction | None = Field(None, description="None from a worker of an earlier release")
    task: Task = Field("image-classification", description="A zero-shot model has no labels of its own")
    embeds: bool = Field(False, description="Whether it gives the embedding of an image")
    trains: bool = Field(False, description="Whether the worker trains classifiers from examples")
    engines: list[EngineReport] = Field([], description="What was measured before an engine was chosen")
