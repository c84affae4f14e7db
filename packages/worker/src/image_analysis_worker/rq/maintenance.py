"""What a worker does every few seconds: register, send heartbeats, and requeue the jobs of dead workers."""

from typing import cast

import structlog
from pydantic import ValidationError
from redis.client import Pipeline
from rq.job import Job as RqJob
from rq.job import JobStatus as RqStatus
from rq.suspension import WORKERS_SUSPENDED
from rq.worker_registration import clean_worker_registry, register, unregister

from image_analysis_common import keys
from image_analysis_common.models import ModelAnnouncement
from image_analysis_common.scripts.queues import requeue_popped
from image_analysis_common.startup import StartupError
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
        model_id = self._announcement.model.id
        # If two workers start at once, one sees the other: the transaction is repeated if a key changes meanwhile.
        self._redis.transaction(self._join, keys.announcement(model_id), keys.workers(model_id))
        # RQ refuses a name that is registered, as this worker's is if an earlier call failed later. Names are random.
        self._redis.delete(self._batch_worker.key)
        self._batch_worker.register_birth()  # type: ignore[no-untyped-call]
        self.beat()

    def _join(self, pipeline: Pipeline) -> None:
        """Announce the model, unless live workers serve other labels under its name."""
        model_id = self._announcement.model.id
        now_s, _ = self._redis.time()
        live = pipeline.zcount(keys.workers(model_id), now_s - keys.WORKER_TTL_S, "+inf")
        labels = _read_labels(pipeline.get(keys.announcement(model_id))) if live else None
        if labels is not None and labels != set(self._announcement.labels):
            raise StartupError(
                f"Live workers serve a model called {model_id} with other labels: "
                "give this one another name with MODEL_NAME, or stop them first."
            )
        pipeline.multi()
        self._announce(pipeline, now_s)

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
        with self._redis.pipeline() as pipeline:
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
            *_, is_suspended = pipeline.execute()
        batch_worker.is_suspended = bool(is_suspended)

    def close(self) -> None:
        """Unregister the worker at once."""
        with self._redis.pipeline() as pipeline:
            unregister(self._batch_worker, pipeline)
            pipeline.delete(self._batch_worker.key, self._batch_worker.executions_key)
            pipeline.zrem(keys.workers(self._announcement.model.id), self._batch_worker.name)
            pipeline.execute()

    def sweep(self) -> None:
        """Requeue the jobs of dead workers; one worker does it for all.

        RQ's own lock for this stays for 15 minutes if its worker dies.
        """
        queue = self._batch_worker.queues[0]
        if not self._redis.set(keys.sweep(queue.name), self._batch_worker.name, nx=True, px=SWEEP_LOCK_MS):
            return
        for registry in (queue.finished_job_registry, queue.failed_job_registry):
            registry.cleanup()
        self._sweep_started()
        clean_worker_registry(queue)
        self._sweep_intermediate()

    def _sweep_started(self) -> None:
        """Requeue the jobs whose execution has expired.

        RQ's own code decides from an earlier read, so it would bring back a job that was ended and deleted meanwhile.
        """
        batch_worker, key = self._batch_worker, self._batch_worker.started_registry.key
        now_s, _ = self._redis.time()
        if not (expired := self._redis.zrangebyscore(key, 0, now_s)):
            return
        executions = [execution.decode() for execution in cast(list[bytes], expired)]
        jobs = zip(RqJob.fetch_many(executions, self._redis, batch_worker.serializer), executions, strict=True)
        # A job in any other status has ended or is queued; only its old execution is left.
        lost = [
            (job, execution) for job, execution in jobs if job and job.get_status(refresh=False) == RqStatus.STARTED
        ]
        for (job, _), status in zip(lost, batch_worker.abandon(lost, executions), strict=True):
            if status:
                log.warning(
                    "job_abandoned",
                    job_id=job.id,
                    worker=job.worker_name,
                    attempts_left=max(job.retries_left or 0, 1) - 1,
                )

    def _sweep_intermediate(self) -> None:
        """Requeue jobs that were popped but never started; a live worker starts them within milliseconds.

        RQ waits a minute for this, and counts an attempt although nothing was started.
        """
        call = requeue_popped(self._batch_worker.queues[0].name, after_s=keys.HEARTBEAT_INTERVAL_S - 1)
        found = self._redis.eval(call.script.text, *call.words)
        for job_id in cast(list[bytes], found):
            log.warning("job_requeued", job_id=job_id.decode())


def _read_labels(announced: bytes | str | None) -> set[str] | None:
    """Return the labels of an announcement; None if there is none or another release wrote it in an unknown form."""
    try:
        return set(ModelAnnouncement.model_validate_json(announced or b"").labels)
    except ValidationError:
        return None
