"""The command line as a process of its own, with pseudo-terminals where a terminal matters."""

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ

PROGRAM = str(Path(sys.executable).with_name("image-analysis"))


@dataclass
class Terminal:
    """A process whose standard error, and standard output if asked, is a terminal of 100 columns."""

    process: subprocess.Popen[bytes]
    _shown: bytearray = field(default_factory=bytearray)

    @property
    def shown(self) -> str:
        return self._shown.decode(errors="replace")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def wait(self, timeout_s: float = 120) -> int:
        return self.process.wait(timeout_s)


@contextmanager
def run_in_terminal(url: str, *arguments: str, stdout: int | None = None) -> Iterator[Terminal]:
    """Run the command line in a terminal, which also gets the standard output unless that goes elsewhere."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, pack("HHHH", 30, 100, 0, 0))
    process = subprocess.Popen(
        [PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        env={**os.environ, "IMAGE_ANALYSIS_URL": url, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    terminal = Terminal(process)

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                terminal._shown.extend(data)
        except OSError:  # the process has ended
            return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield terminal
    finally:
        process.kill()
        process.wait()
        reader.join()
        os.close(ours)


def run_piped(url: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command line without a terminal."""
    environment = {**os.environ, "IMAGE_ANALYSIS_URL": url}
    return subprocess.run(
        [PROGRAM, *arguments], input=stdin, capture_output=True, env=environment, check=False, timeout=300
    )
