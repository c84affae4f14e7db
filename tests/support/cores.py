"""Time without the waits for a free core, which a busy machine adds to everything; on Linux."""

import time
from contextlib import suppress
from pathlib import Path


class Stopwatch:
    """Measures a call from this thread to a service, less the time that both had work to do but no core."""

    def __init__(self, process: int, *, has_busy_threads: bool = False) -> None:
        """`process` is the service's; `has_busy_threads` says whether this thread also waits for other ones here."""
        self._process = process
        self._ours = "self/task/*" if has_busy_threads else "thread-self"
        self._started_s, self._waits_s = time.monotonic(), self._waits()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s - self.waited_s

    @property
    def waited_s(self) -> float:
        # A thread that has ended has taken its waits with it.
        return sum(max(0.0, now - before) for now, before in zip(self._waits(), self._waits_s, strict=True))

    def _waits(self) -> tuple[float, float]:
        return _read_waits(f"{self._process}/task/*"), _read_waits(self._ours)


def _read_waits(threads: str) -> float:
    """Read how long some threads were ready to run but waited for a core, in seconds."""
    waits_ns = 0
    for path in Path("/proc").glob(f"{threads}/schedstat"):
        with suppress(OSError):  # it has ended
            waits_ns += int(path.read_text().split()[1])
    return waits_ns / 1e9
