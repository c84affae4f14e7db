"""Starts the processes of the benchmark, including its Redis, and ends them with the benchmark.

Each program has a separate process group, so that it can be paused and ended together with its children.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from perf.machine import cpu_s

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).parent / "scripts"

POLL_S = 0.01
STOP_S = 10.0
TAIL_LINES = 20

T = TypeVar("T")


class ProgramError(Exception):
    """A program did not start, died or hung; the message ends with the last lines of its log."""


class Program:
    """One child process with its log in `folder`; it ends with the block."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        variables: Mapping[str, str] | None = None,
        *,
        has_pipes: bool = False,
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        self._is_stopped = False
        # The output is kept in case the program fails; RQ finds its tasks by the path.
        environment = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **(variables or {})}
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(SCRIPTS)]))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE if has_pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if has_pipes else log,
                stderr=log,
                env=os.environ | environment | {"PYTHONPATH": path},
                cwd=folder,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the program and the rest of its group; a second call does nothing."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def pause(self) -> None:
        """Pause the program and its children."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def cpu_s(self) -> float:
        """Return the CPU seconds of the program itself."""
        return cpu_s(self._process.pid)

    def ask(self, line: str) -> str:
        """Send a line to a program with pipes; return the line that it answers."""
        if self._process.stdin is None or self._process.stdout is None:
            raise ProgramError(f"{self.name} has no pipes")
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the program has ended
        answer = self._process.stdout.readline()
        if not answer:
            raise ProgramError(f"{self.name} has ended:\n{self._tail()}")
        return answer.decode()

    def wait_until(self, predicate: Callable[[], T], description: str, timeout_s: float = 60.0) -> T:
        """Return the first true value of `predicate`.

        Raises:
            ProgramError: not in time, or the program has ended.
        """
        deadline_s = time.monotonic() + timeout_s
        while not (value := predicate()):
            if (code := self._process.poll()) is not None:
                raise ProgramError(f"{self.name} ended with {code} before {description}:\n{self._tail()}")
            if time.monotonic() > deadline_s:
                raise ProgramError(f"{self.name}: not within {timeout_s:.0f} s: {description}\n{self._tail()}")
            time.sleep(POLL_S)
        return value

    def finish(self, timeout_s: float = 120.0) -> None:
        """Wait until the program ends.

        Raises:
            ProgramError: not in time, or it failed.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ProgramError(f"{self.name}: not done within {timeout_s:.0f} s\n{self._tail()}") from error
        if code:
            raise ProgramError(f"{self.name} ended with {code}:\n{self._tail()}")

    def wait_for_port(self, port: int, timeout_s: float = 120.0) -> None:
        """Wait until something listens on a port of loopback."""

        def listens() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        self.wait_until(listens, "it listens", timeout_s)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


def free_port() -> int:
    """Find a port of loopback that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_redis(folder: Path) -> tuple[Program, str]:
    """Start a Redis as the service configures it, on a Unix socket; return it and its URL.

    Raises:
        ProgramError: it does not start.
    """
    sys.path.append(str(ROOT / "infra" / "local"))
    from addresses import find_redis_server

    listener = folder / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(listener), "--dir", str(folder)]
    # Rewriting the append-only file uses a core for a second or two, which would slow a random row.
    options += ["--auto-aof-rewrite-percentage", "0"]
    server = Program(
        "redis",
        [find_redis_server(os.environ.get("PATH", "")), ROOT / "infra" / "redis" / "redis.conf", *options],
        folder,
    )
    server.wait_until(listener.exists, "it listens")
    return server, f"unix://{listener}"
