"""The terminal: a progress bar and messages on standard error, rows for people on standard output."""

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import ceil
from time import monotonic

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from image_analysis_client.cancelling import TRAINING_LEFT_BEHIND
from image_analysis_client.cli.escaping import visible

CLIENT_LOG = logging.getLogger("image_analysis_client")
"""Where the client says that it waits, with the seconds as `retry_after_s` and the reason as `code`.

It also says how many `images` it has left behind in the service, or that it could not cancel a training.
"""


def console(*, stderr: bool = False) -> Console:
    """Make a console that takes text as it is: brackets and colons in a file's name mean nothing."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


class Screen:
    """Writes above a progress bar.

    The bar is drawn where standard error is a terminal and `quiet` is not set. `left_behind` is how many images the
    client may have left in the service, `may_be_trained` whether a training that it left may have ended well.
    """

    def __init__(self, total: int, *, quiet: bool) -> None:
        self.left_behind = 0
        self.may_be_trained = False
        self._is_quiet = quiet
        self._messages = console(stderr=True)
        # On one terminal, the console that draws the bar has to know what is written above it.
        self._rows = self._messages if _is_one_terminal() else console()
        self._bar = _Bar(self._messages, total, is_shown=sys.stderr.isatty() and not quiet)

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draw the bar until the end of the block; the client's waits show in it."""
        handler = _LogHandler(self)
        level = CLIENT_LOG.level
        CLIENT_LOG.addHandler(handler)
        CLIENT_LOG.setLevel(logging.INFO)
        try:
            with self._bar:
                yield
        finally:
            CLIENT_LOG.removeHandler(handler)
            CLIENT_LOG.setLevel(level)

    def note_record(self, record: logging.LogRecord) -> None:
        """Take in what the client says: why it waits, or what it has left behind."""
        wait_s = getattr(record, "retry_after_s", None)
        if isinstance(wait_s, int | float):
            self._bar.wait(visible(str(getattr(record, "code", ""))).replace("_", " "), wait_s)
        self.left_behind += getattr(record, "images", 0)
        self.may_be_trained |= getattr(record, "code", "") == TRAINING_LEFT_BEHIND

    def advance(self, *, is_failed: bool) -> None:
        self._bar.advance_by_one(is_failed=is_failed)

    def show(self, text: Text | str) -> None:
        """Write a line to standard output, which is a terminal."""
        self._rows.print(text, soft_wrap=True)

    def say(self, text: Text | str) -> None:
        """Write a line to standard error."""
        self._messages.print(text, soft_wrap=True)

    def note(self, text: str) -> None:
        """Write a line to standard error that the user can do without: not with `quiet`."""
        if not self._is_quiet:
            self.say(text)


class _Bar(Progress):
    """The progress bar, with a line below it while the client waits."""

    def __init__(self, messages: Console, total: int, *, is_shown: bool) -> None:
        self._failed = 0
        self._wait: tuple[str, float] | None = None
        columns = (
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _Pace(),
            TextColumn("{task.fields[failures]}", style="red"),
        )
        super().__init__(
            *columns,
            console=messages,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not is_shown,
            expand=True,
        )
        self._task: TaskID = self.add_task("", total=total, failures="")

    def advance_by_one(self, *, is_failed: bool) -> None:
        self._failed += is_failed
        self._wait = None
        self.update(self._task, advance=1, failures=f"{self._failed} failed" if self._failed else "")

    def wait(self, reason: str, seconds: float) -> None:
        self._wait = (reason, monotonic() + seconds)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self._wait is not None:
            reason, until_s = self._wait
            if (left_s := ceil(until_s - monotonic())) > 0:
                yield Text(f"Waiting {left_s} s: {reason}", style="yellow", no_wrap=True, overflow="ellipsis")


class _Pace(ProgressColumn):
    """Images a second and the time left, from the mean since the start: a rate limit makes any shorter span jump."""

    def render(self, task: Task) -> Text:
        if not task.completed or not task.elapsed:
            return Text("")
        rate = task.completed / task.elapsed
        left_s = (task.remaining or 0) / rate
        pace = f"{rate:.1f}/s" if rate >= 1 else f"{rate * 60:.1f}/min"
        return Text(f"{pace}, {duration(left_s)} left", style="cyan")


class _LogHandler(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.INFO)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.note_record(record)


def duration(seconds: float) -> str:
    """Write a time as `12 s`, `3:05 min` or `1:02 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours}:{rest:02} h"


def _is_one_terminal() -> bool:
    """Whether standard output and standard error are the same terminal."""
    try:
        return (
            sys.stdout.isatty()
            and sys.stderr.isatty()
            and os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
        )
    except (OSError, ValueError):  # no file behind them
        return False
