"""A job's record: the Redis hash under `keys.job(job_id)` that holds its status.

While a release is rolled out, processes meet records of another release. If one cannot be read, `UnreadableRecord` is
raised, and the rule is the same everywhere: a request for this one record gets the error, a list leaves it out, and a
worker leaves its job for a process that can read it. The job is never ended or deleted.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from image_analysis_common.classifiers import Classifier, ClassifierRef, Training
from image_analysis_common.errors import UnreadableRecord
from image_analysis_common.models import (
    DEEP_SUFFIX,
    TOP_K,
    AnalysisResult,
    CachedResult,
    FrozenModel,
    JobFailure,
    JobStatus,
    Question,
)

Model = TypeVar("Model", bound=FrozenModel)

_OF_CLASSIFIERS: dict[str, type[FrozenModel]] = {
    "classifier": ClassifierRef,
    "training": Training,
    "trained": Classifier,
}


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError) as error:
        raise UnreadableRecord from error


def read_json(kind: type[Model], text: bytes | str) -> Model:
    """Read a value that was written as JSON.

    Raises:
        UnreadableRecord: another release wrote it.
    """
    with _reading():
        return kind.model_validate_json(text)


class JobRecord(FrozenModel):
    """One submission: its options, its status, and its result or error once it has ended.

    `model` is None for the default model of the API that accepted it.
    """

    status: JobStatus
    image_hash: str
    owner: str | None = None
    model: str | None = None
    top_k: int | None = None
    min_confidence: float | None = None
    webhook_url: str | None = None
    question: Question | None = None
    embedding: bool = False
    classifier: ClassifierRef | None = None
    training: Training | None = None
    claim: str | None = None
    cached: bool = False
    result: AnalysisResult | None = None
    trained: Classifier | None = None
    error: JobFailure | None = None
    processing_time_ms: float | None = None

    @property
    def is_deep(self) -> bool:
        """Whether its run must keep more than the usual number of predictions."""
        return self.top_k is not None and self.top_k > TOP_K

    @property
    def variant(self) -> str:
        """What tells its results from others of the same image and model: a suffix of their cache field.

        After the question mark there are hex digits only, as the scripts expect: the digest of a question or a
        classifier's version, an `e` for an embedding.
        """
        digits = self._asked + ("e" if self.embedding else "")
        return digits and f"?{digits}"

    @property
    def _asked(self) -> str:
        return self.question.digest if self.question else self.classifier.version if self.classifier else ""

    @property
    def reads_embedding(self) -> bool:
        """Whether an embedding in the cache answers it, without the image."""
        return self.question is not None or self.classifier is not None

    @property
    def needs_embedding(self) -> bool:
        """Whether its run computes the embedding of its image."""
        return self.embedding or self.classifier is not None

    def cache_fields(self, model_field: str) -> tuple[str, str]:
        """Name the field that holds its result, and another one whose result also answers it; empty if there is none.

        A deep result answers any other request.
        """
        field = model_field + self.variant
        return (field + DEEP_SUFFIX, "") if self.is_deep else (field, field + DEEP_SUFFIX)

    @property
    def answer(self) -> AnalysisResult | None:
        """The result with this submission's options applied. Its run may be shared with jobs with other options."""
        return self.result and self.result.trimmed(self.top_k, self.min_confidence)

    def completed_from(self, cached: CachedResult) -> Self:
        """Return the record of a submission that a cached result answers, with its options applied to the result."""
        return self.model_copy(
            update={
                "status": JobStatus.COMPLETED,
                "cached": True,
                "result": cached.result.trimmed(self.top_k, self.min_confidence),
                "processing_time_ms": cached.processing_time_ms,
            }
        )

    def to_hash(self) -> dict[Any, str]:
        """Return the fields as Redis stores them: text as it is, numbers and models as JSON.

        None and False are left out.
        """
        return {
            name: value if isinstance(value, str) else _to_json(value)
            for name in type(self).model_fields
            if (value := getattr(self, name)) is not None and value is not False
        }

    @classmethod
    def from_hash(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read what `to_hash` wrote; `fields` is the raw answer of HGETALL, which must not be empty.

        Raises:
            UnreadableRecord: another release wrote it.
        """
        with _reading():
            return cls._from_text({name.decode(): value.decode() for name, value in fields.items()})

    @classmethod
    def _from_text(cls, text: Mapping[str, str]) -> Self:
        result, error, time_ms = text.get("result"), text.get("error"), text.get("processing_time_ms")
        top_k, min_confidence = text.get("top_k"), text.get("min_confidence")
        question = text.get("question")
        return cls(
            status=JobStatus(text["status"]),
            image_hash=text["image_hash"],
            owner=text.get("owner"),
            model=text.get("model"),
            top_k=int(top_k) if top_k else None,
            min_confidence=float(min_confidence) if min_confidence else None,
            webhook_url=text.get("webhook_url"),
            question=Question.model_validate_json(question) if question else None,
            embedding=text.get("embedding") == "true",
            **{name: kind.model_validate_json(text[name]) for name, kind in _OF_CLASSIFIERS.items() if name in text},
            claim=text.get("claim"),
            cached=text.get("cached") == "true",
            result=AnalysisResult.model_validate_json(result) if result else None,
            error=JobFailure.model_validate_json(error) if error else None,
            processing_time_ms=float(time_ms) if time_ms else None,
        )


@dataclass(frozen=True)
class Progress:
    """A record, and every status that the job has had, oldest first."""

    record: JobRecord
    history: tuple[JobStatus, ...]

    @classmethod
    def from_hash(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read the raw answer of HGETALL, which must not be empty.

        Raises:
            UnreadableRecord: another release wrote it.
        """
        record = JobRecord.from_hash(fields)
        with _reading():
            history = fields.get(b"history", fields[b"status"]).decode().split()
            return cls(record, tuple(map(JobStatus, history)))


def _to_json(value: bool | float | FrozenModel) -> str:
    if isinstance(value, FrozenModel):
        return value.model_dump_json()
    return str(value).lower()
