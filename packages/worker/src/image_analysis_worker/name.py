"""A worker's name: its host, its process ID and a random part."""

import os
import socket
from uuid import uuid4


def make_worker_name() -> str:
    """Name this process's worker."""
    return f"{socket.gethostname()}.{os.getpid()}.{uuid4().hex[:6]}"


def find_process(worker_name: str) -> int | None:
    """Return the process ID in a name; None for a worker on another host, such as another container."""
    host, process_id, _ = worker_name.rsplit(".", 2)
    return int(process_id) if host == socket.gethostname() else None
