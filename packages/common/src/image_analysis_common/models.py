"""The values that the services exchange: statuses, results, failures, and announcements of models."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

TOP_K = 5
"""How many predictions an answer holds by default."""

MAX_TOP_K = 100
"""The most predictions a client can ask for. If it asks for more than `TOP_K`, run and cache keep this many."""

DEEP_SUFFIX = "+100"
"""The suffix of the cache field of a result with up to `MAX_TOP_K` predictions."""

Confidence = Annotated[float, Field(ge=0, le=1, description="How sure the model is, from 0 to 1")]


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

    @property
    def cache_field(self) -> str:
        """Name this model's result under an image; a new revision never sees an old result."""
        return f"{self.id}@{self.revision}#{self.preprocessing}"


class Prediction(FrozenModel):
    """One label and how sure the model is of it."""

    label: str
    confidence: Confidence


class AnalysisResult(FrozenModel):
    """What a model sees in an image: the best label, then the best few with their confidences."""

    label: str = Field(description="The best label")
    confidence: Confidence
    predictions: list[Prediction] = Field(
        description="The best labels, best first: `top_k` at most, none below `min_confidence`"
    )
    model: ModelRef

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
