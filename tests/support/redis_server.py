"""A Redis for one test, with the service's configuration, that can be stopped, killed and paused."""

import multiprocessing
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from addresses import LOOPBACK, Addresses, find_redis_server
from support.reaper import Reaper
from support.waiting import wait_until

CONFIGURATION = Path(__file__).parents[2] / "infra" / "redis" / "redis.conf"


class RedisServer:
    """Listens on the same port of loopback after each restart; its append-only file is in `directory`."""

    def __init__(
        self,
        directory: Path,
        reaper: Reaper,
        configuration: Path = CONFIGURATION,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = directory
        self._reaper = reaper
        self._configuration = configuration
        self._environment = environment or {}
        self._port = Addresses.choose({}, free_ports=True).redis_port
        self._process: subprocess.Popen[bytes] | None = None
        self.address = (LOOPBACK, self._port)
        self.url = f"redis://{LOOPBACK}:{self._port}/0"

    def start(self) -> None:
        """Start, or restart with the content of the append-only file; return when it answers."""
        self.launch()
        wait_until(self.is_answering, "Redis answers")

    def launch(self, *options: str) -> None:
        """Start with additional options; do not wait."""
        environment = os.environ | self._environment
        command = [str(find_redis_server(environment["PATH"])), str(self._configuration)]
        command += ["--bind", LOOPBACK, "--port", str(self._port), "--dir", str(self._directory)]
        # Publishes each result as it is written, so that a kill can follow at once.
        command += ["--notify-keyspace-events", "Kh", *options]
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            restore_signals=False,  # Python ignores SIGXFSZ: a file at its limit is an error, not the end
        )
        self._reaper.watch(self._process.pid)

    def limit_files(self, size_bytes: int) -> None:
        """Let files grow to this size only, as on a full disk; -1 is without a limit."""
        assert self._process is not None
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))

    def is_answering(self) -> bool:
        with Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as redis:
            try:
                return bool(redis.ping())
            except RedisError:
                return False

    def is_listening(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self._port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Stop it in order: it writes its data first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it; every write that it has answered is in its file."""
        # Otherwise, writes stay in its memory while it syncs the file.
        with suppress(RedisError), Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as redis:
            redis.config_set("appendfsync", "no")
        self._end(signal.SIGKILL)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause it: it keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait(timeout=30)
        self._reaper.forget(self._process.pid)
        self._process = None


@contextmanager
def run_redis(directory: Path, environment: Mapping[str, str] | None = None) -> Iterator[RedisServer]:
    """Run a Redis, and kill it at the end of the block, or when the tests end in any other way."""
    reaper = Reaper(multiprocessing.get_context("forkserver"))
    server = RedisServer(directory, reaper, environment=environment)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        reaper.close()
