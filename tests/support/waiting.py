"""Waits until something becomes true; fails with a description if it does not."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 180.0
"""Longest wait for anything that a test expects: a busy machine is slow, and a wait that ends early costs nothing."""


def wait_until(predicate: Callable[[], T | None], description: str, timeout_s: float = PATIENCE_S) -> T:
    """Return the first true value of `predicate`; fail with `description` if there is none in time."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := predicate()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {description}"
        time.sleep(0.02)
    return value


async def eventually(
    predicate: Callable[[], Awaitable[T | None]], description: str, timeout_s: float = PATIENCE_S
) -> T:
    """The asynchronous form of `wait_until`: other tasks run in between."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := await predicate()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {description}"
        await asyncio.sleep(0.01)
    return value
