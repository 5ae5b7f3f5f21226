"""Whose the other end of a connection on this machine is, as the kernel lists it (proc(5), /proc/net/tcp and tcp6).

The loopback addresses are open to every user of the machine. The token keeps them out; this does so once more, for a
token that was seen over a shoulder.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from typing import Final

TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")

_LOCAL, _REMOTE, _UID, _INODE = 1, 2, 7, 9
_MAPPED: Final = bytes(10) + b"\xff\xff"


def owner(peer: tuple[str, int], ours: tuple[str, int]) -> int | None:
    """The user id of the socket at `peer` that is connected to `ours`; None when the kernel does not list it.

    Addresses are numeric, as a socket names them.
    """
    wanted = set(zip(_spellings(*peer), _spellings(*ours), strict=True))
    for table in TABLES:
        try:
            with open(table, encoding="ascii") as lines:
                for line in lines:
                    fields = line.split()
                    if len(fields) <= _INODE or (fields[_LOCAL], fields[_REMOTE]) not in wanted:
                        continue
                    # A socket that its process has closed is listed as root's, whosever it was; it has no inode.
                    return int(fields[_UID]) if fields[_INODE] != "0" else None
        except OSError:
            continue  # no such family here
    return None


def _spellings(address: str, port: int) -> Iterator[str]:
    """An address as the tables may have it: a socket of IPv6 can be connected to an address of IPv4."""
    packed = ipaddress.ip_address(address).packed
    yield f"{_hexadecimal(packed)}:{port:04X}"
    if len(packed) == 4:
        yield f"{_hexadecimal(_MAPPED + packed)}:{port:04X}"


def _hexadecimal(packed: bytes) -> str:
    # The kernel prints each 32 bits as a number of the machine's own byte order.
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
