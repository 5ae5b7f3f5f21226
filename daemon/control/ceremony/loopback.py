"""The addresses that `localhost` means, on one port, or nothing.

A browser tries ::1 and 127.0.0.1 for `localhost`, in an order of its own. Were only one of them ours, any user of this
machine could listen on the other with the same port number, and be given the page's visits.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import Final

from chatkeep.daemon.control.errors import NoLoopbackPort

TRIES: Final = 20

_ABSENT: Final = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
"""What a machine says that has no IPv6, or not on its loopback interface. Then nobody can listen on ::1, and a browser
that tries it is turned away by the system at once. A socket that is bound there all the same (IPV6_FREEBIND) is not
reached either: the address is on no interface, so there is no route to it. To bring it back takes the administrator."""


@dataclass(frozen=True, slots=True)
class Loopback:
    """Listening sockets, one for each of the addresses that this machine has, all on one port."""

    port: int
    sockets: tuple[socket.socket, ...]

    def close(self) -> None:
        """Gives the port back."""
        for each in self.sockets:
            each.close()


def listen(tries: int = TRIES) -> Loopback:
    """A random port that is ours on 127.0.0.1 and on ::1. Raises `NoLoopbackPort` after so many that were not."""
    last = 0
    for _ in range(tries):
        taken: list[socket.socket] = []
        try:
            port = _listen(taken, socket.AF_INET, "127.0.0.1", 0)
            if _has_ipv6():
                _listen(taken, socket.AF_INET6, "::1", port)
        except OSError as exc:
            last = exc.errno or 0
            for each in taken:
                each.close()
            continue
        return Loopback(port, tuple(taken))
    raise NoLoopbackPort(tried=tries, errno=last)


def _listen(taken: list[socket.socket], family: socket.AddressFamily, address: str, port: int) -> int:
    found = socket.socket(family, socket.SOCK_STREAM)
    taken.append(found)
    # Neither SO_REUSEADDR nor SO_REUSEPORT: with them, somebody else's socket could share the port. Without, the system
    # refuses the port to whoever comes second, also as 0.0.0.0 or [::].
    if family == socket.AF_INET6:
        found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    found.bind((address, port))
    found.listen(16)
    return int(found.getsockname()[1])


def _has_ipv6() -> bool:
    """Whether ::1 can be bound at all. Raises OSError when that cannot be told."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError as exc:
        if exc.errno in _ABSENT:
            return False
        raise
    return True
