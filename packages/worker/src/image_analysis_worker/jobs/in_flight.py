"""The jobs that a worker has in hand, from the queue to their end: bounded, and given back in one go."""

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from image_analysis_common.errors import ServiceError
from image_analysis_common.models import MAX_TOP_K, TOP_K, AnalysisResult
from image_analysis_common.records import JobRecord
from image_analysis_worker.metrics import STAGES, Spent


@dataclass(eq=False)
class Work:
    """One job in hand, and how far it has come."""

    job_id: str
    request_id: str
    record: JobRecord
    image: bytes
    attempts_left: int
    is_suspect: bool
    """Whether an earlier attempt at it ended with its worker: it runs alone, so that nothing else ends with it."""
    traceparent: str = ""
    """The trace of its request, where there is one."""
    stages: list[Spent] = field(default_factory=list)
    entry: Any = None
    """Where it stands in RQ's books; theirs alone."""
    started_s: float = field(default_factory=time.perf_counter)
    input: Any = None
    result: AnalysisResult | None = None
    failure: Exception | None = None
    processing_time_ms: float = 0.0

    def end(self, outcome: AnalysisResult | Exception) -> None:
        """Note the answer or the error, and forget the image."""
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
        """Whether another attempt may end otherwise: what the service foresees would come again."""
        return self.attempts_left > 1 and self.failure is not None and not isinstance(self.failure, ServiceError)


class InFlight:
    """Holds at most `capacity` jobs: being decoded, ready for the model, or in it. Shared by the threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._changed = threading.Condition()
        self._held: dict[str, Work] = {}
        self._ready: deque[Work] = deque()
        self._running: set[str] = set()
        self._is_closed = False

    def wait_for_room(self, timeout_s: float) -> int:
        """Return how many more jobs fit; a suspect leaves no room beside it. 0 when there is none in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._room() > 0, timeout_s)
            return 0 if self._is_closed else self._room()

    def wait_until_empty(self, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or not self._held, timeout_s)

    @property
    def is_empty(self) -> bool:
        return not self._held

    def _room(self) -> int:
        if any(work.is_suspect for work in self._held.values()):
            return 0
        return self._capacity - len(self._held)

    def hold(self, works: Iterable[Work]) -> bool:
        """Take jobs in; False when the hand is closed, and they are the caller's to give back."""
        with self._changed:
            if self._is_closed:
                return False
            self._held.update((work.job_id, work) for work in works)
            return True

    def holds(self, work: Work) -> bool:
        return self._held.get(work.job_id) is work

    def offer(self, work: Work) -> None:
        """Note that a job can go into the model, or has ended before it."""
        with self._changed:
            if self.holds(work):
                self._ready.append(work)
                self._changed.notify_all()

    @STAGES.spend("wait")
    def next_batch(self, max_size: int, wait_s: float) -> list[Work] | None:
        """Wait for ready jobs, then up to `wait_s` for company; None when the hand is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._ready)
            if wait_s:
                self._changed.wait_for(lambda: self._is_closed or len(self._ready) >= max_size, wait_s)
            if self._is_closed:
                return None
            batch = [self._ready.popleft() for _ in range(min(max_size, len(self._ready)))]
            self._running = {work.job_id for work in batch}
            return batch

    def let_go(self, batch: Iterable[Work]) -> None:
        """Forget jobs whose end is written."""
        with self._changed:
            for work in batch:
                self._held.pop(work.job_id, None)
            self._running = set()
            self._changed.notify_all()

    def close(self) -> list[Work]:
        """Hand out nothing more; return the jobs that are not in the model, in the order they came in."""
        with self._changed:
            self._is_closed = True
            rest = [work for work in self._held.values() if work.job_id not in self._running]
            for work in rest:
                del self._held[work.job_id]
            self._changed.notify_all()
            return rest
