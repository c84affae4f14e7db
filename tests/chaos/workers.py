"""Worker processes: forked from a server that has imported torch, or started as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from chaos import misbehaving
from support.reaper import Reaper
from support.waiting import PATIENCE_S, wait_until

LogLine = dict[str, Any]


class LogFile:
    """The log of a process, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def events(self, *names: str) -> list[LogLine]:
        """Read the lines of these events; a line that is still being written is skipped."""
        if not self.path.exists():
            return []
        whole = self.path.read_text().rpartition("\n")[0]
        lines = (json.loads(line) for line in whole.splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] in names]


class Worker:
    """One worker process, loaded and waiting for `begin`.

    A fork of a server that has only imported torch is ready after 0.2 s of CPU; a fresh start takes 7 s, too much for
    sixty kills. Everything after the imports is the same.
    """

    def __init__(
        self, context: ForkServerContext, reaper: Reaper, log: Path, environment: Mapping[str, str], *, is_program: bool
    ) -> None:
        self._reaper = reaper
        self._pipe, theirs = context.Pipe()
        target = misbehaving.run_program if is_program else misbehaving.run
        self._process: ForkServerProcess = context.Process(
            target=target, args=(theirs, str(log), dict(environment)), daemon=True
        )
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self._reaper.watch(self.pid)
        self.log = LogFile(log)
        self.begun_s: float | None = None

    @property
    def exit_code(self) -> int | None:
        """None while it lives; minus the signal's number if a signal ended it."""
        return self._process.exitcode

    @property
    def name(self) -> str:
        """Its name in RQ; waits until it is registered."""
        [started] = wait_until(lambda: self.log.events("worker_started"), "the worker has a name")
        return str(started["worker"])

    def begin(self) -> "Worker":
        """Let it serve."""
        assert self._pipe.poll(PATIENCE_S), f"the worker is not ready: {self.log.path.read_text()}"
        assert self._pipe.recv() == "ready"
        self._pipe.send("serve")
        self.begun_s = time.monotonic()
        return self

    def report(self, method: str) -> None:
        """Ask it to report the next call of `method` of its model."""
        self._pipe.send(method)

    def wait_for_report(self, timeout_s: float = 20) -> int:
        """Return the number of images with which the method was entered; 0 if it was not entered in time."""
        return int(self._pipe.recv()) if self._pipe.poll(timeout_s) else 0

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = 30) -> int:
        """Wait for its end and return its exit code."""
        self._process.join(timeout_s)
        assert self.exit_code is not None, f"the worker still runs after {timeout_s} s: {self.log.path.read_text()}"
        self.close()
        return self.exit_code

    def close(self) -> None:
        """End it if it still lives."""
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._reaper.forget(self.pid)
        self._pipe.close()


class Program:
    """A program of the service in a separate process, as a user starts it."""

    def __init__(self, reaper: Reaper, module: str, log: Path, environment: Mapping[str, str]) -> None:
        self._reaper = reaper
        variables = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module], env=variables, stdout=output, stderr=subprocess.STDOUT
            )
        reaper.watch(self.process.pid)
        self.log = LogFile(log)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reaper.forget(self.process.pid)


class Crew:
    """Some workers, kept running as by a supervisor: a spare that is already loaded replaces a dead one at once."""

    def __init__(self, start: Callable[[], Worker], *, size: int = 2, spares: int = 2) -> None:
        self._start = start
        self._spares = [start() for _ in range(spares)]
        self.working = [start().begin() for _ in range(size)]
        self.gone: list[Worker] = []

    @property
    def exit_codes(self) -> list[int | None]:
        """The exit codes of the ended workers, in the order of their ends."""
        return [worker.exit_code for worker in self.gone]

    def tend(self) -> None:
        """Replace the workers that have ended since the last call."""
        for worker in [worker for worker in self.working if worker.exit_code is not None]:
            self.replace(worker)

    def replace(self, worker: Worker) -> None:
        """Let a spare take the place of a worker that has ended."""
        worker.wait()
        self.gone.append(worker)
        self.working[self.working.index(worker)] = self._spares.pop(0).begin()
        self._spares.append(self._start())

    def dismiss(self) -> list[int]:
        """Stop all workers as a deployment does; return the exit codes."""
        for worker in self.working:
            worker.signal(signal.SIGTERM)
        return [worker.wait() for worker in self.working]
