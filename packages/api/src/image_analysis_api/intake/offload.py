"""Runs work that would block the event loop in a thread."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

LARGE_BYTES = 256 * 1024
"""Above this, parsing, decoding and hashing take milliseconds, so they run in a thread."""

T = TypeVar("T")


async def run(function: Callable[..., T], *arguments: object, size_bytes: int) -> T:
    """Call a function whose time grows with its input's `size_bytes`; for a large input, call it in a thread."""
    if size_bytes < LARGE_BYTES:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)
