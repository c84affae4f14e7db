"""Runs supervisord, and ends it with all its programs when the process that started this one ends, however it ends.

That process holds the other end of our standard input and writes nothing: the end of the input is the order to stop.
What supervisord and its programs say goes on to our standard output, even where nobody can take it any more. The
directory, which is removed in the end, gets the exit codes of the programs in `EXITS`.

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

STOP_S = 90.0
"""The programs are stopped one after another: longer than the sum of their `stopwaitsecs`."""
LEFT_BEHIND_S = 10.0
"""For each program to end by itself where supervisord has ended without it."""
KILL_S = 2.0

OWN_WORDS = re.compile(rb"image-analysis-[a-z]+: .*")
"""How our services say that they cannot start."""
EXITED = re.compile(rb"\S+ \S+ \w+ exited: (\w+) \(exit status (\d+);")
"""supervisord's log line: its interface names no exit code for what it starts again."""


def main(directory: Path, command: list[str]) -> int:
    """Run supervisord; return its exit code, as a shell would, when it and its programs have ended."""
    supervisord = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    Thread(target=_stop_at_end_of_input, args=(supervisord,), daemon=True).start()
    # What supervisord has left behind may hold the other end of its output: reading it must not delay the end.
    relay = Thread(target=_relay, args=(supervisord.stdout or (), directory / EXITS), daemon=True)
    relay.start()
    code = supervisord.wait()
    end_session(os.getpid(), grace_s=LEFT_BEHIND_S)
    relay.join(KILL_S)
    shutil.rmtree(directory, ignore_errors=True)
    return code if code >= 0 else 128 - code


def end_session(session: int, *, grace_s: float = 0) -> None:
    """End every process of a session but this one: by SIGTERM where there is time for it, at last by SIGKILL."""
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
    """Pass every line on and record the exits; keep reading where either fails, or supervisord would wait to write."""
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
    """Name a session's processes: each program leads a process group of its own, but in supervisord's session."""
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
