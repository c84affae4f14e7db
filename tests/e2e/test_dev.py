"""`just dev`: its output and settings, and its end if a program cannot start or something is killed."""

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from addresses import DEFAULT_PORTS, Addresses, StackError
from stack import Stack
from support.samples import base64_body, make_png
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]
READY_S = 180
FOUND_OUT_S = 60
"""Longest time from the message of a program that cannot start to the end of everything."""
STOPPED_S = 120

PROCESSES = {
    "outer uv": r"uv run just dev$",
    "just": r"^\S*just dev$",
    "dev.py": r"^\S*python infra/local/dev.py$",
    "guardian": r"guardian\.py",
    "supervisord": r"^\S+ -m supervisor\.supervisord",
    "Redis": r"^\S*(redis|valkey)-server ",
    "worker": r" -m image_analysis_worker$",
    "API": r" -m image_analysis_api$",
    "deliverer": r" -m image_analysis_api\.deliverer$",
    "dashboard": r" --bind 127\.0\.0\.1 .*--json$",
}
"""Command lines of the processes of `uv run just dev`."""


class Dev:
    """`uv run just dev` on unused ports."""

    def __init__(self, directory: Path, **variables: str) -> None:
        free = Addresses.choose({}, free_ports=True)
        self.api_url = f"http://127.0.0.1:{free.api_port}"
        self.directory = directory
        self._log = directory / "log"
        self._redis = f"-server 127.0.0.1:{free.redis_port}"
        self._mark = f"IMAGE_ANALYSIS_TEST={uuid.uuid4()}"
        settings = {
            **{name: str(getattr(free, name.lower())) for name in DEFAULT_PORTS},
            **dict.fromkeys(("REDIS_URL", "REDIS_HOST", "LOG_FORMAT", "MODEL_ID", "SECOND_MODEL_ID"), ""),
            **dict.fromkeys(("RATE_LIMIT_MAX_REQUESTS", "RATE_LIMIT_INTERVAL_SECONDS"), ""),
            **dict([self._mark.split("=")]),
            "TMPDIR": str(directory),
            "UV_PYTHON": sys.executable,
        }
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [os.environ.get("UV", "uv"), "run", "just", "dev"],
                cwd=ROOT,
                env=os.environ | settings | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def says(self) -> str:
        return self._log.read_text()

    def pids(self) -> dict[str, int]:
        """Find every live process, by name or else by its command line."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (folder / "cmdline").read_text().replace("\0", " ").strip()
                # Redis overwrites its environment with its title.
                if self._mark in (folder / "environ").read_text().split("\0") or self._redis in command:
                    names = [name for name, pattern in PROCESSES.items() if re.search(pattern, command)]
                    found[names[0] if names else command] = int(folder.name)
        return found

    def kill(self, *names: str) -> None:
        """Kill some processes when everything has been started."""

        def started() -> dict[str, int] | None:
            pids = self.pids()
            return pids if PROCESSES.keys() <= pids.keys() else None

        pids = wait_until(started, "everything is started")
        for name in names:
            os.kill(pids[name], signal.SIGKILL)

    def close(self) -> None:
        """End it as Ctrl-C does, if it has not ended."""
        self._process.terminate()
        self._process.wait(60)
        for pid in self.pids().values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start() -> Iterator[Callable[..., Dev]]:
    with ExitStack() as exits:
        # pytest's own folder has too long a path for a Unix socket.
        directory = exits.enter_context(TemporaryDirectory())

        def start(**variables: str) -> Dev:
            dev = Dev(Path(directory), **variables)
            exits.callback(dev.close)
            return dev

        yield start


def test_developer_has_a_high_rate_limit_and_reads_about_it(start: Callable[..., Dev]) -> None:
    dev = start()
    wait_until(lambda: "Ctrl-C stops everything" in dev.says(), "the stack is ready", READY_S)

    with httpx.Client(base_url=dev.api_url, trust_env=False) as client:
        answers = [client.post("/analyze-image", json=base64_body(make_png(n))).status_code for n in range(12)]

    assert answers == [202] * 12
    assert f"Ready.\n  Page         {dev.api_url}/\n" in dev.says()
    assert re.search("Rate limit +1000 images in 60 s .*RATE_LIMIT_MAX_REQUESTS", dev.says())


def test_program_that_cannot_start_ends_everything_with_its_own_line_last(start: Callable[..., Dev]) -> None:
    dev = start(MODEL_ID="./tests")
    refusals = re.compile(r"^image-analysis-worker: .*$", re.MULTILINE)
    refusal = wait_until(lambda: refusals.search(dev.says()), "the worker has found out", READY_S)

    wait_until(lambda: not dev.pids(), "everything has ended", FOUND_OUT_S)

    assert dev.says().splitlines()[-1] == f"error: {refusal[0]}"
    assert len(re.findall("spawned: 'worker'", dev.says())) == 1


@pytest.mark.parametrize(
    "killed",
    [("outer uv",), ("just",), ("guardian",), ("supervisord",), ("dev.py", "supervisord")],
    ids=" and ".join,
)
def test_nothing_outlives_what_is_killed(start: Callable[..., Dev], killed: tuple[str, ...]) -> None:
    dev = start()

    dev.kill(*killed)

    wait_until(lambda: not dev.pids(), "everything has ended", STOPPED_S)
    assert list(dev.directory.glob("image-analysis-*")) == []


def test_nothing_outlives_dev_py_and_supervisord_stops_redis_last_and_cleanly(start: Callable[..., Dev]) -> None:
    dev = start()

    dev.kill("dev.py")

    wait_until(lambda: not dev.pids(), "everything has ended", STOPPED_S)
    assert list(dev.directory.glob("image-analysis-*")) == []
    ends = re.findall(r"stopped: (\w+) \(exit status (\d+)\)", dev.says())
    assert ends[-1] == ("redis", "0")


def test_worker_that_is_killed_at_its_start_is_restarted_without_effect_on_others(stack: Stack) -> None:
    others = {name: stack.pid(name) for name in ("redis", "api", "deliverer", "dashboard")}

    killed = {0}
    for _ in range(1 + 6):  # the worker itself, then its restarts
        worker = wait_until(lambda: {find(stack, "worker")} - killed, "the worker is started again").pop()
        os.kill(worker, signal.SIGKILL)
        killed.add(worker)
    stack.wait_until_ready()

    assert {name: stack.pid(name) for name in others} == others


def find(stack: Stack, program: str) -> int:
    try:
        return stack.pid(program)
    except StackError:
        return 0
