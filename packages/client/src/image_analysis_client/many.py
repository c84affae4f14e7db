"""Many sources: sent as batches, within the quota and within bounds, and answered for as they end."""

import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass, replace
from uuid import UUID

from image_analysis_client import requests
from image_analysis_client.answers import parse, result_of
from image_analysis_client.errors import BadRequest, ImageAnalysisError, JobError, NotFound, NotNow
from image_analysis_client.responses import AnalysisStatus, BatchStatus
from image_analysis_client.session import POLL_S, Deadline, Session, note_pause
from image_analysis_client.sources import Image
from image_analysis_client.values import Options, Outcome, Source
from image_analysis_common.models import JobStatus

MAX_BATCH_IMAGES = 64
"""The API's usual limit. Where it is lower, the first batch is refused, and the next ones are smaller."""

MAX_BATCH_BYTES = 16_000_000
"""So much of the sources is in memory at once, or one image if that is larger."""

MAX_UNFINISHED = 4 * MAX_BATCH_IMAGES
"""So many jobs may be unfinished at once."""

REFUSED_FOR_NOW = frozenset({"queue_full", "store_unavailable", "too_many_deliveries", "unavailable"})
"""What a job of a batch fails with if the service had no room for its image at that moment."""

WAITED_FOR = frozenset({"queue_full", "rate_limited"})
"""What says only that this client or others have sent enough for now."""

RESUBMIT_PAUSE_S = 5.0
CANCELLING_S = 5.0


@dataclass(frozen=True)
class Item:
    """A source that is read and not yet accepted; since when the service has had no room for it."""

    source: Source
    image: Image
    refused_at: float | None = None


@dataclass
class Batch:
    """An accepted batch, with the sources of its jobs that have not ended as far as is known."""

    id: UUID
    pending: dict[UUID, Source]


async def classify_many(session: Session, sources: Iterable[Source], options: Options) -> AsyncGenerator[Outcome, None]:
    """Give the outcome of every source as it ends; closing this cancels what still waits.

    Raises:
        APIError, ServiceUnreachable: nothing more can be sent, or asked for. Sources with a job have got an outcome.
    """
    run = _Run(session, iter(sources), options)
    outcomes = run.outcomes()
    try:
        async for outcome in outcomes:
            yield outcome
    finally:
        with session.channel.closing():
            await outcomes.aclose()
            await run.cancel()


