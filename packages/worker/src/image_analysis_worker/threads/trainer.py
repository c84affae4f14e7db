"""The thread that trains classifiers, while the jobs of their examples and all others go through the model."""

import threading
from collections.abc import Iterable
from contextlib import suppress

from redis.exceptions import RedisError

from image_analysis_common.models import ModelRef
from image_analysis_worker.jobs.batching import Job
from image_analysis_worker.rq.training import TrainingRun
from image_analysis_worker.threads.shared import Shared

POLL_S = 0.1
"""Time between two looks at the jobs of the examples."""


class Trainer(threading.Thread):
    """Holds the trainings that the worker has taken; each is trained as soon as the jobs of its examples have ended."""

    def __init__(self, shared: Shared, model: ModelRef, *, limit_s: float) -> None:
        # A daemon: the worker gives a training back when it stops, and does not wait for its end.
        super().__init__(name="trainer", daemon=True)
        self._shared = shared
        self._model = model
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._runs: dict[Job, TrainingRun] = {}
        self._is_closed = False

    def add(self, jobs: Iterable[Job]) -> bool:
        """Add trainings; return False if `close` was called: then the caller must give them back."""
        with self._lock:
            if self._is_closed:
                return False
            worker, outage = self._shared.batch_worker, self._shared.outage
            for job in jobs:
                self._runs[job] = TrainingRun(worker, outage, job, self._model, limit_s=self._limit_s)
            return True

    def close(self) -> list[Job]:
        """Stop training; remove and return the trainings whose end is not being written."""
        with self._lock:
            self._is_closed = True
            rest = list(self._runs)
            self._runs.clear()
            return rest

    def run(self) -> None:
        retry = self._shared.outage.retry
        with suppress(RedisError):  # The worker stops during an outage of Redis.
            while not self._shared.is_stopping.wait(POLL_S):
                with self._lock:
                    runs = list(self._runs.values())
                for run in runs:
                    if self._may_advance(run) and retry(run.advance):
                        with self._lock:
                            is_held = self._runs.pop(run.job, None) is not None
                        if is_held:
                            retry(run.finish)
                        if run.job.is_suspect:
                            self._shared.in_flight.release()

    def _may_advance(self, run: TrainingRun) -> bool:
        """Return whether a training may train now: a suspect one only while no other job is in flight."""
        if not run.job.is_suspect:
            return True
        return self._shared.outage.retry(run.is_ready) and self._shared.in_flight.reserve()
