"""Accepts images: answers each from the cache, queues it, or refuses it if Redis or the queue is full.

One image alone takes one script, once its model's announcement is known. Until then it takes the path of a batch: look
up, then write in one transaction, together with the batch's record.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from redis.asyncio import Redis

from image_analysis_api.access.admission import Charge
from image_analysis_api.intake.schemas import Options
from image_analysis_api.jobs.model_registry import ModelRegistry
from image_analysis_api.jobs.queue import NewJob, QueueOf, ResultCached, read_answer, refuse
from image_analysis_api.jobs.records import BatchRecord, write_batch
from image_analysis_api.jobs.result_cache import Lookup, ResultCache, read_popular
from image_analysis_api.metrics import SUBMISSIONS, labeled
from image_analysis_api.outbound.webhook_urls import WebhookUrls
from image_analysis_api.store.client import reaching_redis, run_script, write_script
from image_analysis_api.store.replication import Replication
from image_analysis_common import keys
from image_analysis_common.errors import QueueFull, ServiceError, TooManyDeliveries, UnreadableRecord
from image_analysis_common.models import CachedResult, JobStatus
from image_analysis_common.records import read_json
from image_analysis_common.scripts import jobs as job_scripts
from image_analysis_common.scripts.limits import NO_QUOTA
from image_analysis_common.scripts.source import ScriptCall

log = structlog.get_logger(__name__)


class Accepted(NamedTuple):
    """Jobs with their new records, in the order of their images."""

    jobs: list[NewJob]
    lacks_worker: bool
    """Whether one of them waits for a model that has no live worker."""
    refusal: ServiceError | None = None
    """Why one of them was not queued, if there was no room for it."""


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
        if error := _note(job, answer):
            raise error
        await self.confirm([job.job_id])
        return Accepted([job], not is_alive and not job.record.status.is_final)

    async def accept(self, jobs: Sequence[NewJob], batch_id: UUID | None = None) -> Accepted:
        """Complete each job from the cache or queue it; record a job that was refused before as it is.

        With a `batch_id`, a job that the queue has no room for is recorded as FAILED, unless every job has failed.

        Raises:
            ModelNotFound: no such model is known.
            LabelsNotSupported, LabelsRequired: the model cannot answer their question, or needs one.
            EmbeddingsNotSupported: they ask for an embedding, and the model has none.
            QueueFull, TooManyDeliveries: every job has failed, at least one of them for this reason. None is recorded.
            StoreUnavailable: it is not known whether the jobs are recorded.
        """
        current, lacks_worker = await self._look_up(jobs)
        errors = await self._write(current, batch_id)
        late = [number for number, error in enumerate(errors) if isinstance(error, ResultCached)]
        if late:
            found, _ = await self._look_up([current[number] for number in late])
            # A result can be deleted right after it was cached: without a field, the image is queued in any case.
            found = [replace(job, cache_field="") for job in found]
            for number, job, error in zip(late, found, await self._write(found), strict=True):
                current[number], errors[number] = job, error
        refusals = [error for error in errors if isinstance(error, ServiceError)]
        if refusals:
            current = [
                refuse(job, error) if isinstance(error, ServiceError) else job
                for job, error in zip(current, errors, strict=True)
            ]
            if all(job.record.status is JobStatus.FAILED for job in current):
                if batch_id is not None:
                    await self._forget(batch_id, current)
                raise refusals[-1]
            await self._write([job for job, error in zip(current, errors, strict=True) if error])
        await self.confirm([job.job_id for job in current], batch_id)
        has_waiting = any(not job.record.status.is_final for job in current)
        return Accepted(current, lacks_worker and has_waiting, refusals[-1] if refusals else None)

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
        lacks_worker = any(found.is_known and not found.has_worker for found in lookups if not found.cached)
        return list(current.values()), lacks_worker

    async def _write(self, jobs: Sequence[NewJob], batch_id: UUID | None = None) -> list[Exception | None]:
        """Record the jobs that have ended and queue the others, all or none; return why a job was not queued."""
        calls = [self._call(job) for job in jobs]
        if batch_id is None and len(calls) == 1:
            answers = [await run_script(self._redis, calls[0])]
        else:
            async with self._redis.pipeline(transaction=True) as pipeline:
                if batch_id is not None:
                    batch = BatchRecord(owner=jobs[0].record.owner, job_ids=tuple(job.job_id for job in jobs))
                    write_batch(pipeline, batch_id, batch)
                for call in calls:
                    write_script(pipeline, call)
                async with reaching_redis():
                    answers = (await pipeline.execute())[-len(calls) :]
        return [_note(job, answer) for job, answer in zip(jobs, answers, strict=True)]

    def _call(self, job: NewJob) -> ScriptCall:
        if job.record.status.is_final:
            return job_scripts.add_ended(str(job.job_id), job.record)
        return self._queue_of(job.record.model).call(job)

    async def _forget(self, batch_id: UUID, jobs: Sequence[NewJob]) -> None:
        """Delete a batch and its refused jobs."""
        job_ids = [str(job.job_id) for job in jobs]
        async with reaching_redis(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(keys.batch(str(batch_id)), *map(keys.job, job_ids), *map(keys.delivery, job_ids))
            pipeline.zrem(keys.DELIVERIES, *job_ids)
            await pipeline.execute()


async def _gather(lookups: Sequence[Coroutine[Any, Any, Lookup]]) -> Sequence[Lookup]:
    # A task for the only lookup of a single image would cost 11 microseconds.
    return [await lookups[0]] if len(lookups) == 1 else await asyncio.gather(*lookups)


def _note(job: NewJob, answer: Any) -> Exception | None:
    """Count and log what Redis made of a job; return the error if it made nothing of it."""
    record = job.record
    fields = {"job_id": str(job.job_id), "image_hash": record.image_hash, "image_bytes": len(job.image)}
    if record.error is not None:
        labeled(SUBMISSIONS, "refused").inc()
        log.info("image_refused", job_id=str(job.job_id), code=record.error.code)
    elif record.status.is_final:
        labeled(SUBMISSIONS, "cached").inc()
        log.info("result_found", **fields)
    else:
        try:
            leader = read_answer(answer)
        except (ResultCached, QueueFull, TooManyDeliveries) as error:
            return error
        labeled(SUBMISSIONS, "coalesced" if leader else "queued").inc()
        log.info("job_enqueued", **fields, **({"follows": str(leader)} if leader else {}))
    return None
