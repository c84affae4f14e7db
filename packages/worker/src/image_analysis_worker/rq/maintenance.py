"""What a worker does every few seconds: register, send heartbeats, and requeue the jobs of dead workers."""

from contextlib import suppress
from typing import Any, cast

import structlog
from pydantic import ValidationError
from redis.client import Pipeline
from redis.exceptions import OutOfMemoryError
from rq.job import JobStatus as RqStatus
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import now, parse_composite_key
from rq.worker_registration import clean_worker_registry, register, unregister

from image_analysis_common import keys
from image_analysis_common.models import ModelAnnouncement
from image_analysis_common.rq_keys import JOB
from image_analysis_common.scripts.queues import join, requeue_popped, run_commands
from image_analysis_common.scripts.runs import Step
from image_analysis_common.startup import StartupError
from image_analysis_worker.rq import steps
from image_analysis_worker.rq.batch_worker import BatchWorker

SWEEP_LOCK_MS = 1000

log = structlog.get_logger(__name__)


class Maintenance:
    """The registration, the heartbeats and the sweeps of one worker."""

    def __init__(self, batch_worker: BatchWorker, announcement: ModelAnnouncement) -> None:
        self._batch_worker = batch_worker
        self._redis = batch_worker.connection
        self._announcement = announcement

    def open(self) -> None:
        """Register the worker with RQ and announce its model; can be called again after a `RedisError`.

        Raises:
            StartupError: live workers serve a model with other labels under the same name.
        """
        # If two workers start at once, one sees the other.
        while not self._join():
            pass
        self._batch_worker.birth_date = now()
        self.beat()

    def _join(self) -> bool:
        """Announce the model, unless live workers serve other labels under its name; return False to try again."""
        model_id = self._announcement.model.id
        now_s, _ = self._redis.time()
        known = cast(bytes, self._redis.get(keys.announcement(model_id)) or b"")
        live = self._redis.zcount(keys.workers(model_id), now_s - keys.WORKER_TTL_S, "+inf")
        labels = _read_labels(known) if live else None
        if labels is not None and labels != set(self._announcement.labels):
            raise StartupError(
                f"Live workers serve a model called {model_id} with other labels: "
                "give this one another name with MODEL_NAME, or stop them first."
            )
        with self._redis.pipeline(transaction=False) as pipeline:
            self._announce(pipeline, now_s)
            commands = [command for command, _ in pipeline.command_stack]
        call = join(model_id, known=known, live=live, commands=commands)
        return bool(self._redis.eval(call.script.text, *call.words))

    def _announce(self, pipeline: Pipeline, now_s: int) -> None:
        model_id = self._announcement.model.id
        pipeline.set(keys.announcement(model_id), self._announcement.model_dump_json(), ex=keys.ANNOUNCEMENT_TTL_S)
        pipeline.zadd(keys.workers(model_id), {self._batch_worker.name: now_s})
        pipeline.zremrangebyscore(keys.workers(model_id), 0, now_s - keys.WORKER_TTL_S)
        pipeline.expire(keys.workers(model_id), keys.ANNOUNCEMENT_TTL_S)

    def beat(self) -> None:
        """Send a heartbeat for the worker and for each job that it runs, on the server's clock."""
        batch_worker, model_id = self._batch_worker, self._announcement.model.id
        now_s, _ = self._redis.time()
        with self._redis.pipeline(transaction=False) as pipeline:
            batch_worker.heartbeat(pipeline=pipeline)
            # After an outage, other workers may have considered this one dead and removed it.
            pipeline.hset(batch_worker.key, mapping=batch_worker.serialize())
            register(batch_worker, pipeline)
            for execution in list(batch_worker.executions.values()):
                execution.heartbeat(batch_worker.started_registry, keys.WORKER_TTL_S, pipeline)
                # RQ uses this machine's clock, which may be wrong: the job would look abandoned, or never.
                expires = {execution.composite_key: now_s + keys.WORKER_TTL_S}
                pipeline.zadd(batch_worker.started_registry.key, expires, xx=True)
            self._announce(pipeline, now_s)
            pipeline.zadd(keys.MODELS, {model_id: now_s})
            pipeline.zremrangebyscore(keys.MODELS, 0, now_s - keys.ANNOUNCEMENT_TTL_S)
            pipeline.expire(keys.MODELS, keys.ANNOUNCEMENT_TTL_S)
            pipeline.exists(WORKERS_SUSPENDED)
            is_suspended = _send_as_script(pipeline)
        batch_worker.is_suspended = bool(is_suspended)

    def close(self) -> None:
        """Unregister the worker at once."""
        with self._redis.pipeline(transaction=False) as pipeline:
            unregister(self._batch_worker, pipeline)
            pipeline.delete(self._batch_worker.key, self._batch_worker.executions_key)
            pipeline.zrem(keys.workers(self._announcement.model.id), self._batch_worker.name)
            pipeline.execute()

    def sweep(self) -> None:
        """Requeue the jobs of dead workers; one worker does it for all.

        RQ's own lock for this stays for 15 minutes if its worker dies.
        """
        queue = self._batch_worker.queues[0]
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.set(keys.sweep(queue.name), self._batch_worker.name, nx=True, px=SWEEP_LOCK_MS)
            if not _send_as_script(pipeline):
                return
        now_s, _ = self._redis.time()
        for registry in (queue.finished_job_registry, queue.failed_job_registry):
            registry.cleanup(now_s)  # By itself, RQ uses this machine's clock, which may be wrong.
        self._sweep_started(now_s)
        self._sweep_intermediate()
        # RQ reads in a transaction, which a full Redis refuses. The names of dead workers can wait.
        with suppress(OutOfMemoryError):
            clean_worker_registry(queue)

    def _sweep_started(self, now_s: int) -> None:
        """Requeue the jobs whose execution has expired at `now_s`, on the server's clock.

        RQ's own code decides from an earlier read, so it would bring back a job that was ended and deleted meanwhile.
        """
        batch_worker, key = self._batch_worker, self._batch_worker.started_registry.key
        if not (expired := self._redis.zrangebyscore(key, 0, now_s)):
            return
        executions = [execution.decode() for execution in cast(list[bytes], expired)]
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id, _ in map(parse_composite_key, executions):
                pipeline.hmget(JOB + job_id, "status", "worker_name", "retries_left")
            found = pipeline.execute()
        lost, workers = list[Step](), list[str]()
        for execution, (status, worker, retries_left) in zip(executions, found, strict=True):
            # A job in any other status has ended or is queued; only its old execution is left.
            if status == RqStatus.STARTED.encode():
                job_id, execution_id = parse_composite_key(execution)
                abandoned = steps.abandon(execution_id, int(retries_left or 0))
                lost.append(batch_worker.records.retry(job_id, rq=abandoned))
                workers.append((worker or b"").decode())
        for step, worker, status in zip(lost, workers, batch_worker.abandon(lost, executions), strict=True):
            if status and step.rq:
                log.warning("job_abandoned", job_id=step.job_id, worker=worker, attempts_left=step.rq.value)

    def _sweep_intermediate(self) -> None:
        """Requeue jobs that were popped but never started; a live worker starts them within milliseconds.

        RQ waits a minute for this, and counts an attempt although nothing was started.
        """
        call = requeue_popped(self._batch_worker.queues[0].name, after_s=keys.HEARTBEAT_INTERVAL_S - 1)
        found = self._redis.eval(call.script.text, *call.words)
        for job_id in cast(list[bytes], found):
            log.warning("job_requeued", job_id=job_id.decode())


def _send_as_script(pipeline: Pipeline) -> Any:
    """Run the commands of a pipeline as one script, also if Redis is full; return the answer of the last one."""
    call = run_commands(command for command, _ in pipeline.command_stack)
    pipeline.reset()
    pipeline.eval(call.script.text, *call.words)
    return pipeline.execute()[0]


def _read_labels(announced: bytes) -> set[str] | None:
    """Return the labels of an announcement; None if there is none or another release wrote it in an unknown form."""
    try:
        return set(ModelAnnouncement.model_validate_json(announced).labels)
    except ValidationError:
        return None
