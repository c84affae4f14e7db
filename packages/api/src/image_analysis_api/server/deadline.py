"""A time limit that moves with every step of a connection."""

import math
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable


class Deadline:
    """Calls a function once the time is over.

    If the deadline moves to a later time, its timer stays, and is set again when it fires: new timers for each step of
    each request would take 5 microseconds of a request.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._at_s = self._timer_at_s = math.inf
        self._timer: TimerHandle | None = None
        self._expire: Callable[[], None]

    def set(self, timeout_s: float | None, expire: Callable[[], None]) -> None:
        """Move the deadline. None removes it, and keeps its timer for the next one."""
        self._at_s = math.inf if timeout_s is None else self._loop.time() + timeout_s
        self._expire = expire
        if self._timer_at_s > self._at_s:
            self._start_timer()

    def cancel(self) -> None:
        """Remove the deadline and its timer."""
        self._at_s = math.inf
        self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = self._at_s
        self._timer = self._loop.call_at(self._at_s, self._fire) if self._at_s < math.inf else None

    def _fire(self) -> None:
        if self._loop.time() < self._at_s:
            self._start_timer()
        else:
            self._timer, self._at_s, self._timer_at_s = None, math.inf, math.inf
            self._expire()
