"""Accepts images: answers each from the cache, queues it, or refuses it if Redis or the queue is full.

One image alone takes one script, once its model's announcement is known. Until then it takes the path of several: look
up, then write in one transaction. That of a batch also writes its record, and the jobs that have failed.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import UUID

from redis.asyncio import Redis

from image_analysis_api.access.admission import Charge
from image_analysis_api.intake.schemas import Options
from image_analysis_api.jobs.model_registry import ModelRegistry
from image_analysis_api.jobs.outcomes import note
from image_analysis_api.jobs.queue import NewJob, QueueOf, ResultCached, failure, refuse
from image_analysis_api.jobs.records import BatchRecord, write_batch
from image_analysis_api.jobs.result_cache import Lookup, ResultCache, read_popular
from image_analysis_api.outbound.webhook_urls import MAX_DELIVERIES, WebhookUrls
from image_analysis_api.store.client import reaching_redis, run_script, write_script
from image_analysis_api.store.replication import Replication
from image_analysis_common import keys
from image_analysis_common.errors import QueueFull, TooManyDeliveries, UnreadableRecord
from image_analysis_common.models import CachedResult
from image_analysis_common.records import read_json
from image_analysis_common.scripts import jobs as job_scripts
from image_analysis_common.scripts.limits import NO_QUOTA
from image_analysis_common.scripts.source import ScriptCall

NO_ROOM = QueueFull("The queue had no room for this image: send it again later.")
UNDELIVERED = TooManyDeliveries()
"""The errors of images of a batch that are not queued. They are written before anybody knows how many images wait."""

_BATCH_ERRORS = job_scripts.BatchErrors(failure(UNDELIVERED), failure(NO_ROOM), MAX_DELIVERIES)


class Accepted(NamedTuple):
    """Jobs with their new records, in the order of their images."""

    jobs: list[NewJob]
    lacks_worker: bool
    """Whether one of them waits for a model that has no live worker."""


class Acceptance:
    """Decides what becomes of images, and writes it to Redis."""

    def __init__(
        self,
        redis: Redis,
        result_cache: ResultCache,
        model_registry: ModelRegistry,
        queue_of: QueueOf,
        webhook_urls: WebhookUrls,
        replication: Replication,
    ) -> None:
        self._redis = redis
        self._result_cache = result_cache
        self._model_registry = model_registry
        self._queue_of = queue_of
        self._webhook_urls = webhook_urls
        self._replication = replication

    async def check_webhook(self, options: Options) -> None:
        """Check that the service can send webhooks to the URL in the options, if there is one.

        Raises:
            WebhooksDisabled, UrlRefused, TooManyDeliveries
        """
        if options.webhook_url is not None:
            await self._webhook_urls.check(options.webhook_url)

    async def check_model(self, options: Options) -> None:
        """Check the model in the options before any image is fetched; `accept` would refuse it later.

        Raises:
            ModelNotFound
        """
        if options.model is not None:
            await self._model_registry.check(options.model)

    async def accept_alone(self, job: NewJob, charge: Charge) -> Accepted:
        """Accept one job; the same script counts the request, looks for a result, and queues the job.

        Raises RateLimited, and what `accept` raises.
        """
        cache, record = self._result_cache, job.record
        if (known := cache.known(record)) is None:
            await charge.settle()
            return await self.accept([job])
        quota = charge.take()
        if popular := cache.recall(record):
            answered = replace(job, record=record.completed_from(read_popular(popular.text)))
            call = job_scripts.add_ended(str(job.job_id), answered.record, quota, popular)
            outcome, verdict = answer = await run_script(self._redis, call)
            if quota.key:
                charge.note(verdict)
            if outcome is None:
                return await self._end(answered, answer)
            cache.forget(record.image_hash)
            quota = NO_QUOTA
        answer = await run_script(self._redis, self._queue_of(record.model).call(job, quota, known))
        outcome, verdict, live = answer
        if quota.key:
            charge.note(verdict)
        match outcome:
            case b"unknown":
                return await self.accept([job])
            case [b"cached", bytes() as text]:
                try:
                    cached = read_json(CachedResult, text)
                except UnreadableRecord:  # The image is analyzed again.
                    return await self.accept([job])
                cache.remember(record, known, text)
                job = replace(job, record=record.completed_from(cached))
                answer = await run_script(self._redis, self._call(job))
        return await self._end(job, answer, is_alive=bool(live))

    async def _end(self, job: NewJob, answer: Any, *, is_alive: bool = True) -> Accepted:
        """Note and confirm a single job; `is_alive` is whether its model has a worker.

        Raises what `accept` raises.
        """
        if error := note(job, answer):
            raise error
        await self.confirm([job.job_id])
        return Accepted([job], not is_alive and not job.record.status.is_final)

    async def accept(self, jobs: Sequence[NewJob]) -> Accepted:
        """Complete each job from the cache or queue it.

        Raises:
            ModelNotFound: no such model is known.
            LabelsNotSupported, LabelsRequired: the model cannot answer their question, or needs one.
            EmbeddingsNotSupported: they ask for an embedding, and the model has none.
            QueueFull, TooManyDeliveries: a job was refused for this reason, and has no record.
            StoreUnavailable: it is not known whether the jobs are recorded.
        """
        current, lacks_worker = await self._look_up(jobs)
        errors = await self._write(current)
        late = [number for number, error in enumerate(errors) if isinstance(error, ResultCached)]
        if late:
            found, _ = await self._look_up([current[number] for number in late])
            # A result can be deleted right after it was cached: without a field, the image is queued in any case.
            found = [replace(job, cache_field="") for job in found]
            for number, job, error in zip(late, found, await self._write(found), strict=True):
                current[number], errors[number] = job, error
        if refusals := [error for error in errors if error]:
            raise refusals[-1]
        return await self._confirm_all(current, lacks_worker)

    async def accept_batch(self, jobs: Sequence[NewJob], batch_id: UUID) -> Accepted:
        """Accept the jobs of a batch in one transaction; a job that was refused before is recorded as it is.

        A job that the queue has no room for is recorded as FAILED, unless every job has failed.

        Raises what `accept` raises; QueueFull and TooManyDeliveries only if every job has failed.
        """
        found, lacks_worker = await self._look_up(jobs)
        # A result that comes into the cache now could only be used in a second transaction, which might never come.
        current = [replace(job, cache_field="") for job in found]
        placed = [job for job in current if job.record.error is None]
        async with self._redis.pipeline(transaction=True) as pipeline:
            # Because of this command, a full Redis refuses the transaction as a whole; scripts alone would run.
            write_batch(pipeline, batch_id, BatchRecord(owner=jobs[0].record.owner, job_ids=_ids(jobs)))
            for job in placed:
                write_script(pipeline, self._call(job))
            records = {str(job.job_id): job.record for job in current}
            write_script(pipeline, job_scripts.settle_batch(str(batch_id), records, _BATCH_ERRORS))
            async with reaching_redis():
                _, *answers, reason = await pipeline.execute()
        errors = [note(job, answer) for job, answer in zip(placed, answers, strict=True)]
        refused = {job.job_id: error for job, error in zip(placed, errors, strict=True) if error}
        why = UNDELIVERED if reason == b"deliveries" else NO_ROOM
        current = [refuse(job, why) if job.job_id in refused else job for job in current]
        if refused and all(job.record.error for job in current):
            raise next(reversed(refused.values()))
        for job in current:
            if job.record.error:
                note(job, None)
        return await self._confirm_all(current, lacks_worker, batch_id)

    async def _confirm_all(self, jobs: list[NewJob], lacks_worker: bool, batch_id: UUID | None = None) -> Accepted:
        await self.confirm(_ids(jobs), batch_id)
        return Accepted(jobs, lacks_worker and any(not job.record.status.is_final for job in jobs))

    async def confirm(self, job_ids: Sequence[UUID], batch_id: UUID | None = None) -> None:
        """Return once as many replicas as the settings ask for have these jobs and the batch.

        Raises:
            StoreUnavailable: they do not, or not in time. The jobs may still run.
        """
        batch = [keys.batch(str(batch_id))] if batch_id else []
        await self._replication.confirm(*(keys.job(str(job_id)) for job_id in job_ids), *batch)

    async def _look_up(self, jobs: Sequence[NewJob]) -> tuple[list[NewJob], bool]:
        """Complete the jobs whose results are cached; return whether a model of the others has no live worker."""
        waiting = [job for job in jobs if not job.record.status.is_final]
        lookups = await _gather([self._result_cache.find(job.record) for job in waiting])
        for model in {job.record.model for job, found in zip(waiting, lookups, strict=True) if not found.is_known}:
            if model is not None:
                await self._model_registry.check(model)
        current = {job.job_id: job for job in jobs}
        for job, found in zip(waiting, lookups, strict=True):
            record = job.record.completed_from(found.cached) if found.cached else job.record
            current[job.job_id] = replace(job, record=record, cache_field=found.field)
        lacks_worker = any(not found.has_worker for found in lookups if not found.cached)
        return list(current.values()), lacks_worker

    async def _write(self, jobs: Sequence[NewJob]) -> list[Exception | None]:
        """Record the jobs that have ended and queue the others, all or none; return why a job was not queued."""
        calls = [self._call(job) for job in jobs]
        if len(calls) == 1:
            answers = [await run_script(self._redis, calls[0])]
        else:
            async with self._redis.pipeline(transaction=True) as pipeline:
                for call in calls:
                    write_script(pipeline, call)
                async with reaching_redis():
                    answers = await pipeline.execute()
        return [note(job, answer) for job, answer in zip(jobs, answers, strict=True)]

    def _call(self, job: NewJob) -> ScriptCall:
        if job.record.status.is_final:
            return job_scripts.add_ended(str(job.job_id), job.record)
        return self._queue_of(job.record.model).call(job)


def _ids(jobs: Sequence[NewJob]) -> tuple[UUID, ...]:
    return tuple(job.job_id for job in jobs)


async def _gather(lookups: Sequence[Coroutine[Any, Any, Lookup]]) -> Sequence[Lookup]:
    # A task for the only lookup of a single image would cost 11 microseconds.
    return [await lookups[0]] if len(lookups) == 1 else await asyncio.gather(*lookups)
