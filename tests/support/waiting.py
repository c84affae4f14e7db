"""Waiting for something to become true, with a reason when it does not."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T | None], description: str, timeout_s: float = 30) -> T:
    """Return the first true value of `predicate`; fail with `description` when there is none in time."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := predicate()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {description}"
        time.sleep(0.02)
    return value


async def eventually(predicate: Callable[[], Awaitable[T | None]], description: str, timeout_s: float = 30) -> T:
    """Do what `wait_until` does, beside other tasks."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := await predicate()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {description}"
        await asyncio.sleep(0.01)
    return value
