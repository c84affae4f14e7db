"""How a service reports that it cannot start: one line for people, an exit code for supervisors."""

import sys
from contextlib import suppress
from typing import NoReturn

EXIT_CANNOT_START = 3
"""Starting again would fail the same way. uvicorn uses the same code, for example if its port is taken."""


class StartupError(Exception):
    """The process cannot do its work as configured; the message is one line for the operator."""


def refuse_to_start(service: str, error: StartupError) -> NoReturn:
    """End the process with one line for the operator."""
    with suppress(OSError):
        print(f"image-analysis-{service}: {error}", file=sys.stderr)  # noqa: T201
    sys.exit(EXIT_CANNOT_START)


def refuse_arguments(service: str) -> None:
    """End the process with one line if it got arguments, such as `--help`: it would start and ignore them."""
    if len(sys.argv) > 1:
        refuse_to_start(service, StartupError("It takes no arguments: its settings are environment variables."))
