"""API processes of a test's own, beside or instead of the stack's, on a Redis that is there."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx

from addresses import Addresses
from waiting import wait_until


@contextmanager
def two_apis(redis_url: str, **variables: str) -> Iterator[tuple[str, str]]:
    """Start two API processes with the same settings; give their URLs once both answer, and stop them in the end."""
    free = Addresses.choose({}, free_ports=True)
    ports = (free.api_port, free.dashboard_port)
    with ExitStack() as processes:
        for port in ports:
            environment = os.environ | {"REDIS_URL": redis_url, "LOG_LEVEL": "WARNING", "API_PORT": str(port)}
            process = subprocess.Popen([sys.executable, "-m", "image_analysis_api"], env=environment | variables)
            processes.callback(process.wait)
            processes.callback(process.send_signal, signal.SIGTERM)
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        for url in urls:
            wait_until(lambda url=url: _answers(url), f"the API at {url} answers")
        yield urls[0], urls[1]


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.ConnectError:
        return False
