"""A job's record: the Redis hash under `keys.job(job_id)` that its status is read from."""

from collections.abc import Mapping
from typing import Any

from image_analysis_common.models import AnalysisResult, FrozenModel, JobFailure, JobStatus


class JobRecord(FrozenModel):
    """One submission: what it asks for, where it stands, and its answer once it has one."""

    status: JobStatus
    image_hash: str
    owner: str | None = None
    cached: bool = False
    result: AnalysisResult | None = None
    error: JobFailure | None = None
    processing_time_ms: float | None = None

    def to_hash(self) -> dict[Any, str]:
        """Return the fields as Redis stores them: text as it is, numbers and models as JSON, nothing for None."""
        return {
            name: value if isinstance(value, str) else _to_json(value)
            for name in type(self).model_fields
            if (value := getattr(self, name)) is not None
        }

    @classmethod
    def from_hash(cls, fields: Mapping[bytes, bytes]) -> "JobRecord":
        """Read what `to_hash` wrote; `fields` is the raw answer of HGETALL and not empty."""
        text = {name.decode(): value.decode() for name, value in fields.items()}
        result, error, time_ms = text.get("result"), text.get("error"), text.get("processing_time_ms")
        return cls(
            status=JobStatus(text["status"]),
            image_hash=text["image_hash"],
            owner=text.get("owner"),
            cached=text.get("cached") == "true",
            result=AnalysisResult.model_validate_json(result) if result else None,
            error=JobFailure.model_validate_json(error) if error else None,
            processing_time_ms=float(time_ms) if time_ms else None,
        )


def _to_json(value: bool | float | FrozenModel) -> str:
    if isinstance(value, FrozenModel):
        return value.model_dump_json()
    return str(value).lower()
