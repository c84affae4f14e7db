"""Proxies between a client and the API that cut connections, or keep an answer back."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum


class Cut(Enum):
    """When a connection is cut."""

    IN_REQUEST = "in the middle of the request's body"
    BEFORE_ANSWER = "when the API has answered, but before the client gets it"


class CuttingProxy:
    """Cuts one connection for each of `cuts`, and passes on the later ones."""

    def __init__(self, listener: socket.socket, port: int, cuts: list[Cut]) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.cuts = cuts
        self._port = port

    def connect(self, client: socket.socket) -> None:
        cut = self.cuts.pop(0) if self.cuts else None
        with client, socket.create_connection(("127.0.0.1", self._port)) as api, suppress(OSError):
            if cut is Cut.IN_REQUEST:
                api.sendall(client.recv(1000))
                return
            pump = threading.Thread(target=_pass_on, args=(client, api), daemon=True)
            pump.start()
            if cut is Cut.BEFORE_ANSWER:
                api.recv(1)
                return
            _pass_on(api, client)


@contextmanager
def _serving(listener: socket.socket, connect: Callable[[socket.socket], None]) -> Iterator[None]:
    """Give each connection to `connect`, in a thread of its own."""

    def serve() -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = listener.accept()
                threading.Thread(target=connect, args=(client,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def cutting_proxy(port: int, *cuts: Cut) -> Iterator[CuttingProxy]:
    """Listen on loopback in front of the API's port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = CuttingProxy(listener, port, list(cuts))
        with _serving(listener, proxy.connect):
            yield proxy


class WithholdingProxy:
    """Keeps back the answer to the first request whose head has `marker`; `has_answer` is set when the API gave it."""

    def __init__(self, listener: socket.socket, port: int, marker: bytes) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.has_answer = threading.Event()
        self._port = port
        self._marker = marker
        self._withheld: socket.socket | None = None

    def connect(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as api, suppress(OSError):
            threading.Thread(target=self._pass_requests, args=(client, api), daemon=True).start()
            while data := api.recv(65536):
                if self._withheld is client:
                    self.has_answer.set()
                else:
                    client.sendall(data)

    def _pass_requests(self, client: socket.socket, api: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self._withheld is None and self._marker in data:
                    self._withheld = client
                api.sendall(data)
            api.shutdown(socket.SHUT_WR)


@contextmanager
def withholding_proxy(port: int, marker: bytes) -> Iterator[WithholdingProxy]:
    """Listen on loopback in front of the API's port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = WithholdingProxy(listener, port, marker)
        with _serving(listener, proxy.connect):
            yield proxy
