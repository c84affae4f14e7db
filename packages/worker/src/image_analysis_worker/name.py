"""A worker's name in everybody's books: its host, its process, and what no other start of it had."""

import os
import socket
from uuid import uuid4


def make_worker_name() -> str:
    """Name this process's worker."""
    return f"{socket.gethostname()}.{os.getpid()}.{uuid4().hex[:6]}"


def find_process(worker_name: str) -> int | None:
    """Return the process that a name speaks of; None if it is another host's, as every container is one."""
    host, process_id, _ = worker_name.rsplit(".", 2)
    return int(process_id) if host == socket.gethostname() else None
