"""Resolves host names without threads: a lookup ends when its caller is cancelled.

The C library's `getaddrinfo` cannot be cancelled: if a name's servers never answer, it blocks a thread for 20 s.
c-ares reads the same files: /etc/resolv.conf with its search domains, /etc/hosts and /etc/nsswitch.conf. It does not
use other sources that nsswitch may name, such as mDNS or LDAP.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import cast

import pycares
from pycares import ARES_SOCKET_BAD

TRY_S = 1.0
"""Time for one name server before the next one is tried; it doubles each time all servers have been tried."""

TRIES = 3
_UNKNOWN_NAME_ERRORS = {pycares.errno.ARES_ENOTFOUND, pycares.errno.ARES_ENODATA, pycares.errno.ARES_EBADNAME}


class Resolver:
    """Resolves names with `servers`, each an address with an optional port; without any, with the system's servers."""

    def __init__(self, servers: Sequence[str] = ()) -> None:
        self._servers = servers

    async def __call__(self, host: str, port: int) -> list[str]:
        """Return a host's addresses, the preferred one first; for localhost, only IPv4 addresses.

        Raises:
            socket.gaierror: EAI_NONAME if the name does not exist or has no address, otherwise EAI_AGAIN.
        """
        try:
            lookup = _Lookup(self._servers)
        except pycares.AresError as error:
            raise socket.gaierror(socket.EAI_AGAIN, "The configuration of name servers cannot be read") from error
        found, fault = await lookup.run(host, port)
        if fault is not None:
            kind = socket.EAI_NONAME if fault in _UNKNOWN_NAME_ERRORS else socket.EAI_AGAIN
            raise socket.gaierror(kind, pycares.errno.strerror(fault))
        return [cast(bytes, node.addr[0]).decode() for node in found.nodes] if found else []


class _Lookup:
    """One lookup with a separate c-ares channel, driven by the event loop.

    A shared channel would cache all answers for up to an hour, without a limit on their number or size, and send all
    queries from one port. Making a channel takes 0.2 ms.
    """

    def __init__(self, servers: Sequence[str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[tuple[pycares.AddrInfoResult | None, int | None]] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._channel = pycares.Channel(
            timeout=TRY_S, tries=TRIES, servers=servers or None, sock_state_cb=self._watch_socket
        )

    async def run(self, host: str, port: int) -> tuple[pycares.AddrInfoResult | None, int | None]:
        """Return the result, or c-ares's error number."""
        try:
            self._channel.getaddrinfo(
                host, port, family=_family(host), type=socket.SOCK_STREAM, callback=self._note_end
            )
            self._set_timer()
            return await self._end
        finally:
            self._end.cancel()
            self._set_timer()
            self._channel.cancel()  # closes the sockets now; `close` alone would close them in another thread
            self._channel.close()

    def _note_end(self, found: pycares.AddrInfoResult | None, fault: int | None) -> None:
        if not self._end.done():
            self._end.set_result((found, fault))

    def _watch_socket(self, socket_fd: int, readable: bool, writable: bool) -> None:
        self._loop.remove_reader(socket_fd)
        self._loop.remove_writer(socket_fd)
        if readable:
            self._loop.add_reader(socket_fd, self._process, socket_fd, ARES_SOCKET_BAD)
        if writable:
            self._loop.add_writer(socket_fd, self._process, ARES_SOCKET_BAD, socket_fd)

    def _process(self, readable_fd: int = ARES_SOCKET_BAD, writable_fd: int = ARES_SOCKET_BAD) -> None:
        self._channel.process_fd(readable_fd, writable_fd)
        self._set_timer()

    def _set_timer(self) -> None:
        """Call c-ares at its next timeout, even if no socket becomes ready."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if not self._end.done():
            delay_s: float = self._channel.timeout()  # type: ignore[no-untyped-call]
            self._timer = self._loop.call_later(delay_s, self._process)


def _family(host: str) -> socket.AddressFamily:
    # c-ares gives localhost ::1 as well, even if /etc/hosts does not: `FETCH_ALLOWED_NETWORKS=127.0.0.0/8` would not
    # open it.
    return socket.AF_INET if host == "localhost" or host.endswith(".localhost") else socket.AF_UNSPEC
