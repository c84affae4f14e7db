"""Start a worker: read the settings, configure logs, load the model, announce it, take jobs."""

import sys
import time

import structlog
from redis import Redis
from redis.exceptions import RedisError

from image_analysis_common.errors import StartupError
from image_analysis_common.logs import configure_logs
from image_analysis_common.tasks import queue_name
from image_analysis_common.versions import check_redis_version
from image_analysis_worker.heartbeat import Heartbeat
from image_analysis_worker.records import connect
from image_analysis_worker.settings import WorkerSettings
from image_analysis_worker.tasks import load_analyzer
from image_analysis_worker.worker import ImageWorker

MAX_WAIT_S = 10


def main() -> None:
    """Work until SIGINT or SIGTERM; the job in hand is finished first."""
    try:
        settings = WorkerSettings.from_environment()
        configure_logs(settings, "worker")
        redis = connect(settings.redis_dsn)
        wait_for_redis(redis)
        announcement = load_analyzer().announcement
    except StartupError as error:
        sys.exit(f"image-analysis-worker: {error}")
    worker = ImageWorker(settings.model_id, redis)
    heartbeat = Heartbeat(redis, announcement, worker.name, worker.beat)
    heartbeat.announce()
    heartbeat.start()
    structlog.get_logger(__name__).info(
        "worker_started", worker=worker.name, queue=queue_name(settings.model_id), **announcement.model_dump()
    )
    worker.work()
    heartbeat.stop()
    structlog.get_logger(__name__).info("worker_stopped", worker=worker.name)


def wait_for_redis(redis: Redis) -> None:
    """Wait until Redis answers.

    Raises:
        StartupError: it is too old.
    """
    log = structlog.get_logger(__name__)
    wait_s = 0.5
    while True:
        try:
            check_redis_version(str(redis.info("server")["redis_version"]))
            return
        except RedisError as error:
            log.warning("store_unavailable", retry_in_s=wait_s, cause=repr(error))
            time.sleep(wait_s)
            wait_s = min(wait_s * 2, MAX_WAIT_S)


if __name__ == "__main__":
    main()
