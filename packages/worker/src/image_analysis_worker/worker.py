"""The worker's side of RQ: a SimpleWorker that is missed soon after it dies, and records in line with RQ's verdicts."""

import logging
import os
import socket
from datetime import timedelta
from types import TracebackType
from typing import Any
from uuid import uuid4

import structlog
from redis import Redis
from redis.client import Pipeline
from rq import Queue, SimpleWorker
from rq.exceptions import AbandonedJobError
from rq.executions import Execution
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.timeouts import JobTimeoutException
from rq.utils import now
from rq.worker_registration import register

from image_analysis_common import keys, tasks
from image_analysis_common.errors import JobError, JobTimeout, ServiceError, WorkerLost
from image_analysis_common.models import JobFailure
from image_analysis_worker.tasks import load_analyzer

log = structlog.get_logger(__name__)


class ImageIntermediateQueue(IntermediateQueue):
    """Where a job is between pop and start: milliseconds, unless its worker died there; RQ would wait a minute."""

    def should_be_cleaned_up(self, job_id: str) -> bool:
        first_seen = self.get_first_seen(job_id)
        return first_seen is not None and now() - first_seen > timedelta(seconds=keys.HEARTBEAT_INTERVAL_S)

    def remove(self, job_id: str) -> None:
        super().remove(job_id)
        self.connection.delete(self.get_first_seen_key(job_id))


class ImageQueue(Queue):
    """A model's queue, from which a dead worker's job comes back soon."""

    @property
    def intermediate_queue(self) -> IntermediateQueue:
        return ImageIntermediateQueue(self.key, connection=self.connection)


class ImageWorker(SimpleWorker):
    """Runs jobs in its own process, beside the loaded model.

    RQ's default worker forks for each job: 16-28 ms instead of 3-5 ms, and torch does not survive a fork. SimpleWorker
    lacks a heartbeat during a job: without one, the job of a killed worker comes back after its whole timeout.
    """

    def __init__(self, model_id: str, connection: Redis) -> None:
        # At INFO, RQ tells of every job in four lines and of every sweep in two; ours say it in one.
        logging.getLogger("rq.worker").setLevel(max(logging.WARNING, logging.getLogger().level))
        super().__init__(
            [ImageQueue(tasks.queue_name(model_id), connection=connection, serializer=tasks.SERIALIZER)],
            name=f"{socket.gethostname()}.{os.getpid()}.{uuid4().hex[:6]}",
            connection=connection,
            serializer=tasks.SERIALIZER,
            maintenance_interval=keys.HEARTBEAT_INTERVAL_S,
            worker_ttl=keys.WORKER_TTL_S,
        )

    @property
    def dequeue_timeout(self) -> int:
        """Seconds after which waiting for a job is interrupted, to look after the jobs of dead workers."""
        return keys.HEARTBEAT_INTERVAL_S

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        return keys.WORKER_TTL_S

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        super().heartbeat(keys.WORKER_TTL_S, pipeline)

    def beat(self) -> None:
        """Tell RQ that the worker and its job are alive; called from the heartbeat's thread."""
        with self.connection.pipeline() as pipeline:
            self.heartbeat(pipeline=pipeline)
            # After an outage the worker may have been taken for dead and struck off.
            pipeline.hset(self.key, mapping=self.serialize())
            register(self, pipeline)
            for execution in list(self.executions.values()):
                execution.heartbeat(execution.job.started_job_registry, keys.WORKER_TTL_S, pipeline)
            pipeline.execute()

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        with structlog.contextvars.bound_contextvars(job_id=job.id, request_id=job.meta.get("request_id", "")):
            return super().perform_job(job, queue, execution)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Keep tracebacks for what is our fault; a job that cannot succeed is an event like others."""
        if not isinstance(exc_info[1], JobError):
            super().handle_exception(job, *exc_info)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: StartedJobRegistry | None = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """Fail or retry a job; one that RQ gives up between pop and start gets no failure callback."""
        if execution is None:
            record_failure(job, self.connection, AbandonedJobError, AbandonedJobError(), None)
        super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)


def record_failure(
    job: Job, _connection: Redis, _kind: type[BaseException], error: BaseException, _trace: TracebackType | None
) -> None:
    """Bring a job's record in line with what RQ is about to do: another attempt, or FAILED with a code.

    RQ's failure callback. An error that would come again uses up the job's attempts.
    """
    match error:
        case JobError():
            failure: ServiceError = error
        case JobTimeoutException():
            failure = JobTimeout(f"The image took longer than {tasks.JOB_TIMEOUT_S} s: send a smaller one.")
        case _ if job.should_retry:
            load_analyzer().records.retry(job.id)
            log.warning("job_retried", job_id=job.id, cause=repr(error))
            return
        case AbandonedJobError():
            failure = WorkerLost(f"{tasks.MAX_ATTEMPTS} workers died over this image: try another one.")
        case _:
            failure = ServiceError("The analysis broke, and not because of the image: report it with the job ID.")
    job.retries_left = 0
    load_analyzer().records.fail(job.id, JobFailure(code=failure.code, detail=failure.detail))
    log.warning("job_failed", job_id=job.id, code=failure.code, cause=repr(error.__cause__ or error))
