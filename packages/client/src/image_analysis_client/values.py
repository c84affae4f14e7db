"""What callers pass and get: sources, options and outcomes."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Literal, Protocol, TypedDict, runtime_checkable
from uuid import UUID

from image_analysis_common.models import AnalysisResult


@runtime_checkable
class PillowImage(Protocol):
    """What the client needs of a `PIL.Image.Image`, which it never imports."""

    @property
    def mode(self) -> str: ...

    def convert(self, mode: str) -> "PillowImage": ...

    def getexif(self) -> Any: ...

    def save(self, fp: IO[bytes], format: str | None = None, **params: Any) -> None: ...  # noqa: A002


Source = str | os.PathLike[str] | bytes | BinaryIO | PillowImage
"""An image: a `str` that begins with http:// or https:// is a URL, any other is a path."""

Examples = Mapping[str, Iterable[Source | UUID]] | Iterable[tuple[str, Source | UUID]]
"""Labelled images: the images of each label, or pairs of a label and an image. A `UUID` is the image of a job."""


class Options(TypedDict, total=False):
    """How images are analyzed; the API's documentation has their limits and defaults."""

    model: str
    top_k: int
    min_confidence: float
    priority: Literal["normal", "high"]
    webhook_url: str
    labels: list[str] | tuple[str, ...]
    hypothesis_template: str
    classifier: str
    embedding: bool


@dataclass(frozen=True)
class Outcome:
    """What became of one source: it has either a result or an error.

    The error is an `ImageAnalysisError`, or what reading the source raised (such as an `OSError`). `job_id` is None if
    the source never became a job.
    """

    source: Source
    result: AnalysisResult | None = None
    error: Exception | None = None
    job_id: UUID | None = None
    cached: bool = False
