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
from rq.job import Job
from rq.queue import Queue
from rq.worker import BaseWorker, WorkerStatus

from image_analysis_common import keys, tasks
from image_analysis_common.errors import UnreadableRecord
from image_analysis_common.job_errors import ImageExpired, WorkerLost
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.jobs.in_flight import Work
from image_analysis_worker.jobs.outcomes import describe, note_end
from image_analysis_worker.jobs.records import Records, read_step
from image_analysis_worker.metrics import STAGES
from image_analysis_worker.name import make_worker_name
from image_analysis_worker.rq.entries import Entries

log = structlog.get_logger(__name__)


class BatchWorker(BaseWorker):
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
        self.entries = Entries(queue, self)
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
            answers = iter(pipeline.execute())
        found, readable = [], []
        for job_id, *parts in zip(job_ids, *[answers] * 3, strict=True):
            try:
                found.append(self._find(job_id, *parts))
                readable.append(job_id)
            except UnreadableRecord as error:
                # It stays in the intermediate list, from where the sweep requeues it within seconds.
                log.warning("record_unreadable", job_id=job_id, cause=repr(error.__cause__))
        works = [work for work in found if work]
        first_suspect = next((n for n, work in enumerate(works) if work.is_suspect), len(works))
        count = 1 if first_suspect == 0 and is_alone else first_suspect
        return self._begin(readable, works[:count], put_back=works[count:]), first_suspect < len(works)

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
        self, job_id: str, rq_fields: dict[bytes, bytes], fields: dict[bytes, bytes], image: bytes | None
    ) -> Work | None:
        """Put together what is known of a popped job; None for one that has expired.

        Only what nobody else can change is decided here: its image is gone, its attempts are used up, its end is
        written already. Whether anybody still wants the run, the script that begins it decides.

        Raises:
            UnreadableRecord: another release of the service, or of RQ, wrote it.
        """
        if not rq_fields or not fields:
            return None
        job, record = Job(job_id, connection=self.connection, serializer=self.serializer), JobRecord.from_hash(fields)
        try:
            job.restore(rq_fields)
        except (KeyError, ValueError, NoSuchJobError) as error:
            raise UnreadableRecord from error
        attempts_left = job.retries_left if job.retries_left is not None else tasks.MAX_ATTEMPTS
        has_ended = record.status in (JobStatus.COMPLETED, JobStatus.FAILED)
        work = Work(
            job_id,
            request_id=str(job.meta.get("request_id", "")),
            traceparent=str(job.meta.get("traceparent", "")),
            record=record,
            image=image or b"",
            attempts_left=attempts_left,
            is_suspect=attempts_left < tasks.MAX_ATTEMPTS and not has_ended,
            entry=(job, None),
        )
        if record.result is not None:
            work.end(record.result)
        elif has_ended or image is None:
            work.end(ImageExpired())
        elif attempts_left < 1:
            work.end(WorkerLost(attempts=tasks.MAX_ATTEMPTS))
        return work

    def _begin(self, popped: Sequence[str], taken: Sequence[Work], *, put_back: Sequence[Work]) -> list[Work]:
        """Start jobs, and return them; those whose end is known already get it here, without a start to be lost in."""
        expired = {*popped} - {work.job_id for work in (*taken, *put_back)}
        with self.connection.pipeline() as pipeline:
            for work in taken:
                job, _ = work.entry
                if work.has_ended:
                    self._end(pipeline, work)
                    continue
                execution, step = self.entries.start(job)
                work.entry = job, execution
                self.records.begin(pipeline, work.job_id, work.record, step)
            for work in reversed(put_back):
                job, _ = work.entry
                self.records.retry(pipeline, work.job_id, work.record, self.entries.put_back(job))
            for job_id in expired:
                pipeline.lrem(self._queue.intermediate_queue_key, 1, job_id)
            for job_id in popped:
                pipeline.delete(self._queue.intermediate_queue.get_first_seen_key(job_id))
            self._note_state(pipeline, is_busy=bool(self.executions) or not all(work.has_ended for work in taken))
            statuses = [read_step(answer) for answer in pipeline.execute()[: len(taken) + len(put_back)]]
        steps = list(zip([*taken, *reversed(put_back)], statuses, strict=True))
        begun = [work for work, status in steps if status is JobStatus.PROCESSING]
        self.executions.update({execution.id: execution for _, execution in (work.entry for work in begun)})
        if not self.executions:
            # Nobody wanted what was to begin.
            with self.connection.pipeline() as pipeline:
                self._note_state(pipeline, is_busy=False)
                pipeline.execute()
        for work, status in steps:
            if status not in (JobStatus.PROCESSING, JobStatus.PENDING):
                note_end(work, status)
        return begun

    def finish(self, works: Sequence[Work]) -> None:
        """Write how jobs have ended into their records, the cache and RQ's books, and note each end that was written.

        A job that is another worker's by now is left to that one.
        """
        statuses = self._finish(works)
        self._forget(works)
        for work, status in zip(works, statuses, strict=True):
            note_end(work, status)

    @STAGES.spend("store")
    def _finish(self, works: Sequence[Work]) -> list[JobStatus | None]:
        with self.connection.pipeline() as pipeline:
            for work in works:
                self._end(pipeline, work)
            for work in works:
                job, execution = work.entry
                execution.delete(job=job, pipeline=pipeline)
                self.increment_total_working_time(timedelta(milliseconds=work.processing_time_ms), pipeline)
            self._note_state(pipeline, is_busy=len(works) < len(self.executions))
            return [read_step(answer) for answer in pipeline.execute()[: len(works)]]

    def _end(self, pipeline: Pipeline, work: Work) -> None:
        job, execution = work.entry
        if work.result is not None:
            step = self.entries.complete(job, execution, work.result)
            self.records.complete(pipeline, work.job_id, work.record, work.result, work.processing_time_ms, step)
        elif work.can_be_retried:
            step = self.entries.retry(job, execution, work.attempts_left)
            self.records.retry(pipeline, work.job_id, work.record, step)
        else:
            failure = work.record.error or describe(work.failure)
            step = self.entries.fail(job, execution, failure)
            self.records.fail(pipeline, work.job_id, work.record, failure, step)

    def give_back(self, works: Sequence[Work]) -> None:
        """Put jobs back to the front of the queue, in their order; no attempt is used up."""
        with self.connection.pipeline() as pipeline:
            for work in reversed(works):
                self.records.retry(pipeline, work.job_id, work.record, self.entries.give_back(*work.entry))
            for work in works:
                job, execution = work.entry
                execution.delete(job=job, pipeline=pipeline)
            statuses = [read_step(answer) for answer in pipeline.execute()[: len(works)]]
        self._forget(works)
        for work, status in zip(reversed(works), statuses, strict=True):
            if status is JobStatus.CANCELLED:
                note_end(work, status)

    def _note_state(self, pipeline: Pipeline, *, is_busy: bool) -> None:
        self.set_state(WorkerStatus.BUSY if is_busy else WorkerStatus.IDLE, pipeline)
        # After an outage the worker's hash may have expired, and what is written anew would stay for ever.
        pipeline.expire(self.key, keys.WORKER_TTL_S)

    def _forget(self, works: Sequence[Work]) -> None:
        for work in works:
            _, execution = work.entry
            self.executions.pop(execution.id, None)
