"""Prometheus gauges: queue depth, pending webhooks, live workers; read from Redis at each scrape."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError

from image_analysis_common import keys
from image_analysis_common.scripts import queues

TIMEOUT_S = 0.5
"""Short, so that a scrape is answered without Redis too, before Prometheus times out."""

MAX_MODELS = 50
"""How many announced models are shown, the latest first: other deployments on the same Redis may announce some too."""

STATES = ("idle", "busy", "suspended")


class QueueMetrics(Collector):
    """Reads the queues and workers of every model. If Redis is down, only `image_analysis_redis_up` is reported."""

    def __init__(self, redis: Redis, model: str) -> None:
        self._redis = redis
        self._own = model

    def describe(self) -> Iterable[Metric]:
        return []  # otherwise, registering this collector would read Redis

    def collect(self) -> Iterable[Metric]:
        is_up = GaugeMetricFamily("image_analysis_redis_up", "Whether Redis answers")
        try:
            memory = self._read_memory()
            known = cast(list[bytes], self._redis.zrevrange(keys.MODELS, 0, MAX_MODELS - 1))
            models = list(dict.fromkeys([self._own, *(model.decode() for model in known)]))
            call = queues.read_queues(models)
            now_s, found, pending, due_s = cast(list[Any], self._redis.eval(call.script.text, *call.words))
        except (RedisError, OSError):
            is_up.add_metric([], 0)
            yield is_up
            return
        is_up.add_metric([], 1)
        yield is_up
        if memory:
            used, limit = memory["used_memory"], memory["maxmemory"]
            yield GaugeMetricFamily("image_analysis_redis_memory_used_bytes", "Memory that Redis uses", value=used)
            yield GaugeMetricFamily("image_analysis_redis_memory_max_bytes", "maxmemory; 0 is no limit", value=limit)
        yield from _describe_queues(int(now_s), zip(models, found, strict=True))
        yield GaugeMetricFamily(
            "image_analysis_webhooks_pending",
            "Webhooks not yet delivered, including those between two attempts",
            value=pending,
        )
        yield GaugeMetricFamily(
            "image_analysis_webhooks_overdue_seconds",
            "How long the oldest due webhook has waited for a deliverer; 0 if none is due",
            value=max(int(now_s) - float(due_s), 0) if due_s else 0,
        )

    def _read_memory(self) -> dict[str, int]:
        """Return Redis's memory figures; none if its access control list forbids INFO."""
        try:
            return cast(dict[str, int], self._redis.info("memory"))
        except NoPermissionError:
            return {}


def _describe_queues(now_s: int, found: Iterable[tuple[str, tuple[int, bytes, list[bytes]]]]) -> Iterable[Metric]:
    depth = GaugeMetricFamily("image_analysis_queue_jobs", "Jobs that wait for a worker", labels=["model"])
    age = GaugeMetricFamily(
        "image_analysis_queue_oldest_job_age_seconds",
        "Time since the oldest waiting job was accepted; 0 if none waits",
        labels=["model"],
    )
    workers = GaugeMetricFamily(
        "image_analysis_workers", "Live workers: `idle`, `busy` or `suspended`", labels=["model", "state"]
    )
    for model, (waiting, oldest, states) in found:
        depth.add_metric([model], waiting)
        since_s = datetime.fromisoformat(oldest.decode()).timestamp() if oldest else now_s
        age.add_metric([model], max(now_s - since_s, 0))
        counts = Counter(state.decode() for state in states)
        for state in STATES:
            workers.add_metric([model, state], counts[state])
    return depth, age, workers
