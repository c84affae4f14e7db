"""Detects steps that hang in a C call: each step has a time limit, and so has each turn of the loader's loop."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from image_analysis_worker.jobs.in_flight import Work

LOOP_LIMIT_S = 30.0
"""Far longer than one turn takes, with its waits for room, a pop, or a Redis that does not answer."""


class Watchdog:
    """Knows the current step of each thread, and its deadline."""

    def __init__(self, limit_s: float, loop_limit_s: float = LOOP_LIMIT_S) -> None:
        self.limit_s = limit_s
        self._loop_limit_s = loop_limit_s
        self._steps: dict[int, tuple[float, Sequence[Work]]] = {}

    @contextmanager
    def step(self, works: Sequence[Work]) -> Iterator[None]:
        """Watch the calling thread while it works on some jobs."""
        thread = threading.get_ident()
        self._steps[thread] = (time.monotonic() + self.limit_s, works)
        try:
            yield
        finally:
            del self._steps[thread]

    @contextmanager
    def loop(self) -> Iterator[Callable[[], None]]:
        """Watch the calling thread while it loops; it calls the function that it gets at every turn."""
        thread = threading.get_ident()

        def turn() -> None:
            self._steps[thread] = (time.monotonic() + self._loop_limit_s, ())

        turn()
        try:
            yield turn
        finally:
            del self._steps[thread]

    def find_stuck(self) -> Sequence[Work] | None:
        """Return the jobs of a step that takes too long, none for the loop; None while all is well."""
        now_s = time.monotonic()
        for ends_s, works in list(self._steps.values()):
            if now_s > ends_s:
                return works
        return None
