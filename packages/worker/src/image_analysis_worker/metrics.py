"""What a worker counts, for Prometheus: its jobs, its batches, and where its time goes."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

JOBS = Counter(
    "image_analysis_jobs_total",
    "Attempts at jobs that have ended: `completed`, `cancelled`, and `retried` or `failed` with a code",
    ["outcome", "code"],
)
JOB_DURATION = Histogram(
    "image_analysis_job_duration_seconds",
    "Time from the worker's first touch of a job to its end",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
BATCH_SIZE = Histogram(
    "image_analysis_batch_jobs", "Jobs that went through the model together", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)

Spent: TypeAlias = tuple[str, float, float]
"""A stage, its beginning and its end on the clock of `time.perf_counter`."""


class Stages(Collector):
    """Counts the seconds that all threads together spend in each stage, those of a stage under way as well.

    The thread that runs the model is always in `wait`, `inference` or `store`: what is not `wait` is its load. `fetch`
    and `decode` run in parallel.
    """

    def __init__(self, *stages: str) -> None:
        self._lock = threading.Lock()
        self._ended_s = dict.fromkeys(stages, 0.0)
        self._under_way: dict[int, tuple[str, float]] = {}

    @contextmanager
    def spend(self, stage: str, *notes: list[Spent]) -> Iterator[None]:
        """Count the time of a block, or of each call of what this decorates; blocks of one thread never nest.

        It is noted in every one of `notes` as well, one for each job that the block is for.
        """
        thread, started_s = threading.get_ident(), time.perf_counter()
        with self._lock:
            self._under_way[thread] = stage, started_s
        try:
            yield
        finally:
            ended_s = time.perf_counter()
            with self._lock:
                del self._under_way[thread]
                self._ended_s[stage] += ended_s - started_s
            for note in notes:
                note.append((stage, started_s, ended_s))

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            now_s, seconds = time.perf_counter(), dict(self._ended_s)
            for stage, started_s in self._under_way.values():
                seconds[stage] += max(now_s - started_s, 0.0)
        family = CounterMetricFamily(
            "image_analysis_worker_stage_seconds_total", "Time spent in each stage", labels=["stage"]
        )
        for stage, total_s in seconds.items():
            family.add_metric([stage], total_s)
        yield family


STAGES = Stages("wait", "fetch", "decode", "inference", "store")
REGISTRY.register(STAGES)
