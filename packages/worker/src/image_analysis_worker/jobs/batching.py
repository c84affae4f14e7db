"""Dynamic batching: the jobs that a worker has taken and not ended, a bounded number, and the batches made of them."""

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from image_analysis_common.classifiers import Classifier
from image_analysis_common.errors import ServiceError
from image_analysis_common.models import MAX_TOP_K, TOP_K, AnalysisResult
from image_analysis_common.records import JobRecord
from image_analysis_worker.classifiers.store import StoredClassifier
from image_analysis_worker.metrics import STAGES, StageTime

FULL_BATCH_WAIT_S = 0.2
"""How long the model waits for a full batch while more jobs wait in the queue: a full batch takes less time for each
job. Decoding 8 photos of 12 megapixels takes 0.13 s on 2 cores."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """The embedding of a job's image, as a model computed it."""

    values: bytes
    """float32, of length 1."""
    is_cached: bool
    """Whether the cache has it: then the job's image was neither decoded nor put through the image tower."""


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
    execution: Any = None
    """RQ's `Execution` of this attempt; None until the job is started. Only the package `rq` uses it."""
    started_s: float = field(default_factory=time.perf_counter)
    input: Any = None
    embedding: Embedding | None = None
    """What the cache has, of a job with labels or a classifier; after the model, what the cache should have."""
    classifier: StoredClassifier | None = None
    """Only of a job that a classifier answers: the one of its owner, if there is one."""
    result: AnalysisResult | None = None
    trained: Classifier | None = None
    failure: Exception | None = None
    processing_time_ms: float = 0.0

    def end(self, outcome: AnalysisResult | Classifier | Exception) -> None:
        """Set the result, the trained classifier or the error, and drop the image."""
        if isinstance(outcome, AnalysisResult):
            self.result = outcome
        elif isinstance(outcome, Classifier):
            self.trained = outcome
        else:
            self.failure = outcome
        self.processing_time_ms = round((time.perf_counter() - self.started_s) * 1000, 2)
        self.image, self.input = b"", None

    @property
    def top_k(self) -> int:
        """How many predictions its run keeps."""
        return MAX_TOP_K if self.record.is_deep else TOP_K

    @property
    def has_newer_classifier(self) -> bool:
        """Whether its classifier was trained again since its submission: the cache's field names the older one."""
        return self.classifier is not None and self.classifier.ref != self.record.classifier

    @property
    def has_ended(self) -> bool:
        return any(outcome is not None for outcome in (self.result, self.trained, self.failure))

    @property
    def can_be_retried(self) -> bool:
        """Whether another attempt may succeed. A `ServiceError` would only come again."""
        return self.attempts_left > 1 and self.failure is not None and not isinstance(self.failure, ServiceError)


class InFlight:
    """Holds at most `capacity` jobs: being decoded, ready for the model, or in it. Thread-safe.

    A job that Redis gives out again, because a failover lost its start, is in flight twice, under one ID.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        lock = threading.Lock()
        # Two, because a ready job must not wake the thread that waits for room.
        self._has_room, self._has_ready = threading.Condition(lock), threading.Condition(lock)
        self._jobs: dict[Job, None] = {}  # in the order in which they came
        self._ready: deque[Job] = deque()
        self._running: set[Job] = set()
        self._has_more = False
        self._is_loading = False
        self._is_reserved = False
        self._is_closed = False

    def wait_for_room(self, timeout_s: float) -> int:
        """Return how many more jobs fit; 0 if there is no room in time. While a suspect job is in flight, none fit.

        The caller adds as many at most before it calls again.
        """
        with self._has_room:
            self._is_loading = False
            self._has_room.wait_for(lambda: self._is_closed or self._room() > 0, timeout_s)
            room = 0 if self._is_closed else self._room()
            self._is_loading = room > 0
            return room

    def reserve(self) -> bool:
        """Let no more jobs fit until `release`; return whether none is in flight or about to be."""
        with self._has_room:
            self._is_reserved = True
            return not self._jobs and not self._is_loading

    def release(self) -> None:
        """Let jobs fit again."""
        with self._has_room:
            self._is_reserved = False
            self._has_room.notify_all()

    def wait_until_empty(self, timeout_s: float) -> None:
        with self._has_room:
            self._has_room.wait_for(lambda: self._is_closed or not self._jobs, timeout_s)

    @property
    def is_empty(self) -> bool:
        return not self._jobs

    def _room(self) -> int:
        if self._is_reserved or any(job.is_suspect for job in self._jobs):
            return 0
        return self._capacity - len(self._jobs)

    def add(self, jobs: Iterable[Job], *, has_more: bool = False) -> bool:
        """Add jobs; return False if `close` was called: then the caller must give them back.

        `has_more` says that the queue probably holds more.
        """
        with self._has_room:
            if self._is_closed:
                return False
            self._has_more = has_more
            self._jobs.update(dict.fromkeys(jobs))
            return True

    def has(self, job: Job) -> bool:
        return job in self._jobs

    def mark_ready(self, job: Job) -> None:
        """Mark a job that can go into the model, or that ended before it."""
        with self._has_ready:
            if self.has(job):
                self._ready.append(job)
                self._has_ready.notify_all()

    @STAGES.measure("wait")
    def next_batch(self, max_size: int, wait_s: float) -> list[Job] | None:
        """Wait for a ready job, then up to `wait_s` for more; return None if `close` was called.

        While more jobs wait in the queue, wait for a full batch, but no longer than `FULL_BATCH_WAIT_S`.
        """
        with self._has_ready:
            self._has_ready.wait_for(lambda: self._is_closed or self._ready)
            if self._has_more:
                self._has_ready.wait_for(
                    lambda: self._is_closed or len(self._ready) >= min(max_size, len(self._jobs)), FULL_BATCH_WAIT_S
                )
            if wait_s:
                self._has_ready.wait_for(lambda: self._is_closed or len(self._ready) >= max_size, wait_s)
            if self._is_closed:
                return None
            batch = [self._ready.popleft() for _ in range(min(max_size, len(self._ready)))]
            self._running = set(batch)
            return batch

    def remove(self, batch: Iterable[Job]) -> None:
        """Remove jobs whose end is written."""
        with self._has_room:
            for job in batch:
                self._jobs.pop(job, None)
            self._running = set()
            self._has_room.notify_all()

    def close(self) -> list[Job]:
        """Stop giving out batches; remove and return the jobs that are not in the model, oldest first."""
        with self._has_room:
            self._is_closed = True
            rest = [job for job in self._jobs if job not in self._running]
            for job in rest:
                del self._jobs[job]
            self._has_room.notify_all()
            self._has_ready.notify_all()
            return rest
