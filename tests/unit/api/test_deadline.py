"""A deadline expires at the time to which it was moved last, with few timers."""

import math
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import cast
from unittest.mock import Mock

from image_analysis_api.server.deadline import Deadline


class Clock:
    """The timers of an event loop, with a time of its own; counts them."""

    def __init__(self) -> None:
        self.now_s, self.timers = 100.0, 0
        self._calls: list[tuple[float, Callable[[], object], Mock]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, callback: Callable[[], object]) -> Mock:
        self.timers += 1
        timer = Mock(is_cancelled=False)
        timer.cancel = lambda: setattr(timer, "is_cancelled", True)
        self._calls.append((when_s, callback, timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass, and call what is due."""
        end_s = self.now_s + seconds
        while due := [call for call in self._calls if call[0] <= end_s and not call[2].is_cancelled]:
            first = min(due, key=lambda call: call[0])
            self._calls.remove(first)
            self.now_s = first[0]
            first[1]()
        self.now_s = end_s


def on(clock: Clock) -> Deadline:
    return Deadline(cast(AbstractEventLoop, clock))


def test_it_expires_when_it_was_moved_to_and_once() -> None:
    clock, expired = Clock(), list[float]()
    deadline = on(clock)
    for _ in range(5):
        deadline.set(10, lambda: expired.append(clock.now_s))
        clock.advance(8)

    clock.advance(100)

    assert expired == [142.0]
    assert clock.timers < 8
    deadline.set(1, lambda: expired.append(clock.now_s))
    clock.advance(1)
    assert expired == [142.0, 241.0]


def test_many_moves_to_later_times_take_one_timer() -> None:
    clock, expired = Clock(), list[str]()
    deadline = on(clock)
    for timeout_s in (10, 65, 10) * 100:
        deadline.set(timeout_s, lambda: expired.append("abort"))
        deadline.set(None, lambda: None)

    assert (clock.timers, expired) == (1, [])


def test_earlier_deadline_expires_at_its_own_time_with_its_own_function() -> None:
    clock, expired = Clock(), list[tuple[str, float]]()
    deadline = on(clock)
    deadline.set(65, lambda: expired.append(("abort", clock.now_s)))
    deadline.set(8, lambda: expired.append(("stop", clock.now_s)))

    clock.advance(100)

    assert expired == [("stop", 108.0)]


def test_removed_or_cancelled_one_never_expires() -> None:
    clock, expired = Clock(), list[float]()
    removed, cancelled = on(clock), on(clock)
    for deadline in (removed, cancelled):
        deadline.set(5, lambda: expired.append(math.inf))
    removed.set(None, lambda: None)
    cancelled.cancel()

    clock.advance(100)

    assert expired == []
