"""Runs supervisord, and ends it with all its programs when our parent process ends, even if it is killed.

The parent process holds the other end of our standard input and writes nothing: at the end of the input, we stop. The
output of supervisord and its programs is copied to our standard output; if that is closed, it is still read. The
programs' exit codes are written to `EXITS` in the directory, which is removed at the end.

Usage: guardian.py DIRECTORY SUPERVISORD...
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Thread

EXITS = "exits.jsonl"

STOP_S = 120.0
"""Longer than the sum of the programs' `stopwaitsecs`, because they are stopped one after another."""
LEFT_BEHIND_S = 10.0
"""Time for programs to end by themselves if supervisord has ended before them."""
KILL_S = 2.0

OWN_WORDS = re.compile(rb"image-analysis-[a-z]+: .*")
"""The line in which our services say that they cannot start."""
EXITED = re.compile(rb"\S+ \S+ \w+ exited: (\w+) \(exit status (\d+);")
"""supervisord's log line; its interface has no exit codes of programs that it restarts."""


def main(directory: Path, command: list[str]) -> int:
    """Run supervisord until it and its programs have ended; return its exit code as a shell would."""
    supervisord = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    Thread(target=_stop_at_end_of_input, args=(supervisord,), daemon=True).start()
    # Programs that outlive supervisord may keep its output open: reading it must not delay the end.
    relay = Thread(target=_relay, args=(supervisord.stdout or (), directory / EXITS), daemon=True)
    relay.start()
    code = supervisord.wait()
    end_session(os.getpid(), grace_s=LEFT_BEHIND_S)
    relay.join(KILL_S)
    shutil.rmtree(directory, ignore_errors=True)
    return code if code >= 0 else 128 - code


def end_session(session: int, *, grace_s: float = 0) -> None:
    """End every process of a session except this one: by SIGTERM if there is time for it, then by SIGKILL."""
    if grace_s > 0:
        _signal(session, signal.SIGTERM)
        deadline_s = time.monotonic() + grace_s
        while _members(session) and time.monotonic() < deadline_s:
            time.sleep(0.05)
    deadline_s = time.monotonic() + KILL_S
    while _members(session) and time.monotonic() < deadline_s:
        _signal(session, signal.SIGKILL)
        time.sleep(0.05)


def _stop_at_end_of_input(supervisord: subprocess.Popen[bytes]) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    supervisord.terminate()
    try:
        supervisord.wait(STOP_S)
    except subprocess.TimeoutExpired:
        supervisord.kill()


def _relay(lines: Iterable[bytes], exits: Path) -> None:
    """Copy every line and record the exits; if either fails, keep reading, or supervisord would block on its output."""
    said = ""
    for line in lines:
        rest = line
        with suppress(OSError):
            while rest:
                rest = rest[os.write(sys.stdout.fileno(), rest) :]
        if OWN_WORDS.match(line):
            said = line.decode(errors="replace").rstrip()
        elif exited := EXITED.match(line):
            with suppress(OSError), exits.open("a") as record:
                record.write(f"{json.dumps([exited[1].decode(), int(exited[2]), said])}\n")
            said = ""


def _signal(session: int, number: signal.Signals) -> None:
    for process_id in _members(session):
        with suppress(ProcessLookupError):
            os.kill(process_id, number)


def _members(session: int) -> list[int]:
    """List a session's processes: each program has its own process group, but all are in supervisord's session."""
    if Path("/proc/self").exists():
        names = [entry.name for entry in Path("/proc").iterdir()]
    else:
        names = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True, check=True).stdout.split()
    members = []
    for process_id in map(int, filter(str.isdecimal, names)):
        with suppress(ProcessLookupError, PermissionError):
            if process_id != os.getpid() and os.getsid(process_id) == session:
                members.append(process_id)
    return members


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
