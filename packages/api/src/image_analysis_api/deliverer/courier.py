"""Makes one attempt to deliver a webhook: sends it signed, and interprets the answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import httpx

from image_analysis_api.deliverer.outbox import Delivery
from image_analysis_api.deliverer.signing import sign
from image_analysis_api.outbound.client import OutboundClient
from image_analysis_api.outbound.urls import WebUrl
from image_analysis_api.responses import AnalysisStatus
from image_analysis_api.webhook_secrets import WebhookSecret
from image_analysis_common.errors import FetchFailed, HostUnknown, UnreadableRecord, UrlRefused
from image_analysis_common.records import JobRecord

TIMEOUT_S = 15.0
"""Limit for a whole attempt; shorter than a lease."""


class Verdict(StrEnum):
    """The outcome of an attempt."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    """Another attempt may succeed: there was no answer, or a 429 or 5xx."""
    REJECTED = "rejected"
    """The receiver does not accept it: any other status."""
    REFUSED = "refused"
    """The URL leads to an address or port that is not allowed."""


@dataclass(frozen=True)
class Report:
    """The verdict on an attempt, the HTTP status or error that caused it, and the receiver's `Retry-After`."""

    verdict: Verdict
    cause: str
    retry_after: str = ""


class Courier:
    """Sends signed webhooks. Closing it closes `outbound` too."""

    def __init__(
        self, outbound: OutboundClient, secrets: Sequence[WebhookSecret], *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._outbound = outbound
        self._secrets = secrets
        self._timeout_s = timeout_s

    async def aclose(self) -> None:
        await self._outbound.aclose()

    async def attempt(self, delivery: Delivery) -> Report:
        """Send the job's status. Nothing that the receiver does raises an error."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(delivery.job_id, JobRecord.from_hash(delivery.record))
        except UrlRefused as error:
            verdict = Verdict.RETRIED if isinstance(error, HostUnknown) else Verdict.REFUSED
            return Report(verdict, type(error).__name__)
        except (FetchFailed, UnreadableRecord, httpx.HTTPError, OSError) as error:
            return Report(Verdict.RETRIED, type(error).__name__)

    async def _send(self, job_id: str, record: JobRecord) -> Report:
        body = AnalysisStatus.of(UUID(job_id), record).model_dump_json()
        headers = {"Content-Type": "application/json"}
        headers |= sign(self._secrets, record.owner, f"msg_{job_id}", body)
        response = await self._outbound.ask("POST", WebUrl.parse(record.webhook_url or ""), headers, body.encode())
        await response.aclose()  # its body is not read
        status = response.status_code
        if response.is_success:
            return Report(Verdict.DELIVERED, str(status))
        if status == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
            return Report(Verdict.RETRIED, str(status), response.headers.get("retry-after", ""))
        return Report(Verdict.REJECTED, str(status))
