"""Runs supervisord as a child process; it leaves nothing behind, even if this process is killed.

Does not know the programs; they are in `infra/supervisord.conf`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from configparser import RawConfigParser
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, NamedTuple
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

import guardian
from addresses import StackError

CONFIGURATION = Path(__file__).resolve().parents[1] / "supervisord.conf"

STOP_S = guardian.STOP_S + guardian.LEFT_BEHIND_S + guardian.KILL_S


class Refusal(NamedTuple):
    """A program that ended because it cannot start, and its message, if it is known."""

    program: str
    code: int
    said: str


class Supervisord:
    """One supervisord and its programs, in a separate session: Ctrl-C in the terminal does not reach them.

    Their output is appended to `log`, or goes to our standard output. They end when this process does: the guardian,
    our child and their parent, notices the end of its standard input. It removes `directory` too.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str], log: Path | None) -> None:
        self._directory = directory
        self._socket = directory / "supervisord.sock"
        command = [sys.executable, guardian.__file__, str(directory)]
        command += [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "--configuration", str(CONFIGURATION)]
        if os.geteuid() == 0:
            command += ["--user", "root"]  # avoids the warning that no user is set
        output: AbstractContextManager[IO[bytes] | None] = log.open("ab") if log else nullcontext()
        with output as stdout:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stdout,
                # torch leaves a folder in the temporary directory, which is removed with ours.
                env={**environment, "STACK_DIRECTORY": str(directory), "TMPDIR": str(directory)},
                start_new_session=True,
            )

    def refusals(self) -> list[Refusal]:
        """List the programs that ended with one of their `exitcodes`: they cannot start.

        Raises:
            StackError: supervisord has ended.
        """
        if (code := self._process.poll()) is not None:
            raise StackError(f"supervisord ended with exit code {code}: see its last lines.")
        with suppress(FileNotFoundError):  # not there yet
            lines = (self._directory / guardian.EXITS).read_text().splitlines(keepends=True)
            exits = [Refusal(*json.loads(line)) for line in lines if line.endswith("\n")]
            return [ended for ended in exits if ended.code in _read_exit_codes(ended.program)]
        return []

    @contextmanager
    def calls(self) -> Iterator[Any]:
        """Connect to supervisord's XML-RPC interface.

        Raises:
            StackError: supervisord does not answer, or a call was a Fault that the block did not handle.
        """
        # The password is in the configuration; only we can open the directory of the socket.
        transport = SupervisorTransport("stack", "stack", f"unix://{self._socket}")
        with ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            try:
                yield proxy.supervisor
            except Fault as fault:
                raise StackError(f"supervisord refuses: {fault.faultString}") from fault
            except (OSError, HTTPException) as error:
                raise StackError(f"supervisord does not answer: {error}") from error

    def stop(self) -> None:
        """Stop every program, within time limits."""
        self._close_input()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)

    def kill(self) -> None:
        """Kill everything that still runs; does nothing after a successful `stop`."""
        self._close_input()
        self._process.kill()
        self._process.wait()
        guardian.end_session(self._process.pid)

    def _close_input(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


def _read_exit_codes(program: str) -> set[int]:
    configuration = RawConfigParser()
    configuration.read(CONFIGURATION)
    return {int(code) for code in configuration[f"program:{program}"]["exitcodes"].split(",")}
