"""A process that outlives the tests briefly and kills the processes that they leave behind, even after a crash."""

import os
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext


class Reaper:
    """Knows every process that the tests have started and that has not ended."""

    def __init__(self, context: ForkServerContext) -> None:
        self._pids, theirs = context.Pipe()
        self._lock = threading.Lock()
        self._process = context.Process(target=_reap, args=(theirs,))
        self._process.start()
        theirs.close()

    def watch(self, pid: int) -> None:
        with self._lock:
            self._pids.send(pid)

    def forget(self, pid: int) -> None:
        with self._lock:
            self._pids.send(-pid)

    def close(self) -> None:
        self._pids.close()
        self._process.join(timeout=10)


def _reap(pids: Connection) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    running: set[int] = set()
    with suppress(EOFError):
        while pid := pids.recv():
            running.add(pid) if pid > 0 else running.discard(-pid)
    for pid in running:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
