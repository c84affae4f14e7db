"""The asynchronous client."""

from collections.abc import AsyncGenerator, Iterable
from types import TracebackType
from typing import Self, Unpack
from uuid import UUID

import httpx

from image_analysis_client.responses import AnalysisStatus, ModelDetails, ModelStatus
from image_analysis_client.values import Options, Outcome, Source
from image_analysis_common.models import AnalysisResult


class AsyncClient:
    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        max_retry_seconds: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        raise NotImplementedError

    async def classify(
        self, source: Source, *, wait_timeout: float | None = None, **options: Unpack[Options]
    ) -> AnalysisResult:
        raise NotImplementedError

    async def submit(self, source: Source, **options: Unpack[Options]) -> "AsyncJob":
        raise NotImplementedError

    def job(self, job_id: str | UUID) -> "AsyncJob":
        raise NotImplementedError

    def classify_many(self, sources: Iterable[Source], **options: Unpack[Options]) -> AsyncGenerator[Outcome, None]:
        raise NotImplementedError

    async def models(self) -> list[ModelStatus]:
        raise NotImplementedError

    async def model(self, model_id: str) -> ModelDetails:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError


class AsyncJob:
    id: UUID

    async def status(self) -> AnalysisStatus:
        raise NotImplementedError

    async def wait(self, timeout: float | None = None) -> AnalysisResult:
        raise NotImplementedError

    def events(self) -> AsyncGenerator[AnalysisStatus, None]:
        raise NotImplementedError

    async def cancel(self) -> None:
        raise NotImplementedError
