"""A name server on loopback that answers for known names, and never answers for slow ones."""

import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from threading import Thread

A, AAAA, NO_ERROR, NO_NAME = 1, 28, 0, 3
SLOW = "slow"


class NameServer:
    """Answers with the addresses in `names`. A name that contains `SLOW` gets no answer; any other does not exist."""

    def __init__(self, names: Mapping[str, list[str]]) -> None:
        self._names = names
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.asked: list[str] = []

    def serve(self) -> None:
        while query := self._socket.recvfrom(4096):
            message, client = query
            if not message:
                return
            name, kind, question = _read_question(message)
            self.asked.append(name)
            if SLOW not in name:
                self._socket.sendto(message[:2] + self._answer(name, kind, question), client)

    def stop(self) -> None:
        self._socket.sendto(b"", self._socket.getsockname())

    def close(self) -> None:
        self._socket.close()

    def _answer(self, name: str, kind: int, question: bytes) -> bytes:
        found = [ip_address(address) for address in self._names.get(name, [])]
        addresses = [address.packed for address in found if {4: A, 6: AAAA}[address.version] == kind]
        records = b"".join(
            struct.pack(">HHHIH", 0xC00C, kind, 1, 60, len(address)) + address for address in addresses
        )  # a pointer to the name at byte 12, the class IN, a lifetime of a minute
        fault = NO_ERROR if name in self._names else NO_NAME
        return struct.pack(">HHHHH", 0x8180 | fault, 1, len(addresses), 0, 0) + question + records


def _read_question(message: bytes) -> tuple[str, int, bytes]:
    labels, at = list[str](), 12
    while size := message[at]:
        labels.append(message[at + 1 : at + 1 + size].decode())
        at += 1 + size
    return ".".join(labels), struct.unpack(">H", message[at + 1 : at + 3])[0], message[12 : at + 5]


@contextmanager
def name_server(names: Mapping[str, list[str]]) -> Iterator[NameServer]:
    """Serve in a thread while the block runs."""
    server = NameServer(names)
    thread = Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
        server.close()
