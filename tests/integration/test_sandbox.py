"""What a process in the sandbox cannot do."""

import ctypes
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from support.waiting import PATIENCE_S

TRY = """
import json, os, socket, sys
from image_analysis_worker.decoding.sandbox import enter_sandbox
port, path = int(sys.argv[1]), sys.argv[2]
enter_sandbox()


def connect(family, address):
    with socket.socket(family) as client:
        client.connect(address)


def read(path):
    with open(path, "rb") as file:
        file.read()


def write(path):
    with open(path, "wb") as file:
        file.write(b"x")


attempts = {
    "read a file": lambda: read(__import__("json").__file__),
    "connect to a port": lambda: connect(socket.AF_INET, ("127.0.0.1", port)),
    "connect to a Unix socket": lambda: connect(socket.AF_UNIX, path),
    "write a file": lambda: write(path + ".txt"),
    "start a program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "read the worker's environment": lambda: read(f"/proc/{os.getppid()}/environ"),
}
done = []
for name, attempt in attempts.items():
    try:
        attempt()
        done.append(name)
    except PermissionError:
        pass
print(json.dumps(done))
"""


LANDLOCKED = ["write a file", "start a program", "read the worker's environment"]


def has_landlock() -> bool:
    return bool(ctypes.CDLL(None).syscall(444, None, 0, 1) > 0)


def test_process_in_the_sandbox_can_read_files_and_little_else(tmp_path: Path) -> None:
    path = tmp_path / "service.sock"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        command = [sys.executable, "-c", TRY, str(server.getsockname()[1]), str(path)]
        # A sandboxed process cannot write down what coverage has measured.
        environment = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}

        tried = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )

    assert (tried.returncode, tried.stderr) == (0, "")
    assert json.loads(tried.stdout) == ["read a file"] + ([] if has_landlock() else LANDLOCKED)
