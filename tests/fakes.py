"""Stand-ins that tests pass to the application instead of the real parts."""

from collections.abc import Awaitable, Callable

import httpx
from fastapi import FastAPI

MakeApp = Callable[..., FastAPI]
MakeClient = Callable[..., Awaitable[httpx.AsyncClient]]


class FakeFetcher:
    """Gives the bytes that it was told of, or raises the error."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Exception] = {}

    async def fetch(self, url: str) -> bytes:
        answer = self.answers[url]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        pass
