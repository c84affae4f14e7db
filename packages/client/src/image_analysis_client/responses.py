"""The API's answers as far as the client reads them; unknown fields of a newer service are ignored."""

from uuid import UUID

from image_analysis_common.models import AnalysisResult, FrozenModel, JobFailure, JobStatus


class AnalysisStatus(FrozenModel):
    """The status of a job, with its result or its error once it has ended."""

    job_id: UUID
    status: JobStatus
    result: AnalysisResult | None = None
    error: JobFailure | None = None
    cached: bool = False
    processing_time_ms: float | None = None
    queue_position: int | None = None
    estimated_wait_ms: int | None = None


class BatchStatus(FrozenModel):
    """The jobs of a batch in the order of its images; of `total`, those that can still be asked for."""

    batch_id: UUID
    total: int
    jobs: list[AnalysisStatus]


class ModelStatus(FrozenModel):
    """A model that jobs can ask for, as its latest worker describes it."""

    id: str
    is_default: bool
    revision: str
    labels_count: int
    accuracy: float | None
    backend: str
    device: str
    precision: str
    max_batch_size: int
    inference_ms: float
    workers: int
    queue_depth: int


class ModelDetails(ModelStatus):
    """A model with its labels."""

    labels: list[str]


class ModelList(FrozenModel):
    """Every model that a worker has served in the last day."""

    models: list[ModelStatus]


class Problem(FrozenModel):
    """An error in the form of RFC 9457."""

    code: str
    detail: str
    request_id: str = ""
