"""Detects steps that hang in a C call: each step has a time limit, and so has each round of the loader's loop."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from image_analysis_worker.jobs.batching import Job

LOOP_LIMIT_S = 30.0
"""Far longer than one round takes, including its waits for room, for a job, and for a Redis that does not answer."""


class Watchdog:
    """Knows the current step of each thread, and its deadline."""

    def __init__(self, limit_s: float, loop_limit_s: float = LOOP_LIMIT_S) -> None:
        self.limit_s = limit_s
        self._loop_limit_s = loop_limit_s
        self._steps: dict[int, tuple[float, Sequence[Job]]] = {}

    @contextmanager
    def step(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Watch the calling thread during a step that serves `jobs`."""
        thread = threading.get_ident()
        self._steps[thread] = (time.monotonic() + self.limit_s, jobs)
        try:
            yield
        finally:
            del self._steps[thread]

    @contextmanager
    def loop(self) -> Iterator[Callable[[], None]]:
        """Watch the calling thread while it loops; gives a function that the loop must call in every round."""
        thread = threading.get_ident()

        def reset() -> None:
            self._steps[thread] = (time.monotonic() + self._loop_limit_s, ())

        reset()
        try:
            yield reset
        finally:
            del self._steps[thread]

    def find_stuck(self) -> Sequence[Job] | None:
        """Return the jobs of a step that takes too long, an empty sequence for the loop; None if nothing is stuck."""
        now_s = time.monotonic()
        for ends_s, jobs in list(self._steps.values()):
            if now_s > ends_s:
                return jobs
        return None
