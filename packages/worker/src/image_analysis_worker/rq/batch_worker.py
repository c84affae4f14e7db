"""An RQ worker for whole batches: every job stays an ordinary RQ job, and a batch costs a handful of round trips.

RQ's own workers handle one job at a time, with some twenty round trips each. The steps here are RQ's, written by RQ's
own classes into shared pipelines.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta

import structlog
from redis import Redis
from redis.client import Pipeline
from rq.exceptions import NoSuchJobError
from rq.job import Job as RqJob
from rq.queue import Queue
from rq.worker import BaseWorker, WorkerStatus

from image_analysis_common import keys, tasks
from image_analysis_common.errors import UnreadableRecord
from image_analysis_common.job_errors import ImageExpired, WorkerLost
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.jobs.in_flight import Job
from image_analysis_worker.jobs.outcomes import describe, report_end
from image_analysis_worker.jobs.records import Records, read_step
from image_analysis_worker.metrics import STAGES
from image_analysis_worker.name import make_worker_name
from image_analysis_worker.rq.steps import RqSteps

log = structlog.get_logger(__name__)


class BatchWorker(BaseWorker):
    """One worker as RQ knows it, and the jobs that it runs.

    Every method makes one or two round trips and raises RedisError if Redis does not answer; all can be called again.
    """

    def __init__(self, model: str, connection: Redis, records: Records) -> None:
        # At INFO, RQ logs four lines for every job and two for every sweep; we log one each.
        logging.getLogger("rq").setLevel(max(logging.WARNING, logging.getLogger().level))
        queue = Queue(tasks.queue_name(model), connection=connection, serializer=tasks.SERIALIZER)
        super().__init__(
            [queue],
            name=make_worker_name(),
            connection=connection,
            serializer=tasks.SERIALIZER,
            worker_ttl=keys.WORKER_TTL_S,
        )
        self._queue = queue
        self.steps = RqSteps(queue, self)
        self.records = records
        self.is_suspended = False
        """Whether an operator paused all workers with `rq suspend`; read with every heartbeat."""

    def _set_connection(self, connection: Redis) -> Redis:
        # RQ would raise the client's timeout to 11 s: longer than a worker may be silent.
        return connection

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        super().heartbeat(keys.WORKER_TTL_S, pipeline)

    def take(self, limit: int, *, wait_s: int, is_alone: bool) -> tuple[list[Job], bool]:
        """Dequeue and start up to `limit` jobs, waiting up to `wait_s` for the first.

        A suspect job, one whose worker died on an earlier attempt, is taken only by itself, and only if no other job is
        in flight (`is_alone`): a job that kills its worker must not use up the attempts of others. The second value is
        True if a suspect job comes next.
        """
        if not (job_ids := self._pop(limit, wait_s)):
            return [], False
        return self._fetch(job_ids, is_alone=is_alone)

    @STAGES.measure("fetch")
    def _fetch(self, job_ids: list[str], *, is_alone: bool) -> tuple[list[Job], bool]:
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hgetall(RqJob.key_for(job_id))
                pipeline.hgetall(keys.job(job_id))
                pipeline.get(keys.image(job_id))
            answers = iter(pipeline.execute())
        found, readable = [], []
        for job_id, *parts in zip(job_ids, *[answers] * 3, strict=True):
            try:
                found.append(self._find(job_id, *parts))
                readable.append(job_id)
            except UnreadableRecord as error:
                # It stays in the intermediate list. The sweep requeues it from there within seconds.
                log.warning("record_unreadable", job_id=job_id, cause=repr(error.__cause__))
        jobs = [job for job in found if job]
        first_suspect = next((n for n, job in enumerate(jobs) if job.is_suspect), len(jobs))
        count = 1 if first_suspect == 0 and is_alone else first_suspect
        return self._begin(readable, jobs[:count], put_back=jobs[count:]), first_suspect < len(jobs)

    def _pop(self, limit: int, wait_s: int) -> list[str]:
        """Move jobs from the queue to the intermediate list; wait only if the queue is empty."""
        source, target = self._queue.key, self._queue.intermediate_queue_key
        with self.connection.pipeline(transaction=False) as pipeline:
            for _ in range(limit):
                pipeline.lmove(source, target, "LEFT", "RIGHT")
            popped = [job_id for job_id in pipeline.execute() if job_id]
        if not popped and (first := self.connection.blmove(source, target, wait_s, "LEFT", "RIGHT")):
            popped = [first]
        return [job_id.decode() for job_id in popped]

    def _find(
        self, job_id: str, rq_fields: dict[bytes, bytes], fields: dict[bytes, bytes], image: bytes | None
    ) -> Job | None:
        """Build a popped job from what Redis holds of it; None if it has expired.

        Only facts that cannot change any more are used here: its image is gone, its attempts are used up, it has ended.
        Whether it was cancelled is decided by the script that starts it.

        Raises:
            UnreadableRecord: another release of the service, or of RQ, wrote it.
        """
        if not rq_fields or not fields:
            return None
        rq_job, record = (
            RqJob(job_id, connection=self.connection, serializer=self.serializer),
            JobRecord.from_hash(fields),
        )
        try:
            rq_job.restore(rq_fields)
        except (KeyError, ValueError, NoSuchJobError) as error:
            raise UnreadableRecord from error
        attempts_left = rq_job.retries_left if rq_job.retries_left is not None else tasks.MAX_ATTEMPTS
        has_ended = record.status in (JobStatus.COMPLETED, JobStatus.FAILED)
        job = Job(
            job_id,
            request_id=str(rq_job.meta.get("request_id", "")),
            traceparent=str(rq_job.meta.get("traceparent", "")),
            record=record,
            image=image or b"",
            attempts_left=attempts_left,
            is_suspect=attempts_left < tasks.MAX_ATTEMPTS and not has_ended,
            rq_job=rq_job,
        )
        if record.result is not None:
            job.end(record.result)
        elif has_ended or image is None:
            job.end(ImageExpired())
        elif attempts_left < 1:
            job.end(WorkerLost(attempts=tasks.MAX_ATTEMPTS))
        return job

    def _begin(self, popped: Sequence[str], taken: Sequence[Job], *, put_back: Sequence[Job]) -> list[Job]:
        """Start popped jobs and return them. A job whose end is already known ends here, without being started."""
        expired = {*popped} - {job.job_id for job in (*taken, *put_back)}
        with self.connection.pipeline() as pipeline:
            for job in taken:
                if job.has_ended:
                    self._end(pipeline, job)
                    continue
                job.execution, step = self.steps.start(job.rq_job)
                self.records.begin(pipeline, job.job_id, job.record, step)
            for job in reversed(put_back):
                self.records.retry(pipeline, job.job_id, job.record, self.steps.put_back(job.rq_job))
            for job_id in expired:
                pipeline.lrem(self._queue.intermediate_queue_key, 1, job_id)
            for job_id in popped:
                pipeline.delete(self._queue.intermediate_queue.get_first_seen_key(job_id))
            self._write_state(pipeline, is_busy=bool(self.executions) or not all(job.has_ended for job in taken))
            statuses = [read_step(answer) for answer in pipeline.execute()[: len(taken) + len(put_back)]]
        steps = list(zip([*taken, *reversed(put_back)], statuses, strict=True))
        begun = [job for job, status in steps if status is JobStatus.PROCESSING]
        self.executions.update({job.execution.id: job.execution for job in begun})
        if not self.executions:
            # Every job that was to start had been cancelled.
            with self.connection.pipeline() as pipeline:
                self._write_state(pipeline, is_busy=False)
                pipeline.execute()
        for job, status in steps:
            if status not in (JobStatus.PROCESSING, JobStatus.PENDING):
                report_end(job, status)
        return begun

    def finish(self, jobs: Sequence[Job]) -> None:
        """Write the ends of jobs into their records, the cache and RQ's registries, and report those that were written.

        A job that another worker has taken over is skipped.
        """
        statuses = self._finish(jobs)
        self._forget(jobs)
        for job, status in zip(jobs, statuses, strict=True):
            report_end(job, status)

    @STAGES.measure("store")
    def _finish(self, jobs: Sequence[Job]) -> list[JobStatus | None]:
        with self.connection.pipeline() as pipeline:
            for job in jobs:
                self._end(pipeline, job)
            for job in jobs:
                job.execution.delete(job=job.rq_job, pipeline=pipeline)
                self.increment_total_working_time(timedelta(milliseconds=job.processing_time_ms), pipeline)
            self._write_state(pipeline, is_busy=len(jobs) < len(self.executions))
            return [read_step(answer) for answer in pipeline.execute()[: len(jobs)]]

    def _end(self, pipeline: Pipeline, job: Job) -> None:
        if job.result is not None:
            step = self.steps.complete(job.rq_job, job.execution, job.result)
            self.records.complete(pipeline, job.job_id, job.record, job.result, job.processing_time_ms, step)
        elif job.can_be_retried:
            step = self.steps.retry(job.rq_job, job.execution, job.attempts_left)
            self.records.retry(pipeline, job.job_id, job.record, step)
        else:
            failure = job.record.error or describe(job.failure)
            step = self.steps.fail(job.rq_job, job.execution, failure)
            self.records.fail(pipeline, job.job_id, job.record, failure, step)

    def give_back(self, jobs: Sequence[Job]) -> None:
        """Return started jobs to the front of the queue, in their order; no attempt is used up."""
        with self.connection.pipeline() as pipeline:
            for job in reversed(jobs):
                step = self.steps.give_back(job.rq_job, job.execution)
                self.records.retry(pipeline, job.job_id, job.record, step)
            for job in jobs:
                job.execution.delete(job=job.rq_job, pipeline=pipeline)
            statuses = [read_step(answer) for answer in pipeline.execute()[: len(jobs)]]
        self._forget(jobs)
        for job, status in zip(reversed(jobs), statuses, strict=True):
            if status is JobStatus.CANCELLED:
                report_end(job, status)

    def _write_state(self, pipeline: Pipeline, *, is_busy: bool) -> None:
        self.set_state(WorkerStatus.BUSY if is_busy else WorkerStatus.IDLE, pipeline)
        # After an outage the worker's hash may have expired; this write would create one without a TTL.
        pipeline.expire(self.key, keys.WORKER_TTL_S)

    def _forget(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.executions.pop(job.execution.id, None)