class _Run:
    def __init__(self, session: Session, sources: Iterator[Source], options: Options) -> None:
        self._session = session
        self._sources: Iterator[Source] | None = sources
        self._options = options
        self._backlog: deque[Item] = deque()
        self._batches: deque[Batch] = deque()
        self._unread: list[Outcome] = []
        self._max_images = MAX_BATCH_IMAGES
        self._resumes_at = 0.0
        self._was_accepted = False

    async def outcomes(self) -> AsyncGenerator[Outcome, None]:
        try:
            await self._look()
            while self._batches or self._backlog or self._sources:
                for outcome in await self._advance():
                    yield outcome
        except ImageAnalysisError as error:
            for outcome in self._unread:
                yield outcome
            while self._batches:
                for job_id, source in self._batches.popleft().pending.items():
                    yield Outcome(source, error=error, job_id=job_id)
            raise

    async def cancel(self) -> None:
        """Cancel the jobs that still wait, as far as the service answers, in a few seconds."""
        deadline = Deadline(CANCELLING_S)
        try:
            for batch in self._batches:
                answer = await self._session.call(requests.read_batch(batch.id), is_retried=False)
                for job in parse(answer, BatchStatus).jobs:
                    if job.status is JobStatus.PENDING and deadline.left_s():
                        await self._session.call(requests.cancel_job(job.job_id), is_retried=False)
        except ImageAnalysisError:
            return

    async def _advance(self) -> list[Outcome]:
        """Take one step: send a batch if there is room, otherwise ask for one, or sleep."""
        pause_s = max(self._session.quota.pause_s(), self._resumes_at - time.monotonic())
        unfinished = sum(len(batch.pending) for batch in self._batches)
        if (self._backlog or self._sources) and unfinished + self._max_images <= MAX_UNFINISHED and pause_s <= 0:
            return await self._send()
        if self._batches:
            return await self._ask()
        if self._session.quota.pause_s() >= pause_s:
            note_pause("rate_limited", pause_s)
        await self._session.channel.sleep(pause_s)
        return []

    async def _look(self) -> None:
        """Ask for the quota, in a call that costs nothing of it."""
        await self._session.call(requests.list_models())

    async def _send(self) -> list[Outcome]:
        """Send as many images as may go in one batch; give the outcomes of those that end there."""
        if not self._session.quota.room(1):
            await self._look()
        items = await self._next_items(self._session.quota.room(self._max_images))
        outcomes = await self._submit(items) if items else []
        unread, self._unread = self._unread, []
        return unread + outcomes

    async def _next_items(self, most: int) -> list[Item]:
        items: list[Item] = []
        size_bytes = 0
        while len(items) < most and (item := await self._next_item()):
            size_bytes += item.image.size_bytes
            if items and size_bytes > MAX_BATCH_BYTES:
                self._backlog.appendleft(item)
                break
            items.append(item)
        return sorted(items, key=lambda item: item.image.url is not None)  # in a form, the files come first

    async def _next_item(self) -> Item | None:
        """Read the next source that can be read."""
        if self._backlog:
            return self._backlog.popleft()
        while self._sources:
            try:
                source = next(self._sources)
            except StopIteration:
                self._sources = None
                break
            try:
                return Item(source, await self._session.channel.read(source))
            except (OSError, ValueError) as error:
                self._unread.append(Outcome(source, error=error))
                if len(self._unread) == MAX_BATCH_IMAGES:
                    break
        return None

    async def _submit(self, items: list[Item]) -> list[Outcome]:
        try:
            response = await self._session.call(requests.submit_images([item.image for item in items], self._options))
        except BadRequest as error:
            return self._split(items, error)
        except NotNow as error:
            self._put_back(items, error)
            return []
        answer = parse(response, BatchStatus)
        self._was_accepted = True
        if len(answer.jobs) != len(items):
            raise NotFound("job_not_found", "Jobs of the batch are gone: which ones, nobody can say.", 404)
        batch, outcomes = Batch(answer.batch_id, {}), list[Outcome]()
        for item, job in zip(items, answer.jobs, strict=True):
            if not job.status.is_final:
                batch.pending[job.job_id] = item.source
            elif (later := self._later(item, job)) is not None:
                self._backlog.append(later)
                self._resumes_at = time.monotonic() + RESUBMIT_PAUSE_S
            else:
                outcomes.append(_outcome(item.source, job))
        if batch.pending:
            self._batches.append(batch)
        return outcomes

    def _split(self, items: list[Item], error: BadRequest) -> list[Outcome]:
        """Send smaller batches from now on; one image that is refused is an outcome, unless it is for the options."""
        if len(items) > 1 and (error.status == 413 or error.code == "invalid_request"):
            self._max_images = len(items) // 2
            self._backlog.extendleft(reversed(items))
            return []
        if len(items) == 1 and (error.status == 413 or self._was_accepted):
            return [Outcome(items[0].source, error=error)]
        raise error

    def _put_back(self, items: list[Item], error: NotNow) -> None:
        """Send the images later: a used-up quota or a full queue is no fault, however long it lasts."""
        if not self._session.max_retry_s or error.code not in WAITED_FOR:
            raise error
        self._backlog.extendleft(reversed(items))
        pause_s = error.retry_after or RESUBMIT_PAUSE_S
        self._resumes_at = time.monotonic() + pause_s
        note_pause(error.code, pause_s)

    def _later(self, item: Item, job: AnalysisStatus) -> Item | None:
        """Return the item as it is to be sent again, if its job failed only for lack of room, and not for too long."""
        if not job.error or job.error.code not in REFUSED_FOR_NOW:
            return None
        now = time.monotonic()
        refused_at = now if item.refused_at is None else item.refused_at
        is_patient = now + RESUBMIT_PAUSE_S - refused_at < self._session.max_retry_s
        return replace(item, refused_at=refused_at) if is_patient else None

    async def _ask(self) -> list[Outcome]:
        """Ask for the batch that was asked for longest ago, and wait a second for its end."""
        batch = self._batches[0]
        asked_at = time.monotonic()
        try:
            answer = await self._session.call(requests.read_batch(batch.id, int(POLL_S)))
            jobs = {job.job_id: job for job in parse(answer, BatchStatus).jobs}
        except NotFound:
            jobs = {}
        outcomes = []
        for job_id, source in list(batch.pending.items()):
            job = jobs.get(job_id)
            if not job or job.status.is_final:
                del batch.pending[job_id]
                outcomes.append(_outcome(source, job) if job else _expired(source, job_id))
        self._batches.popleft()
        if batch.pending:
            self._batches.append(batch)
            if not outcomes and time.monotonic() - asked_at < POLL_S / 2:
                await self._session.channel.sleep(POLL_S)
        return outcomes


def _outcome(source: Source, job: AnalysisStatus) -> Outcome:
    try:
        return Outcome(source, result_of(job), job_id=job.job_id, cached=job.cached)
    except JobError as error:
        return Outcome(source, error=error, job_id=job.job_id)


def _expired(source: Source, job_id: UUID) -> Outcome:
    return Outcome(source, error=NotFound("job_not_found", "The job has expired.", 404), job_id=job_id)
