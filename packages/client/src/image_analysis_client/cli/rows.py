"""What became of one image, in each format: a line of CSV, a line of JSON, or an element of a JSON array."""

import csv
import io
import json
from dataclasses import dataclass
from typing import Protocol, Self
from uuid import UUID

from image_analysis_client.cli.escaping import guarded, guarded_name, to_json
from image_analysis_client.errors import ImageAnalysisError, JobCancelled
from image_analysis_client.values import Outcome
from image_analysis_common.models import AnalysisResult, JobFailure, JobStatus

UNREADABLE = "unreadable_file"
"""The code of an image that could not be read from the disk."""


@dataclass(frozen=True)
class Row:
    """One image: a result, or an error with its code."""

    source: str
    status: JobStatus
    result: AnalysisResult | None = None
    error: JobFailure | None = None
    job_id: UUID | None = None

    @classmethod
    def of(cls, source: str, outcome: Outcome) -> Self:
        if outcome.result is not None:
            return cls(source, JobStatus.COMPLETED, result=outcome.result, job_id=outcome.job_id)
        status = JobStatus.CANCELLED if isinstance(outcome.error, JobCancelled) else JobStatus.FAILED
        return cls(source, status, error=_failure(outcome.error), job_id=outcome.job_id)


class RowFormat(Protocol):
    """How rows are written: each as a line, with its end."""

    head: str
    tail: str

    def line(self, row: Row, *, is_first: bool) -> str: ...


COLUMNS = ("source", "status", "label", "confidence", "model", "error_code", "error", "job_id", "predictions")


class CsvLines:
    """One line for each image, also where names have line breaks; formulas are made harmless."""

    head, tail = f"{','.join(COLUMNS)}\n", ""

    def line(self, row: Row, *, is_first: bool) -> str:
        result, error = row.result, row.error
        predictions = [prediction.model_dump() for prediction in result.predictions] if result else []
        cells = {
            "status": row.status,
            "label": result.label if result else "",
            "confidence": str(result.confidence) if result else "",
            "model": result.model.id if result else "",
            "error_code": error.code if error else "",
            "error": error.detail if error else "",
            "job_id": str(row.job_id or ""),
            "predictions": to_json(predictions) if result else "",
        }
        buffer = io.StringIO()
        texts = (guarded(cells[column]) for column in COLUMNS[1:])
        csv.writer(buffer, lineterminator="\n").writerow([self.key(row.source), *texts])
        return buffer.getvalue()

    def key(self, source: str) -> str:
        """Return what `parse` gives for the row of this source."""
        return guarded_name(source)

    def parse(self, line: str) -> tuple[str, str]:
        """Return a row's key and status.

        Raises:
            ValueError: the line is no row.
        """
        try:
            [cells] = csv.reader([line], strict=True)
        except csv.Error as error:
            raise ValueError("not CSV") from error
        if len(cells) != len(COLUMNS):
            raise ValueError("wrong number of cells")
        return cells[0], cells[1]


class JsonLines:
    """One object a line; names are exact."""

    head = tail = ""

    def line(self, row: Row, *, is_first: bool) -> str:
        return f"{_json_object(row)}\n"

    def key(self, source: str) -> str:
        return source

    def parse(self, line: str) -> tuple[str, str]:
        match json.loads(line):
            case {"source": str(source), "status": str(status)}:
                return source, status
        raise ValueError("no row")


class JsonArray:
    """One JSON document, written as the rows come."""

    head, tail = "[\n", "]\n"

    def line(self, row: Row, *, is_first: bool) -> str:
        return f"{' ' if is_first else ','} {_json_object(row)}\n"


def describe(error: OSError) -> str:
    """Say what the system refused, without the name of the file."""
    return f"{error.strerror or error}."


def _failure(error: Exception | None) -> JobFailure:
    if isinstance(error, ImageAnalysisError):
        return JobFailure(code=error.code, detail=error.detail)
    detail = describe(error) if isinstance(error, OSError) else f"{error}"
    return JobFailure(code=UNREADABLE, detail=detail)


def _json_object(row: Row) -> str:
    return to_json(
        {
            "source": row.source,
            "status": row.status,
            "job_id": str(row.job_id) if row.job_id else None,
            "result": row.result.model_dump() if row.result else None,
            "error": row.error.model_dump() if row.error else None,
        }
    )
