"""Sending batches: how large they are, what is sent again and when, and which jobs they have become."""

import time
from collections import deque
from dataclasses import dataclass, replace
from uuid import UUID

import httpx

from image_analysis_client import requests
from image_analysis_client.answers import parse, result_of
from image_analysis_client.backlog import MAX_BATCH_IMAGES, Backlog, Item
from image_analysis_client.errors import BadRequest, JobError, NotFound, NotNow, Unavailable
from image_analysis_client.requests import Request
from image_analysis_client.responses import AnalysisStatus, BatchStatus
from image_analysis_client.retries import WAITED_FOR
from image_analysis_client.session import Session, note_pause
from image_analysis_client.values import Options, Outcome, Source
from image_analysis_common.models import JobFailure

TOO_MUCH_AT_ONCE = (408, 413)
"""The statuses of a batch that took too long to arrive, or is too large: a smaller one may be accepted."""

REFUSED_FOR_NOW = frozenset({"queue_full", "store_unavailable", "too_many_deliveries", "unavailable"})
"""What a batch's job fails with if the service had no room for it."""

RESUBMIT_PAUSE_S = 5.0


@dataclass
class Batch:
    """An accepted batch, with the sources of its jobs that have not ended as far as is known."""

    id: UUID
    pending: dict[UUID, Source]


@dataclass(frozen=True)
class Sent:
    """A batch that was sent and is not known to be accepted. Sending the very same request again is safe."""

    items: list[Item]
    request: Request

    @property
    def may_be_accepted(self) -> bool:
        return self.request.delivery.is_unanswered


class Submissions:
    """Sends the images of a backlog. The outcomes of images that end there go to `ended`."""

    def __init__(self, session: Session, backlog: Backlog, options: Options, ended: list[Outcome]) -> None:
        self._session = session
        self._backlog = backlog
        self._options = options
        self._ended = ended
        self._was_accepted = False
        self.batches: deque[Batch] = deque()
        self.sent: Sent | None = None
        self.max_images = MAX_BATCH_IMAGES
        self.resumes_at = 0.0

    @property
    def has_more(self) -> bool:
        return self.sent is not None or bool(self._backlog)

    async def send(self) -> None:
        """Send a batch that may have been accepted once more, otherwise as many images as may go in one batch."""
        if not self._session.quota.room(1):
            await self._session.look()
        room = self._session.quota.room(self.max_images)
        if self.sent is None and (items := await self._backlog.take(room)):
            request = requests.submit_images([item.image for item in items], self._options)
            self.sent = Sent(items, request)
        if self.sent is not None and room:
            await self._submit(self.sent)

    async def _submit(self, sent: Sent) -> None:
        try:
            response = await self._session.call(sent.request)
        except BadRequest as error:
            self.sent = None
            self._split(sent.items, error)
            return
        except NotNow as error:
            self._put_back(sent, error)
            return
        answer = parse(response, BatchStatus)
        self._was_accepted = True
        if len(answer.jobs) != len(sent.items):
            raise NotFound("job_not_found", "Jobs of the batch are gone: which ones, nobody can say.", 404)
        batch, refused = Batch(answer.batch_id, {}), list[tuple[Item, JobFailure]]()
        for item, job in zip(sent.items, answer.jobs, strict=True):
            if not job.status.is_final:
                batch.pending[job.job_id] = item.source
            elif job.error and job.error.code in REFUSED_FOR_NOW:
                refused.append((item, job.error))
            else:
                self._ended.append(outcome_of(item.source, job))
        if batch.pending:
            self.batches.append(batch)
        self.sent = None  # only now: an interrupt must not lose the batch
        self._send_later(refused)

    def _split(self, items: list[Item], error: BadRequest) -> None:
        """Send smaller batches from now on; one image that is refused is an outcome, unless it is for the options."""
        if len(items) > 1 and (error.status in TOO_MUCH_AT_ONCE or error.code == "invalid_request"):
            self.max_images = len(items) // 2
            self._backlog.put_back(items)
        elif len(items) == 1 and (error.status in TOO_MUCH_AT_ONCE or self._was_accepted):
            self._ended.append(Outcome(items[0].source, error=error))
        else:
            raise error

    def _put_back(self, sent: Sent, error: NotNow) -> None:
        """Send the images later: a used-up quota or a full queue is no fault, however long it lasts.

        If the answer to an earlier attempt was lost, the same request is sent then: a new one could do its work twice.
        """
        if not self._session.max_retry_s or error.code not in WAITED_FOR:
            raise error
        if not sent.may_be_accepted:
            self._backlog.put_back(sent.items)
            self.sent = None
        pause_s = error.retry_after or RESUBMIT_PAUSE_S
        self.resumes_at = time.monotonic() + pause_s
        note_pause(error.code, pause_s)

    def _send_later(self, refused: list[tuple[Item, JobFailure]]) -> None:
        """Send again what the service had no room for: as long as that is because of its queue, else for a while."""
        now = time.monotonic()
        for item, failure in refused:
            refused_at = None if failure.code in WAITED_FOR and self._session.max_retry_s else item.refused_at or now
            if refused_at and now + RESUBMIT_PAUSE_S - refused_at >= self._session.max_retry_s:
                raise Unavailable(failure.code, failure.detail, httpx.codes.SERVICE_UNAVAILABLE)
            self._backlog.put_last([replace(item, refused_at=refused_at)])
        if refused:
            self.resumes_at = now + RESUBMIT_PAUSE_S
            note_pause(refused[0][1].code, RESUBMIT_PAUSE_S)


def outcome_of(source: Source, job: AnalysisStatus) -> Outcome:
    """Return the outcome of a job that has ended."""
    try:
        return Outcome(source, result_of(job), job_id=job.job_id, cached=job.cached)
    except JobError as error:
        return Outcome(source, error=error, job_id=job.job_id)
