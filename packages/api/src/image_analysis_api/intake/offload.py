"""Moves work that would block the event loop to a thread."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

LARGE_BYTES = 256 * 1024
"""Above this, parsing, decoding and hashing take milliseconds: a thread does them, the event loop serves others."""

T = TypeVar("T")


async def run(function: Callable[..., T], *arguments: object, size_bytes: int) -> T:
    """Call a function whose time grows with the bytes it is given: in a thread if these are many."""
    if size_bytes < LARGE_BYTES:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)
