"""A Redis of a test's own, configured as the service configures it, that can be stopped, killed and paused."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Listens on one port of loopback through all its lives; its append-only file lies in `directory`."""

    def __init__(self, directory: Path, reaper: Reaper) -> None:
        self._directory = directory
        self._reaper = reaper
        self._port = Addresses.choose({}, free_ports=True).redis_port
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://{LOOPBACK}:{self._port}/0"

    def start(self) -> None:
        """Start, or start again with what the append-only file holds; return when it answers."""
        self.launch()
        wait_until(self.is_answering, "Redis answers")

    def launch(self, *options: str) -> None:
        """Start with more options; do not wait."""
        command = [str(find_redis_server(os.environ["PATH"])), str(CONFIGURATION)]
        command += ["--bind", LOOPBACK, "--port", str(self._port), "--dir", str(self._directory)]
        # Tells of each result as it is written, so that a kill can follow at once.
        command += ["--notify-keyspace-events", "Kh", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._reaper.watch(self._process.pid)

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
        """Let it write what it has and end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; what it has answered for is in its file."""
        self._end(signal.SIGKILL)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it keep its connections and answer nothing."""
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
