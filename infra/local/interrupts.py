"""Signals that stop a program which runs the stack in the foreground."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ECHO_S = 1.0
"""One Ctrl-C reaches a program more than once, because uv and just, which run it, pass it on as well."""

RUNNERS = {"uv", "just"}
"""The programs between the terminal and this one after `uv run just dev`."""
RUNNERS_S = 1.0


class Interrupts:
    """Turns Ctrl-C, SIGTERM and a closed terminal into KeyboardInterrupt: the first to stop, the second to kill.

    If uv or just dies, it cannot pass on a signal, so its death counts as a SIGTERM.
    """

    def __init__(self) -> None:
        self._first_s: float | None = None

    def install(self) -> None:
        """Install the signal handlers, except where the caller (`nohup`, a background job) ignores the signal."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._receive)
        if runners := _runners():
            threading.Thread(target=self._follow, args=(runners,), daemon=True).start()

    def _follow(self, runners: Sequence[tuple[int, int]]) -> None:
        """Stop when uv or just ends: its child process then has another parent."""
        while all(_describe(process)[0] == parent for process, parent in runners):
            time.sleep(RUNNERS_S)
        if self._first_s is None:
            os.kill(os.getpid(), signal.SIGTERM)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._first_s is None:
            self._first_s = now_s
        elif now_s - self._first_s < ECHO_S:
            return
        else:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt


@contextmanager
def held() -> Iterator[None]:
    """Block the signals while the block runs, which must not be interrupted; deliver one of them afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    handlers = {number: signal.signal(number, lambda received, _: caught.append(received)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if caught:
        signal.raise_signal(caught[0])


def _runners() -> list[tuple[int, int]]:
    """Return the process IDs from this process up to the outermost uv or just, each with its parent's."""
    chain = []
    process = os.getpid()
    parent, _ = _describe(process)
    while parent:
        grandparent, name = _describe(parent)
        if name not in RUNNERS:
            break
        chain.append((process, parent))
        process, parent = parent, grandparent
    return chain


def _describe(process: int) -> tuple[int, str]:
    """Return a process's parent and its program; 0 and an empty string if there is no such process."""
    if Path("/proc/self").exists():
        try:
            stat = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            return 0, ""
        name, _, rest = stat.partition("(")[2].rpartition(")")
        return int(rest.split()[1]), name
    command = ["ps", "-o", "ppid=,comm=", "-p", str(process)]
    parent, _, name = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().partition(" ")
    return int(parent or 0), Path(name.strip()).name
