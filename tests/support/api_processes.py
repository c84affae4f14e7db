"""Processes that a test starts, in addition to the stack or without one, on an existing Redis."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from addresses import Addresses
from support.waiting import wait_until

WORKER = [sys.executable, "-m", "image_analysis_worker"]
DELIVERER = [sys.executable, "-m", "image_analysis_api.deliverer"]
# A low limit on open files, as on many systems: the API raises it as far as it needs.
COMMAND = ["sh", "-c", 'ulimit -S -n 256; exec "$@"', "sh", sys.executable, "-m", "image_analysis_api"]


@contextmanager
def one_api(redis_url: str, log: Path | None = None, /, **variables: str) -> Iterator[str]:
    """Start an API process, give its URL when it answers, and stop it at the end."""
    with api_process(redis_url, log, **variables) as (url, _):
        yield url


@contextmanager
def api_process(redis_url: str, log: Path | None = None, /, **variables: str) -> Iterator[tuple[str, int]]:
    """Start an API process; give its URL and its ID."""
    port = Addresses.choose({}, free_ports=True).api_port
    with run_service(COMMAND, redis_url, log, **{"LOG_LEVEL": "WARNING", "API_PORT": str(port)} | variables) as pid:
        url = f"http://127.0.0.1:{port}"

        def is_ready() -> bool:
            assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, "the API has ended"
            return _answers(url)

        wait_until(is_ready, f"the API at {url} answers")
        yield url, pid


@contextmanager
def run_service(command: Sequence[str], redis_url: str, log: Path | None = None, /, **variables: str) -> Iterator[int]:
    """Start a service's process, give its ID, and stop it at the end, also after an error."""
    with ExitStack() as exits:
        output = exits.enter_context(log.open("wb")) if log else None
        process = subprocess.Popen(command, env=os.environ | {"REDIS_URL": redis_url} | variables, stdout=output)
        exits.callback(process.wait)
        exits.callback(process.send_signal, signal.SIGTERM)
        yield process.pid


@contextmanager
def two_apis(redis_url: str, **variables: str) -> Iterator[tuple[str, str]]:
    """Start two API processes with the same settings."""
    with one_api(redis_url, **variables) as first, one_api(redis_url, **variables) as second:
        yield first, second


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.TransportError:
        return False
