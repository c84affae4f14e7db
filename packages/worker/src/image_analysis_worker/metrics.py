"""Prometheus metrics of a worker: its jobs, its batches, and the time in each stage."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

JOB_DURATION = Histogram(
    "image_analysis_job_duration_seconds",
    "Time from a worker's start on a job to the job's end",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
BATCH_SIZE = Histogram(
    "image_analysis_batch_jobs", "Jobs that went through the model together", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
ENGINE = Gauge("image_analysis_worker_engine", "1 for the engine and the precision that run", ["engine", "precision"])

EMBEDDINGS = Counter(
    "image_analysis_worker_embeddings",
    "Zero-shot jobs by where the embedding of their image came from: the image tower, a recent job, or the cache",
    ["source"],
)
for source in ("tower", "recent", "cache"):
    EMBEDDINGS.labels(source)  # so that each is exposed from the start

StageTime: TypeAlias = tuple[str, float, float]
"""A stage, its start and its end on the clock of `time.perf_counter`."""


class Stages(Collector):
    """Counts the seconds that all threads together spend in each stage, including stages that have not ended.

    The thread that runs the model is always in `wait`, `inference` or `store`: all but `wait` is its load. `fetch`,
    `decode` and `train` run in parallel.
    """

    def __init__(self, *stages: str) -> None:
        self._lock = threading.Lock()
        self._ended_s = dict.fromkeys(stages, 0.0)
        self._running: dict[int, tuple[str, float]] = {}

    @contextmanager
    def measure(self, stage: str, *lists: list[StageTime]) -> Iterator[None]:
        """Count the time of a block, or of each call of the decorated function; blocks of one thread never nest.

        The time is also appended to each of `lists`, one for each job that the block serves.
        """
        thread, started_s = threading.get_ident(), time.perf_counter()
        with self._lock:
            self._running[thread] = stage, started_s
        try:
            yield
        finally:
            ended_s = time.perf_counter()
            with self._lock:
                del self._running[thread]
                self._ended_s[stage] += ended_s - started_s
            for stages in lists:
                stages.append((stage, started_s, ended_s))

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            now_s, seconds = time.perf_counter(), dict(self._ended_s)
            for stage, started_s in self._running.values():
                seconds[stage] += max(now_s - started_s, 0.0)
        family = CounterMetricFamily(
            "image_analysis_worker_stage_seconds_total", "Time spent in each stage", labels=["stage"]
        )
        for stage, total_s in seconds.items():
            family.add_metric([stage], total_s)
        yield family


STAGES = Stages("wait", "fetch", "decode", "inference", "store", "train")
REGISTRY.register(STAGES)
