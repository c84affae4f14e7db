"""RQ's books, kept for whole batches: every job stays an ordinary RQ job, a batch costs a handful of round trips.

RQ's own workers handle one job at a time, some twenty round trips each. The steps here are RQ's, written by RQ's own
classes into shared pipelines.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta

import structlog
from redis import Redis
from redis.client import Pipeline
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job
from rq.job import JobStatus as RqStatus
from rq.queue import Queue
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from image_analysis_common import keys, tasks
from image_analysis_common.errors import ImageExpired, JobCancelled, WorkerLost
from image_analysis_common.models import AnalysisResult, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.books.cancelled import Cancellations
from image_analysis_worker.hand import Work
from image_analysis_worker.metrics import STAGES
from image_analysis_worker.name import make_worker_name
from image_analysis_worker.outcomes import describe, log_end
from image_analysis_worker.records import Records

log = structlog.get_logger(__name__)


class Books(BaseWorker):
    """One worker in RQ's books, and the jobs that it has in hand.

    Every method makes one or two round trips and raises RedisError when Redis is away; all can be called again.
    """

    def __init__(self, model: str, connection: Redis, records: Records) -> None:
        # At INFO, RQ tells of every job in four lines and of every sweep in two; ours say it in one.
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
        self._cancellations = Cancellations(queue)
        self.records = records
        self.is_suspended = False
        """Whether an operator holds all workers with `rq suspend`; read with every heartbeat."""

    def _set_connection(self, connection: Redis) -> Redis:
        # RQ would raise the client's time limit to 11 s: longer than a worker may be silent.
        return connection

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        super().heartbeat(keys.WORKER_TTL_S, pipeline)

    def take(self, limit: int, *, wait_s: int, is_alone: bool) -> tuple[list[Work], bool]:
        """Take up to `limit` jobs, waiting up to `wait_s` for the first.

        A job whose last attempt ended with its worker is taken only if it `is_alone` in hand, and then by itself: what
        kills a worker must not use up its neighbors' attempts. The second value tells that such a job comes next.
        """
        if not (job_ids := self._pop(limit, wait_s)):
            return [], False
        return self._fetch(job_ids, is_alone=is_alone)

    @STAGES.spend("fetch")
    def _fetch(self, job_ids: list[str], *, is_alone: bool) -> tuple[list[Work], bool]:
        with self.connection.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hgetall(Job.key_for(job_id))
                pipeline.hgetall(keys.job(job_id))
                pipeline.get(keys.image(job_id))
                pipeline.scard(keys.followers(job_id))
            answers = iter(pipeline.execute())
        found = [self._find(job_id, *parts) for job_id, *parts in zip(job_ids, *[answers] * 4, strict=True)]
        first_suspect = next((n for n, entry in enumerate(found) if entry and entry[1].is_suspect), len(found))
        taken = found[:1] if first_suspect == 0 and is_alone else found[:first_suspect]
        works = self._begin([entry for entry in taken if entry], job_ids, put_back=job_ids[len(taken) :])
        return works, first_suspect < len(found)

    def _pop(self, limit: int, wait_s: int) -> list[str]:
        """Move jobs from the queue to the intermediate list; wait for one only where there is none."""
        source, target = self._queue.key, self._queue.intermediate_queue_key
        with self.connection.pipeline(transaction=False) as pipeline:
            for _ in range(limit):
                pipeline.lmove(source, target, "LEFT", "RIGHT")
            popped = [job_id for job_id in pipeline.execute() if job_id]
        if not popped and (first := self.connection.blmove(source, target, wait_s, "LEFT", "RIGHT")):
            popped = [first]
        return [job_id.decode() for job_id in popped]

    def _find(
        self,
        job_id: str,
        rq_fields: dict[bytes, bytes],
        fields: dict[bytes, bytes],
        image: bytes | None,
        followers: int,
    ) -> tuple[Job, Work] | None:
        """Put together what is known of a popped job; None for one that has expired."""
        if not rq_fields or not fields:
            return None
        job = Job(job_id, connection=self.connection, serializer=self.serializer)
        try:
            job.restore(rq_fields)
            record = JobRecord.from_hash(fields)
        except (KeyError, ValueError, NoSuchJobError):
            # Not written by this service, or by a release that it cannot read: it must not stop the others.
            log.exception("job_unreadable", job_id=job_id)
            return None
        attempts_left = job.retries_left if job.retries_left is not None else tasks.MAX_ATTEMPTS
        is_cancelled = record.status is JobStatus.CANCELLED or b"cancelled" in fields
        has_ended = record.status.is_final and not is_cancelled
        work = Work(
            job_id,
            request_id=str(job.meta.get("request_id", "")),
            traceparent=str(job.meta.get("traceparent", "")),
            record=record,
            image=image or b"",
            attempts_left=attempts_left,
            is_suspect=attempts_left < tasks.MAX_ATTEMPTS and not has_ended,
        )
        if is_cancelled and not followers:
            work.end(JobCancelled("It was cancelled before it began."))
        elif record.result is not None:
            work.end(record.result)
        elif has_ended or image is None:
            work.end(ImageExpired("The image waited longer than it is kept: submit it again."))
        elif attempts_left < 1:
            work.end(WorkerLost(f"{tasks.MAX_ATTEMPTS} workers ended over this image: try another one."))
        return job, work

    def _begin(
        self, taken: Sequence[tuple[Job, Work]], popped: Sequence[str], *, put_back: Sequence[str]
    ) -> list[Work]:
        """Start jobs, and return them; those whose end is known already get it here, without a start to be lost in."""
        begun = []
        with self.connection.pipeline() as pipeline:
            for job_id in popped:
                pipeline.lrem(self._queue.intermediate_queue_key, 1, job_id)
                pipeline.delete(self._queue.intermediate_queue.get_first_seen_key(job_id))
            for job_id in reversed(put_back):
                pipeline.lpush(self._queue.key, job_id)
            for job, work in taken:
                if work.has_ended:
                    self._end(pipeline, work, job, None)
                    continue
                execution = Execution.create(job, keys.WORKER_TTL_S, pipeline, worker_name=self.name)
                job.prepare_for_execution(self.name, pipeline)
                pipeline.expire(job.key, keys.WAITING_JOB_TTL_S)
                self.records.begin(pipeline, work.job_id)
                work.entry = job, execution
                begun.append(work)
            self._note_state(pipeline, is_busy=bool(self.executions or begun))
            pipeline.execute()
        self.executions.update({execution.id: execution for _, execution in (work.entry for work in begun)})
        for _, work in taken:
            if work.has_ended:
                log_end(work)
        return begun

    @STAGES.spend("store")
    def finish(self, works: Sequence[Work]) -> None:
        """Write how jobs have ended: into their records, the cache and RQ's books, all in one transaction."""
        with self.connection.pipeline() as pipeline:
            for work in works:
                job, execution = work.entry
                self._end(pipeline, work, job, execution)
                execution.delete(job=job, pipeline=pipeline)
                self.increment_total_working_time(timedelta(milliseconds=work.processing_time_ms), pipeline)
            self._note_state(pipeline, is_busy=len(works) < len(self.executions))
            pipeline.execute()
        self._forget(works)

    def _end(self, pipeline: Pipeline, work: Work, job: Job, execution: Execution | None) -> None:
        job.ended_at = now()
        if work.result is not None:
            self._complete(pipeline, work, work.result, job, execution)
        elif work.can_be_retried:
            job.retries_left = work.attempts_left
            job.retry(self._queue, pipeline)
            self.records.retry(pipeline, work.job_id)
        else:
            self._fail(pipeline, work, job, execution)

    def _complete(
        self, pipeline: Pipeline, work: Work, result: AnalysisResult, job: Job, execution: Execution | None
    ) -> None:
        self.records.complete(pipeline, work.job_id, work.record, result, work.processing_time_ms)
        job._result = result.model_dump()
        job._handle_success(
            keys.FINISHED_JOB_TTL_S,
            pipeline,
            worker_name=self.name,
            execution_id=execution.id if execution else None,
            execution_started_at=execution.created_at if execution else None,
            execution_ended_at=job.ended_at,
        )
        job.cleanup(keys.FINISHED_JOB_TTL_S, pipeline, remove_from_queue=False)
        self.increment_successful_job_count(pipeline)
        self._cancellations.note(pipeline, job)

    def _fail(self, pipeline: Pipeline, work: Work, job: Job, execution: Execution | None) -> None:
        failure = describe(work.failure)
        self.records.fail(pipeline, work.job_id, work.record, failure)
        job.set_status(RqStatus.FAILED, pipeline)
        job._handle_failure(
            f"{failure.code}: {failure.detail}",
            pipeline,
            worker_name=self.name,
            execution_id=execution.id if execution else None,
            execution_started_at=execution.created_at if execution else None,
            execution_ended_at=job.ended_at,
        )
        self.increment_failed_job_count(pipeline)
        self._cancellations.note(pipeline, job)

    def give_back(self, works: Sequence[Work]) -> None:
        """Put jobs back to the front of the queue, in their order; no attempt is used up."""
        with self.connection.pipeline() as pipeline:
            for work in reversed(works):
                job, execution = work.entry
                execution.delete(job=job, pipeline=pipeline)
                job.set_status(RqStatus.QUEUED, pipeline)
                self._queue.push_job_id(job.id, pipeline, at_front=True)
                self.records.retry(pipeline, work.job_id)
            pipeline.execute()
        self._forget(works)

    def _note_state(self, pipeline: Pipeline, *, is_busy: bool) -> None:
        self.set_state(WorkerStatus.BUSY if is_busy else WorkerStatus.IDLE, pipeline)
        # After an outage the worker's hash may have expired, and what is written anew would stay for ever.
        pipeline.expire(self.key, keys.WORKER_TTL_S)

    def _forget(self, works: Sequence[Work]) -> None:
        for work in works:
            _, execution = work.entry
            self.executions.pop(execution.id, None)
