"""Starts a worker: read the settings, configure logs, load the model, announce it, take jobs."""

import os
import signal
import sys
import threading
import time
from types import FrameType

import structlog
from redis.exceptions import RedisError

from image_analysis_common.exposition import serve_metrics
from image_analysis_common.logs import configure_logs
from image_analysis_common.startup import StartupError, refuse_arguments, refuse_to_start
from image_analysis_common.tasks import queue_name
from image_analysis_common.tracing import start_tracing
from image_analysis_worker.classifiers.fit import can_train
from image_analysis_worker.engines.checkpoint import find_checkpoint
from image_analysis_worker.engines.cores import count_usable_cores
from image_analysis_worker.engines.engine import Model
from image_analysis_worker.engines.models import load_served
from image_analysis_worker.jobs.batching import InFlight
from image_analysis_worker.jobs.records import Records, check_redis, connect
from image_analysis_worker.outage import Outage
from image_analysis_worker.rq.batch_worker import BatchWorker
from image_analysis_worker.rq.maintenance import Maintenance
from image_analysis_worker.settings import WorkerSettings
from image_analysis_worker.threads.heartbeat import Heartbeat
from image_analysis_worker.threads.inference import Inference
from image_analysis_worker.threads.loader import Loader
from image_analysis_worker.threads.shared import Shared
from image_analysis_worker.threads.trainer import Trainer
from image_analysis_worker.threads.watchdog import Watchdog

EXIT_FORCED = 1

BATCHES_IN_FLIGHT = 2
"""One in the model, and one being fetched and decoded."""
FORCE_AFTER_S = 1.0
"""A second signal within this time is the first one again: parent processes may pass it on, too."""

log = structlog.get_logger("image_analysis_worker")


def main() -> None:
    """Run a worker until SIGINT or SIGTERM; the running batch is finished first. A worker that starts ends at once."""
    # Until `serve` there is no job, and the processes that decode images end with this one. An exception would first
    # wait for the threads that download a model, which may take minutes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    # Without this, set before the import of torch, its threads spin while they wait for each other. With another busy
    # process on two cores, one image took up to 1.6 s instead of 8 ms.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        settings = WorkerSettings.from_environment()
        configure_logs(settings, "worker")
        start_tracing("image-analysis-worker")
        serve_metrics(settings.metrics_host, settings.worker_metrics_port)
        redis = connect(settings.redis_dsn, settings.sentinels)
        Outage(threading.Event()).retry(lambda: check_redis(redis))
        checkpoint = find_checkpoint(settings.model_id, settings.model_revision, name=settings.model_name)
        exit_code = serve(settings, load_served(checkpoint, settings))
    except StartupError as error:
        refuse_to_start("worker", error)
    sys.exit(exit_code)


def serve(settings: WorkerSettings, model: Model) -> int:
    """Run jobs on a model until a signal; return the exit code: 0, or 1 if a thread of the worker crashed.

    After the first signal, the jobs that are not in the model return to the queue at once. A second signal ends the
    process at once; other workers take over its jobs.

    Raises:
        StartupError: live workers serve a model with other labels under the same name.
    """
    is_stopping = threading.Event()
    _stop_on_signals(is_stopping)
    threading.excepthook = lambda crash: log.critical("thread_crashed", thread=crash.thread, exc_info=crash.exc_value)
    announcement = model.warm_up().model_copy(update={"trains": can_train()})
    batch_worker = BatchWorker(
        settings.model_name,
        connect(settings.redis_dsn, settings.sentinels),
        Records(model.ref.id, cache_ttl_s=settings.cache_ttl_seconds),
        embedding_field=model.ref.cache_field if settings.cache_ttl_seconds else "",
    )
    maintenance = Maintenance(batch_worker, announcement)
    in_flight = InFlight(BATCHES_IN_FLIGHT * announcement.max_batch_size)
    shared = Shared(batch_worker, in_flight, Outage(is_stopping), Watchdog(settings.job_timeout_seconds), is_stopping)
    inference = Inference(shared, model, max_size=announcement.max_batch_size, wait_s=settings.batch_wait_ms / 1000)
    trainer = Trainer(shared, model.ref, limit_s=settings.job_timeout_seconds)
    loader = Loader(shared, model, trainer, decoders=count_usable_cores())
    heartbeat = Heartbeat(shared, maintenance, trainer)
    try:
        shared.outage.retry(maintenance.open)
    except RedisError:
        return 0
    for thread in (heartbeat, inference, trainer, loader):
        thread.start()
    log.info(
        "worker_started", worker=batch_worker.name, queue=queue_name(settings.model_name), **announcement.model_dump()
    )

    while not is_stopping.wait(1) and all(thread.is_alive() for thread in (loader, inference, trainer)):
        pass
    has_crashed = not is_stopping.is_set()
    is_stopping.set()
    try:
        batch_worker.give_back(in_flight.close() + trainer.close())
        inference.join()
        loader.join()
        heartbeat.stop()
        maintenance.close()
    except RedisError as error:
        shared.outage.record(error)
    log.info("worker_stopped", worker=batch_worker.name)
    return int(has_crashed)


def _stop_on_signals(is_stopping: threading.Event) -> None:
    first_s: float | None = None

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal first_s
        first_s = first_s or time.monotonic()
        if is_stopping.is_set() and time.monotonic() - first_s > FORCE_AFTER_S:
            log.warning("worker_killed")
            os._exit(EXIT_FORCED)
        is_stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


if __name__ == "__main__":
    refuse_arguments("worker")
    main()
