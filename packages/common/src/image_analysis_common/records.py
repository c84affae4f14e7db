"""A job's record: the Redis hash under `keys.job(job_id)` that its status is read from.

While a release is rolled out, a process meets records of another one. What it cannot read is an `UnreadableRecord`, and
the rule for it is the same everywhere. Where the caller asks for this one record, it gets the error. Where several are
read, this one is left out. Work on it is left for a process that can read it. It is never ended or deleted.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from image_analysis_common.errors import UnreadableRecord
from image_analysis_common.models import TOP_K, AnalysisResult, CachedResult, FrozenModel, JobFailure, JobStatus

Model = TypeVar("Model", bound=FrozenModel)


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
    """One submission: what it asks for, where it stands, and its answer once it has one.

    Without a `model`, it is the default of the API that took it in.
    """

    status: JobStatus
    image_hash: str
    owner: str | None = None
    model: str | None = None
    top_k: int | None = None
    min_confidence: float | None = None
    webhook_url: str | None = None
    cached: bool = False
    result: AnalysisResult | None = None
    error: JobFailure | None = None
    processing_time_ms: float | None = None

    @property
    def is_deep(self) -> bool:
        """Whether it takes a run that keeps more predictions than most ask for."""
        return self.top_k is not None and self.top_k > TOP_K

    @property
    def answer(self) -> AnalysisResult | None:
        """The result as this submission asked for it; its run may have been shared with others that asked otherwise."""
        return self.result and self.result.trimmed(self.top_k, self.min_confidence)

    def completed_from(self, cached: CachedResult) -> Self:
        """Give the record of a submission whose result was known; it holds no more of the result than was asked for."""
        return self.model_copy(
            update={
                "status": JobStatus.COMPLETED,
                "cached": True,
                "result": cached.result.trimmed(self.top_k, self.min_confidence),
                "processing_time_ms": cached.processing_time_ms,
            }
        )

    def to_hash(self) -> dict[Any, str]:
        """Return the fields as Redis stores them: text as it is, numbers and models as JSON, nothing for None."""
        return {
            name: value if isinstance(value, str) else _to_json(value)
            for name in type(self).model_fields
            if (value := getattr(self, name)) is not None
        }

    @classmethod
    def from_hash(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read what `to_hash` wrote; `fields` is the raw answer of HGETALL and not empty.

        Raises:
            UnreadableRecord: another release wrote it.
        """
        with _reading():
            return cls._from_text({name.decode(): value.decode() for name, value in fields.items()})

    @classmethod
    def _from_text(cls, text: Mapping[str, str]) -> Self:
        result, error, time_ms = text.get("result"), text.get("error"), text.get("processing_time_ms")
        top_k, min_confidence = text.get("top_k"), text.get("min_confidence")
        return cls(
            status=JobStatus(text["status"]),
            image_hash=text["image_hash"],
            owner=text.get("owner"),
            model=text.get("model"),
            top_k=int(top_k) if top_k else None,
            min_confidence=float(min_confidence) if min_confidence else None,
            webhook_url=text.get("webhook_url"),
            cached=text.get("cached") == "true",
            result=AnalysisResult.model_validate_json(result) if result else None,
            error=JobFailure.model_validate_json(error) if error else None,
            processing_time_ms=float(time_ms) if time_ms else None,
        )


@dataclass(frozen=True)
class Progress:
    """A record, and every status that the job has had, from the first to the present one."""

    record: JobRecord
    history: tuple[JobStatus, ...]

    @classmethod
    def from_hash(cls, fields: Mapping[bytes, bytes]) -> Self:
        """Read the raw answer of HGETALL, which is not empty.

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
