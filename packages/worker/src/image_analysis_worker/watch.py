"""Watching the steps that can hang in a C call: each may take a job's time, no longer."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from image_analysis_worker.hand import Work


class Watch:
    """Knows which step each thread is in, and since when."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._steps: dict[int, tuple[float, Sequence[Work]]] = {}

    @contextmanager
    def step(self, works: Sequence[Work]) -> Iterator[None]:
        """Watch the calling thread while it works on some jobs."""
        thread = threading.get_ident()
        self._steps[thread] = (time.monotonic(), works)
        try:
            yield
        finally:
            del self._steps[thread]

    def find_stuck(self) -> Sequence[Work] | None:
        """Return the jobs of a step that takes longer than the limit; None while all is well."""
        now_s = time.monotonic()
        for started_s, works in list(self._steps.values()):
            if now_s - started_s > self.limit_s:
                return works
        return None
