"""A worker's name in everybody's books: its host, its process, and what no other start of it had."""

import os
import socket
from uuid import uuid4


def make_worker_name() -> str:
    """Name this process's worker."""
    return f"{socket.gethostname()}.{os.getpid()}.{uuid4().hex[:6]}"


def is_on_this_host(worker_name: str) -> bool:
    """Tell whether a worker runs here; a container is a host of its own."""
    return worker_name.rsplit(".", 2)[0] == socket.gethostname()
