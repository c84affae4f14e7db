"""The whole service on one machine, for developers and for tests of every process together.

It chooses the settings of the programs, checks when they are ready, and leaves nothing behind. The programs are `redis`
(unless the caller has one), `worker`, `second_worker` (only if SECOND_MODEL_ID names its model), `api`, `deliverer`
and `dashboard`.
"""

import os
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self
from xmlrpc.client import Fault

from supervisor.xmlrpc import Faults  # type: ignore[import-untyped]

from addresses import LOOPBACK, Addresses, StackError, find_redis_server
from image_analysis_api.webhook_secrets import WebhookSecret
from interrupts import held
from supervision import Supervisord

READY_S = 300.0
POLL_S = 0.5


class Stack:
    """Redis, worker, API, deliverer and dashboard as supervised processes, which run while the block runs.

    The programs get the caller's environment, overridden by `environment`; an empty variable counts as unset. With
    `free_ports`, unused ports are chosen; otherwise API_PORT and the like are used. All output of the programs is
    appended to the file `log`; without `log`, it goes to standard output. It has `ready_s` to become ready.

    Raises:
        StackError: a variable is malformed; on entering: the stack cannot start. Then nothing is left behind.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        free_ports: bool = False,
        log: Path | None = None,
        ready_s: float = READY_S,
    ) -> None:
        self._environment = {**os.environ, **(environment or {})}
        self._addresses = Addresses.choose(self._environment, free_ports=free_ports)
        self._log, self._ready_s = log, ready_s
        self._directory: TemporaryDirectory[str] | None = None
        self._running: Supervisord | None = None
        self.api_url = f"http://{LOOPBACK}:{self._addresses.api_port}"
        self.metrics_urls = [
            f"http://{LOOPBACK}:{port}/metrics"
            for port in (
                self._addresses.api_metrics_port,
                self._addresses.worker_metrics_port,
                self._addresses.deliverer_metrics_port,
            )
        ]
        self.dashboard_url = f"http://{LOOPBACK}:{self._addresses.dashboard_port}"
        self.redis_url = self._addresses.redis_url
        self.has_own_secret = not self._environment.get("WEBHOOK_SECRET")
        self.webhook_secret = self._environment.get("WEBHOOK_SECRET") or str(WebhookSecret.make())

    def __enter__(self) -> Self:
        try:
            self._start()
            self.wait_until_ready(self._ready_s)
        except BaseException:  # Ctrl-C as well: a half-started stack must be stopped
            self.stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def wait_until_ready(self, timeout_s: float = READY_S) -> None:
        """Wait until the API says that images are analyzed and the dashboard answers.

        A killed worker counts as live until its last heartbeat is too old.

        Raises:
            StackError: not in time (the message says what is missing), or `check` failed.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            self.check()
            missing = [
                *_missing("the API", self._addresses.api_port, "/health/ready"),
                *_missing("the dashboard", self._addresses.dashboard_port, "/"),
            ]
            if not missing:
                return
            if time.monotonic() > deadline_s:
                raise StackError(f"Not ready after {timeout_s:.0f} s: {'; '.join(missing)}")
            time.sleep(POLL_S)

    def check(self) -> None:
        """Raise StackError if supervisord has ended, or, with a program's own message, if the program cannot start."""
        for program, code, said in self._supervisord.refusals():
            raise StackError(said or f"{program} cannot start (exit code {code}): see its last lines in the log.")

    def pid(self, program: str) -> int:
        """Return the ID of the process that runs a program now.

        Raises:
            StackError: the program is unknown, or not running at the moment.
        """
        with self._supervisord.calls() as supervisor:
            process_id = int(supervisor.getProcessInfo(program)["pid"])
        if not process_id:
            raise StackError(f"{program} is not running.")
        return process_id

    def restart(self, program: str) -> None:
        """Stop a program as a shutdown does and start it again; wait for its end, but not until it is ready.

        Raises:
            StackError: the program is unknown, or cannot be started.
        """
        with self._supervisord.calls() as supervisor:
            try:
                supervisor.stopProcess(program)
            except Fault as fault:
                if fault.faultCode != Faults.NOT_RUNNING:
                    raise
            supervisor.startProcess(program, False)

    def stop(self) -> None:
        """Stop every program, kill those that do not end, remove the temporary directory; Ctrl-C kills at once."""
        try:
            if self._running is not None:
                self._running.stop()
        finally:
            with held():
                if self._running is not None:
                    self._running.kill()
                if self._directory is not None:
                    self._directory.cleanup()
                self._running = self._directory = None

    @property
    def _supervisord(self) -> Supervisord:
        if self._running is None:
            raise StackError("The stack is not running.")
        return self._running

    def _start(self) -> None:
        addresses = self._addresses
        addresses.check()
        redis_server = find_redis_server(self._environment.get("PATH", "")) if addresses.owns_redis else None
        second_model = self._environment.get("SECOND_MODEL_ID", "")
        variables = {
            "API_HOST": LOOPBACK,
            "API_PORT": str(addresses.api_port),
            "METRICS_HOST": LOOPBACK,
            "API_METRICS_PORT": str(addresses.api_metrics_port),
            "WORKER_METRICS_PORT": str(addresses.worker_metrics_port),
            "DELIVERER_METRICS_PORT": str(addresses.deliverer_metrics_port),
            "WEBHOOK_SECRET": self.webhook_secret,
            "DASHBOARD_PORT": str(addresses.dashboard_port),
            "REDIS_PORT": str(addresses.redis_port),
            "REDIS_URL": addresses.redis_url,
            "REDIS_SENTINELS": "",
            "RQ_DASHBOARD_REDIS_URL": addresses.redis_url,
            "API_URL": self.api_url,
            "PYTHONUNBUFFERED": "1",
            "SECOND_MODEL_ID": second_model,
            "STACK_HAS_SECOND_MODEL": str(bool(second_model)),
            "STACK_OWNS_REDIS": str(addresses.owns_redis),
            "STACK_PYTHON": sys.executable,
            "STACK_REDIS_SERVER": str(redis_server),
        }
        with held():
            self._directory = TemporaryDirectory(prefix="image-analysis-", ignore_cleanup_errors=True)
            self._running = Supervisord(Path(self._directory.name), self._environment | variables, self._log)


def _missing(name: str, port: int, path: str) -> list[str]:
    """Say what is wrong with a part; return an empty string if it answers as it should."""
    with closing(HTTPConnection(LOOPBACK, port, timeout=5)) as connection:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read(300).decode(errors="replace")
        except (OSError, HTTPException):
            return [f"{name} does not answer on port {port}"]
    return [] if answer.status == HTTPStatus.OK else [f"{name} answers {answer.status} to GET {path}: {text}"]
