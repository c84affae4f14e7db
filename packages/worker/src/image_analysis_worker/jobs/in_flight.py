"""The jobs that a worker has taken from the queue and not ended yet: a bounded number, returned together at a stop."""

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from image_analysis_common.errors import ServiceError
from image_analysis_common.models import MAX_TOP_K, TOP_K, AnalysisResult
from image_analysis_common.records import JobRecord
from image_analysis_worker.metrics import STAGES, StageTime


@dataclass(eq=False)
class Job:
    """One job in flight, and how far it is."""

    job_id: str
    request_id: str
    record: JobRecord
    image: bytes
    attempts_left: int
    is_suspect: bool
    """True if a worker died on an earlier attempt. Such a job runs alone."""
    traceparent: str = ""
    """The trace of its request; empty without one."""
    stages: list[StageTime] = field(default_factory=list)
    rq_job: Any = None
    """RQ's own object for the job; only the package `rq` uses it."""
    execution: Any = None
    """RQ's `Execution` of this attempt; None until the job is started."""
    started_s: float = field(default_factory=time.perf_counter)
    input: Any = None
    result: AnalysisResult | None = None
    failure: Exception | None = None
    processing_time_ms: float = 0.0

    def end(self, outcome: AnalysisResult | Exception) -> None:
        """Set the result or the error, and drop the image."""
        if isinstance(outcome, AnalysisResult):
            self.result = outcome
        else:
            self.failure = outcome
        self.processing_time_ms = round((time.perf_counter() - self.started_s) * 1000, 2)
        self.image, self.input = b"", None

    @property
    def top_k(self) -> int:
        """How many predictions its run keeps."""
        return MAX_TOP_K if self.record.is_deep else TOP_K

    @property
    def has_ended(self) -> bool:
        return self.result is not None or self.failure is not None

    @property
    def can_be_retried(self) -> bool:
        """Whether another attempt may succeed. A `ServiceError` would only come again."""
        return self.attempts_left > 1 and self.failure is not None and not isinstance(self.failure, ServiceError)


class InFlight:
    """Holds at most `capacity` jobs: being decoded, ready for the model, or in it. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._ready: deque[Job] = deque()
        self._running: set[str] = set()
        self._is_closed = False

    def wait_for_room(self, timeout_s: float) -> int:
        """Return how many more jobs fit; 0 if there is no room in time. While a suspect job is in flight, none fit."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._room() > 0, timeout_s)
            return 0 if self._is_closed else self._room()

    def wait_until_empty(self, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or not self._jobs, timeout_s)

    @property
    def is_empty(self) -> bool:
        return not self._jobs

    def _room(self) -> int:
        if any(job.is_suspect for job in self._jobs.values()):
            return 0
        return self._capacity - len(self._jobs)

    def add(self, jobs: Iterable[Job]) -> bool:
        """Add jobs; return False if `close` was called: then the caller must give them back."""
        with self._changed:
            if self._is_closed:
                return False
            self._jobs.update((job.job_id, job) for job in jobs)
            return True

    def has(self, job: Job) -> bool:
        return self._jobs.get(job.job_id) is job

    def mark_ready(self, job: Job) -> None:
        """Mark a job that can go into the model, or that ended before it."""
        with self._changed:
            if self.has(job):
                self._ready.append(job)
                self._changed.notify_all()

    @STAGES.measure("wait")
    def next_batch(self, max_size: int, wait_s: float) -> list[Job] | None:
        """Wait for a ready job, then up to `wait_s` for more; return None if `close` was called."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._ready)
            if wait_s:
                self._changed.wait_for(lambda: self._is_closed or len(self._ready) >= max_size, wait_s)
            if self._is_closed:
                return None
            batch = [self._ready.popleft() for _ in range(min(max_size, len(self._ready)))]
            self._running = {job.job_id for job in batch}
            return batch

    def remove(self, batch: Iterable[Job]) -> None:
        """Remove jobs whose end is written."""
        with self._changed:
            for job in batch:
                self._jobs.pop(job.job_id, None)
            self._running = set()
            self._changed.notify_all()

    def close(self) -> list[Job]:
        """Stop giving out batches; remove and return the jobs that are not in the model, oldest first."""
        with self._changed:
            self._is_closed = True
            rest = [job for job in self._jobs.values() if job.job_id not in self._running]
            for job in rest:
                del self._jobs[job.job_id]
            self._changed.notify_all()
            return rest
