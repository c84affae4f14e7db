"""Many sources: sent as batches, within the quota and within bounds, and answered for as they end."""

import time
from collections.abc import AsyncGenerator, Iterable

from image_analysis_client import requests
from image_analysis_client.answers import parse
from image_analysis_client.backlog import MAX_BATCH_IMAGES, Backlog
from image_analysis_client.cancelling import cancel_waiting, note_left_behind
from image_analysis_client.errors import ImageAnalysisError, NotFound
from image_analysis_client.responses import BatchStatus
from image_analysis_client.session import POLL_S, Session, note_pause
from image_analysis_client.submissions import Submissions, outcome_of
from image_analysis_client.values import Options, Outcome, Source

MAX_UNFINISHED = 4 * MAX_BATCH_IMAGES


async def classify_many(session: Session, sources: Iterable[Source], options: Options) -> AsyncGenerator[Outcome, None]:
    """Give the outcome of every source as it ends; closing this cancels what still waits.

    Raises:
        APIError, ServiceUnreachable: nothing more can be sent, or asked for. Sources with a job have got an outcome.
    """
    run = _Run(session, sources, options)
    outcomes = run.outcomes()
    try:
        async for outcome in outcomes:
            yield outcome
    finally:
        try:
            with session.channel.closing():
                await outcomes.aclose()
                await cancel_waiting(session, run.submissions)
        finally:
            note_left_behind(run.submissions)


class _Run:
    def __init__(self, session: Session, sources: Iterable[Source], options: Options) -> None:
        self._session = session
        self._ended: list[Outcome] = []
        backlog = Backlog(iter(sources), session.channel.read, self._ended)
        self.submissions = Submissions(session, backlog, options, self._ended)

    async def outcomes(self) -> AsyncGenerator[Outcome, None]:
        batches = self.submissions.batches
        try:
            await self._session.look()
            while batches or self.submissions.has_more:
                for outcome in await self._advance():
                    yield outcome
        except ImageAnalysisError as error:
            for outcome in self._ended:
                yield outcome
            for batch in batches:
                while batch.pending:
                    job_id, source = batch.pending.popitem()
                    yield Outcome(source, error=error, job_id=job_id)
            raise

    async def _advance(self) -> list[Outcome]:
        """Take one step: send a batch if there is room, otherwise ask for one, or sleep."""
        submissions = self.submissions
        quota_s = self._session.quota.pause_s()
        pause_s = max(quota_s, submissions.resumes_at - time.monotonic())
        unfinished = sum(len(batch.pending) for batch in submissions.batches)
        if submissions.has_more and unfinished + submissions.max_images <= MAX_UNFINISHED and pause_s <= 0:
            await submissions.send()
            ended = self._ended.copy()
            self._ended.clear()
            return ended
        if submissions.batches:
            return await self._ask()
        if quota_s == pause_s:  # the other pauses are logged where they begin
            note_pause("rate_limited", pause_s)
        await self._session.channel.sleep(pause_s)
        return []

    async def _ask(self) -> list[Outcome]:
        """Ask for the batch that was asked for longest ago, and wait a second for its end."""
        batches = self.submissions.batches
        batch = batches[0]
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
                error = None if job else NotFound("job_not_found", "The job has expired.", 404)
                outcomes.append(outcome_of(source, job) if job else Outcome(source, error=error, job_id=job_id))
        if not batch.pending:
            batches.popleft()
            return outcomes
        batches.rotate(-1)
        if not outcomes and time.monotonic() - asked_at < POLL_S / 2:
            await self._session.channel.sleep(POLL_S)
        return outcomes
