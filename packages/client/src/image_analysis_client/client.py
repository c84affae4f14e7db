"""The blocking client."""

from collections.abc import Generator, Iterable
from types import TracebackType
from typing import Self, Unpack
from uuid import UUID

import httpx

from image_analysis_client.responses import AnalysisStatus, ModelDetails, ModelStatus
from image_analysis_client.values import Options, Outcome, Source
from image_analysis_common.models import AnalysisResult


class Client:
    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        max_retry_seconds: float = 120.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        raise NotImplementedError

    def classify(
        self, source: Source, *, wait_timeout: float | None = None, **options: Unpack[Options]
    ) -> AnalysisResult:
        raise NotImplementedError

    def submit(self, source: Source, **options: Unpack[Options]) -> "Job":
        raise NotImplementedError

    def job(self, job_id: str | UUID) -> "Job":
        raise NotImplementedError

    def classify_many(self, sources: Iterable[Source], **options: Unpack[Options]) -> Generator[Outcome, None, None]:
        raise NotImplementedError

    def models(self) -> list[ModelStatus]:
        raise NotImplementedError

    def model(self, model_id: str) -> ModelDetails:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError


class Job:
    id: UUID

    def status(self) -> AnalysisStatus:
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> AnalysisResult:
        raise NotImplementedError

    def events(self) -> Generator[AnalysisStatus, None, None]:
        raise NotImplementedError

    def cancel(self) -> None:
        raise NotImplementedError
