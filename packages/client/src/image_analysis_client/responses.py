"""The API's answers as far as the client reads them; unknown fields of a newer service are ignored."""

from itertools import combinations
from uuid import UUID

from image_analysis_common import classifiers
from image_analysis_common.models import AnalysisResult, FrozenModel, JobFailure, JobStatus, Task


class Classifier(classifiers.Classifier):
    """Your own labels, learned from examples, with what the cross-validation has found."""

    @property
    def most_confused(self) -> tuple[str, str, int] | None:
        """The two labels that are taken for one another most often, and how often; None if that never happened."""
        labels, counts = self.confusion.labels, self.confusion.counts
        pairs = [
            (one, other, counts[row][column] + counts[column][row])
            for (row, one), (column, other) in combinations(enumerate(labels), 2)
        ]
        best = max(pairs, key=lambda pair: pair[2], default=None)
        return best if best and best[2] else None


class ClassifierList(FrozenModel):
    """The caller's classifiers."""

    classifiers: list[Classifier]


class TrainingJob(FrozenModel):
    """The job that trains a classifier."""

    job_id: UUID


class AnalysisStatus(FrozenModel):
    """The status of a job, with its result, its classifier or its error once it has ended."""

    job_id: UUID
    status: JobStatus
    result: AnalysisResult | None = None
    classifier: Classifier | None = None
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
    task: Task = "image-classification"  # a service of an earlier release names none
    labels_count: int
    accuracy: float | None
    backend: str
    device: str
    precision: str
    max_batch_size: int
    inference_ms: float
    embeds: bool = False  # a service of an earlier release does not say it
    trains: bool = False
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
