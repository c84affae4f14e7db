"""The thread that says every few seconds that this worker is there, and what it serves."""

import threading
from collections.abc import Callable

import structlog
from redis import Redis
from redis.exceptions import RedisError

from image_analysis_common import keys
from image_analysis_common.models import ModelAnnouncement

log = structlog.get_logger(__name__)


class Heartbeat(threading.Thread):
    """Announces the model and calls `beat` until it is stopped; an outage is one log line at each end."""

    def __init__(
        self, redis: Redis, announcement: ModelAnnouncement, worker_name: str, beat: Callable[[], None]
    ) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._redis = redis
        self._announcement = announcement
        self._worker_name = worker_name
        self._beat = beat
        self._is_stopped = threading.Event()
        self._is_heard = True

    def announce(self) -> None:
        """Note the model and this worker, at the time of the server's clock."""
        model_id = self._announcement.model.id
        now_s, _ = self._redis.time()
        with self._redis.pipeline() as pipeline:
            pipeline.set(keys.announcement(model_id), self._announcement.model_dump_json(), ex=keys.ANNOUNCEMENT_TTL_S)
            pipeline.zadd(keys.workers(model_id), {self._worker_name: now_s})
            pipeline.zremrangebyscore(keys.workers(model_id), 0, now_s - keys.WORKER_TTL_S)
            pipeline.expire(keys.workers(model_id), keys.ANNOUNCEMENT_TTL_S)
            pipeline.execute()

    def run(self) -> None:
        while not self._is_stopped.wait(keys.HEARTBEAT_INTERVAL_S):
            try:
                self.announce()
                self._beat()
            except RedisError as error:
                if self._is_heard:
                    log.warning("store_unavailable", cause=repr(error))
                self._is_heard = False
            else:
                if not self._is_heard:
                    log.info("store_available")
                self._is_heard = True

    def stop(self) -> None:
        """Take this worker off the list at once, so that readiness is true without a delay."""
        self._is_stopped.set()
        self.join()
        self._redis.zrem(keys.workers(self._announcement.model.id), self._worker_name)
