"""How a program that runs the stack in the foreground is told to stop."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ECHO_S = 1.0
"""One Ctrl-C reaches a program more than once when uv and just, which run it, pass it on as well."""


class Interrupts:
    """Turn Ctrl-C, SIGTERM and a closed terminal into KeyboardInterrupt: once to stop, once more to stop hard."""

    def __init__(self) -> None:
        self._first_s: float | None = None

    def install(self) -> None:
        """Take the signals over, except those that the caller (`nohup`, a background job) has us ignore."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._receive)

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
    """Hold the signals back for a moment that must not be cut in two, and deliver one of them after it."""
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
