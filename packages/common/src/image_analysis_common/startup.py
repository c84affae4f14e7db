"""How a service says that it cannot start, to people and to what supervises it."""

import sys
from contextlib import suppress
from typing import NoReturn

EXIT_CANNOT_START = 3
"""A new start would end the same way. It is what uvicorn ends with as well, for example where its port is taken."""


class StartupError(Exception):
    """The process cannot do its work as configured; the message is one line for the operator."""


def refuse_to_start(service: str, error: StartupError) -> NoReturn:
    """End the process with one line for the operator."""
    with suppress(OSError):
        print(f"image-analysis-{service}: {error}", file=sys.stderr)  # noqa: T201
    sys.exit(EXIT_CANNOT_START)
