"""supervisord as a child: started, asked, stopped, and nothing of it left.

Knows no program by name; what runs is in `infra/supervisord.conf`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from typing import IO, Any
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

from addresses import StackError

CONFIGURATION = Path(__file__).resolve().parents[1] / "supervisord.conf"

STOP_S = 90.0
"""The programs are stopped one after another: longer than the sum of their `stopwaitsecs`."""


class Supervisord:
    """One supervisord and its programs, in a session of their own: Ctrl-C in the terminal does not reach them.

    What they say is appended to `log`, or passed on to our standard output.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str], log: Path | None) -> None:
        self._socket = directory / "supervisord.sock"
        command = [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "--configuration", str(CONFIGURATION)]
        if os.geteuid() == 0:
            command += ["--user", "root"]  # spares a warning that no user is set
        # A pipe, not our own output: supervisord opens its output by name, which fails for a socket.
        output: AbstractContextManager[IO[bytes] | int] = log.open("ab") if log else nullcontext(subprocess.PIPE)
        with output as stdout:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                # torch leaves a folder in the temporary directory: it goes with ours.
                env={**environment, "STACK_DIRECTORY": str(directory), "TMPDIR": str(directory)},
                start_new_session=True,
            )
        self._relay: Thread | None = None
        if self._process.stdout is not None:
            self._relay = Thread(target=_relay, args=(self._process.stdout,), daemon=True)
            self._relay.start()

    def states(self) -> dict[str, str]:
        """Name each program's state as supervisord does; none while supervisord comes up or goes down.

        Raises:
            StackError: supervisord has ended.
        """
        if (code := self._process.poll()) is not None:
            raise StackError(f"supervisord ended with exit code {code}: see its last lines.")
        with suppress(StackError), self.calls() as supervisor:
            return {program["name"]: program["statename"] for program in supervisor.getAllProcessInfo()}
        return {}

    @contextmanager
    def calls(self) -> Iterator[Any]:
        """Give supervisord's XML-RPC interface.

        Raises:
            StackError: supervisord does not answer, or a call was a Fault that the block did not handle.
        """
        # The password is that of the configuration; the socket lies in a directory that only we enter.
        transport = SupervisorTransport("stack", "stack", f"unix://{self._socket}")
        with ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            try:
                yield proxy.supervisor
            except Fault as fault:
                raise StackError(f"supervisord refuses: {fault.faultString}") from fault
            except (OSError, HTTPException) as error:
                raise StackError(f"supervisord does not answer: {error}") from error

    def stop(self) -> None:
        """Let every program finish, within limits."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)

    def kill(self) -> None:
        """Kill what still runs; nothing after a `stop` that went well."""
        self._process.kill()
        self._process.wait()
        deadline_s = time.monotonic() + 2
        while (members := _session_members(self._process.pid)) and time.monotonic() < deadline_s:
            for process_id in members:
                with suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGKILL)
            time.sleep(0.05)
        if self._relay is not None:
            self._relay.join(timeout=5)


def _relay(source: IO[bytes]) -> None:
    """Pass the log on; keep reading when the terminal has gone, or supervisord would wait for ever to write."""
    with source:
        while chunk := os.read(source.fileno(), 65536):
            with suppress(OSError, ValueError):
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()


def _session_members(session: int) -> list[int]:
    """Name a session's processes: each program leads a process group of its own, but in supervisord's session."""
    if Path("/proc/self").exists():
        names = [entry.name for entry in Path("/proc").iterdir()]
    else:
        names = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True, check=True).stdout.split()
    members = []
    for process_id in map(int, filter(str.isdecimal, names)):
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process_id) == session:
                members.append(process_id)
    return members
