"""An RQ worker for whole batches: every job stays an ordinary RQ job, and a batch costs three round trips.

RQ's own workers handle one job at a time, with some twenty round trips each. The steps here are RQ's, and one script
takes a step of all jobs of a batch.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import uuid4

import structlog
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import OutOfMemoryError
from rq.executions import Execution
from rq.queue import Queue
from rq.utils import now, utcformat
from rq.worker import BaseWorker

from image_analysis_common import keys, tasks
from image_analysis_common.errors import UnreadableRecord
from image_analysis_common.job_errors import ImageExpired
from image_analysis_common.models import JobStatus
from image_analysis_common.rq_keys import FIRST_SEEN
from image_analysis_common.scripts.queues import pop
from image_analysis_common.scripts.runs import RqWorker, Step
from image_analysis_worker.classifiers.store import ClassifierStore
from image_analysis_worker.jobs.batching import Embedding, Job
from image_analysis_worker.jobs.classifying import find_classifiers
from image_analysis_worker.jobs.outcomes import describe, report_end
from image_analysis_worker.jobs.records import Records, read_steps
from image_analysis_worker.metrics import STAGES
from image_analysis_worker.name import make_worker_name
from image_analysis_worker.rq import steps
from image_analysis_worker.rq.popped import read_popped

POLL_FULL_S = 0.1
"""Time between two looks at the queue of a full Redis, which refuses BLMOVE, but not the script."""

log = structlog.get_logger(__name__)


class BatchWorker(BaseWorker):
    """One worker as RQ knows it, and the jobs that it runs.

    Every method makes one or two round trips and raises RedisError if Redis does not answer; all can be called again.
    Only `finish_with` takes a transaction: a full Redis refuses those, but not the scripts that write all else.
    """

    def __init__(self, model: str, connection: Redis, records: Records, *, embedding_field: str = "") -> None:
        """Make a worker; `embedding_field` is where the cache has this model's embeddings, '' if it has none."""
        # At INFO, RQ logs four lines for every job and two for every sweep; we log one each.
        logging.getLogger("rq").setLevel(max(logging.WARNING, logging.getLogger().level))
        self._queue = queue = Queue(tasks.queue_name(model), connection=connection, serializer=tasks.SERIALIZER)
        super().__init__(
            [queue],
            name=make_worker_name(),
            connection=connection,
            serializer=tasks.SERIALIZER,
            worker_ttl=keys.WORKER_TTL_S,
        )
        # RQ builds a new registry object, in 30 microseconds, at each access.
        self.started_registry = queue.started_job_registry
        self.records = records
        self.classifiers = ClassifierStore(connection)
        self._embedding_field = embedding_field
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
        found = self._pop(limit) or self._wait(wait_s)
        return self._start(found, is_alone=is_alone) if found else ([], False)

    @STAGES.measure("fetch")
    def _pop(self, limit: int, popped: Sequence[str] = ()) -> list[list[Any]]:
        """Move jobs from the queue to the intermediate list; return what Redis holds of them, and of those `popped`."""
        call = pop(self._queue.name, limit, popped)
        return cast(list[list[Any]], self.connection.eval(call.script.text, *call.words))

    def _wait(self, wait_s: int) -> list[list[Any]]:
        """Pop one job of an empty queue."""
        source, target = self._queue.key, self._queue.intermediate_queue_key
        try:
            first = cast(bytes | None, self.connection.blmove(source, target, wait_s, "LEFT", "RIGHT"))
        except OutOfMemoryError:
            time.sleep(POLL_FULL_S)
            return self._pop(1)
        return self._pop(0, [first.decode()]) if first else []

    @STAGES.measure("fetch")
    def _start(self, found: Sequence[Sequence[Any]], *, is_alone: bool) -> tuple[list[Job], bool]:
        jobs, expired = list[Job](), list[str]()
        for job_id, *parts in found:
            try:
                job = read_popped(job_id.decode(), *parts)
            except UnreadableRecord as error:
                # It stays in the intermediate list. The sweep requeues it from there within seconds.
                log.warning("record_unreadable", job_id=job_id.decode(), cause=repr(error.__cause__))
                continue
            if job is None:
                expired.append(job_id.decode())
            else:
                jobs.append(job)
        first_suspect = next((n for n, job in enumerate(jobs) if job.is_suspect), len(jobs))
        count = 1 if first_suspect == 0 and is_alone else first_suspect
        return self._begin(jobs[:count], put_back=jobs[count:], expired=expired), first_suspect < len(jobs)

    def _begin(self, taken: Sequence[Job], *, put_back: Sequence[Job], expired: Sequence[str]) -> list[Job]:
        """Start popped jobs and return them. A job whose end is already known ends here, without being started."""
        entries = list[tuple[Job, Step]]()
        find_classifiers(self.classifiers, taken)
        for job in taken:
            if job.has_ended:
                entries.append((job, self._end(job)))
                continue
            job.execution = Execution(uuid4().hex, job.job_id, self.connection, worker_name=self.name)
            entries.append((job, self.records.begin(job.job_id, job.record, steps.start(job.execution))))
        entries += [(job, self.records.retry(job.job_id, job.record, steps.PUT_BACK)) for job in reversed(put_back)]
        popped_key = self._queue.intermediate_queue_key
        asked = [job for job in taken if job.record.reads_embedding and self._embedding_field]
        with self.connection.pipeline(transaction=False) as pipeline:
            self._write(pipeline, [step for _, step in entries], others=len(self.executions))
            pipeline.mget([keys.image(job.job_id) for job in taken] or [""])  # MGET needs a key.
            for job in asked:
                pipeline.hget(keys.embedding(job.record.image_hash), self._embedding_field)
            for job_id in expired:
                pipeline.lrem(popped_key, 1, job_id)
                pipeline.delete(popped_key + FIRST_SEEN + job_id)
            answer, images, *rest = pipeline.execute()
        for job, image in zip(taken, images, strict=False):
            job.image = image or b""
        for job, values in zip(asked, rest, strict=False):
            job.embedding = Embedding(values, is_cached=True) if values else None
        begun = list[Job]()
        for (job, _), status in zip(entries, read_steps(answer), strict=True):
            if status is JobStatus.PROCESSING:
                begun.append(job)
                if not job.image:
                    job.end(ImageExpired())
            elif status is not JobStatus.PENDING:
                report_end(job, status)
        self.executions.update({job.execution.id: job.execution for job in begun})
        return begun

    def finish(self, jobs: Sequence[Job]) -> None:
        """Write the ends of jobs into their records, the cache and RQ's registries, and report those that were written.

        A job that another worker has taken over is skipped.
        """
        statuses = self._finish(jobs)
        self._forget(jobs)
        for job, status in zip(jobs, statuses, strict=True):
            report_end(job, status)

    def finish_with(self, job: Job, write: Callable[[Pipeline], None], watched: Sequence[str]) -> None:
        """Finish a job as `finish` does, and in the same transaction what `write` puts into it.

        `write` may read first, and begins the transaction. It is called again if one of the keys `watched` changes
        meanwhile, and not at all if the job was cancelled, has ended or was taken over: then only the end is written.
        """

        def take(pipeline: Pipeline) -> None:
            status, is_cancelled = pipeline.hmget(keys.job(job.job_id), "status", "cancelled")
            is_held = pipeline.zscore(self.started_registry.key, job.execution.composite_key) is not None
            is_wanted = is_held and status == JobStatus.PROCESSING.encode() and not is_cancelled
            write(pipeline) if is_wanted else pipeline.multi()
            others, working_s = max(len(self.executions) - 1, 0), job.processing_time_ms / 1000
            self._write(pipeline, [self._end(job)], others=others, working_s=working_s)

        answers: Any = self.connection.transaction(take, keys.job(job.job_id), *watched)
        self._forget([job])
        report_end(job, read_steps(answers[-1])[0])

    @STAGES.measure("store")
    def _finish(self, jobs: Sequence[Job]) -> list[JobStatus | None]:
        working_s, others = sum(job.processing_time_ms for job in jobs) / 1000, len(self.executions) - len(jobs)
        return self._step(list(map(self._end, jobs)), others=max(others, 0), working_s=working_s)

    def _end(self, job: Job) -> Step:
        if job.result is not None:
            step = steps.complete(job.execution, job.result)
            written = self.records.complete(
                job.job_id, job.record, job.result, job.processing_time_ms, step, job.embedding
            )
            return replace(written, cached=None, embedding=None) if job.has_newer_classifier else written
        if job.trained is not None:
            step = steps.complete(job.execution, job.trained)
            return self.records.complete_training(job.job_id, job.record, job.trained, job.processing_time_ms, step)
        if job.can_be_retried:
            return self.records.retry(job.job_id, job.record, steps.retry(job.execution, job.attempts_left))
        failure = job.record.error or describe(job.failure)
        return self.records.fail(job.job_id, job.record, failure, steps.fail(job.execution, failure))

    def give_back(self, jobs: Sequence[Job]) -> None:
        """Return started jobs to the front of the queue, in their order; no attempt is used up."""
        returned = list(reversed(jobs))
        statuses = self._step(
            [self.records.retry(job.job_id, job.record, steps.give_back(job.execution)) for job in returned]
        )
        self._forget(jobs)
        for job, status in zip(returned, statuses, strict=True):
            if status is JobStatus.CANCELLED:
                report_end(job, status)

    def abandon(self, lost: Sequence[Step], executions: Sequence[str]) -> list[JobStatus | None]:
        """Take the steps that requeue the jobs of a dead worker, and remove all expired `executions`."""
        statuses = self._step(lost)
        self.connection.zrem(self.started_registry.key, *executions)
        return statuses

    def _step(self, written: Sequence[Step], **counts: Any) -> list[JobStatus | None]:
        """Take steps; `counts` are those of `_write`."""
        with self.connection.pipeline(transaction=False) as pipeline:
            self._write(pipeline, written, **counts)
            return read_steps(pipeline.execute()[0])

    def _write(
        self, pipeline: Pipeline, written: Sequence[Step], *, others: int | str = "", working_s: float | str = ""
    ) -> None:
        moment = now()
        worker = RqWorker(
            key=self.key,
            name=self.name,
            queue=self._queue.name,
            now=utcformat(moment),
            now_s=moment.timestamp(),
            others=others,
            working_s=working_s,
        )
        self.records.write(pipeline, written, worker)

    def _forget(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.executions.pop(job.execution.id, None)
