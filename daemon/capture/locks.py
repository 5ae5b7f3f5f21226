"""Locks that SQLite's own connections see and respect, on descriptors that can only read.

They belong to the open file description (Linux 3.15), never to the process: an ordinary POSIX lock would vanish as soon
as anything in this process closed any descriptor of the same file, and with it the ground under the capture.
Only shared locks are taken. Byte numbers: sqlite3 os.h (database) and wal.c (index).
"""

from __future__ import annotations

import errno
import fcntl
import struct
from collections.abc import Iterator

from chatkeep.daemon.capture.errors import UnsupportedSource

PENDING = 0x40000000
RESERVED = PENDING + 1
SHARED_FIRST = PENDING + 2
SHARED_COUNT = 510

READ0 = 123  # in the index: a checkpoint that would write into the database file must have it alone
READ_SLOTS = (127, 126, 125, 124)  # the log begins anew only when nobody has one; applications take the low ones first
ALIVE = 128  # "dead man's switch": every connection has it shared. Taking it would make a stale index look alive

_FLOCK = struct.Struct("hhqqi4x")
_CONFLICT = frozenset({errno.EAGAIN, errno.EACCES})


def try_shared(fd: int, start: int, count: int = 1) -> bool:
    """Take a shared lock without waiting. False: somebody has it exclusively. Raises UnsupportedSource."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, 0, start, count, 0))
    except OSError as exc:
        if exc.errno in _CONFLICT:
            return False
        raise UnsupportedSource(reason="locks", errno=exc.errno) from exc
    return True


def release(fd: int, start: int = 0, count: int = 0) -> None:
    """Give up our locks in a range; the default is all of them."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, 0, start, count, 0))


def held_by_others(fd: int, start: int, count: int = 1) -> bool:
    """Whether anybody else has a lock there, shared or not. Takes none."""
    try:
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, start, count, 0))
    except OSError as exc:
        raise UnsupportedSource(reason="locks", errno=exc.errno) from exc
    kind: int = _FLOCK.unpack(found)[0]
    return kind != fcntl.F_UNLCK


def share_database(fd: int) -> bool:
    """SQLite's SHARED lock on a database file. False: an application writes to the file, or waits to."""
    # Past a writer that waits for its readers to go (PENDING) no new reader may step: it would wait for ever.
    if not try_shared(fd, PENDING):
        return False
    shared = try_shared(fd, SHARED_FIRST, SHARED_COUNT)
    release(fd, PENDING, 1)
    return shared


def share_index(fd: int) -> bool:
    """READ0 and one slot: the database file is not written and the log does not begin anew. False: not now."""
    return try_shared(fd, READ0) and any(try_shared(fd, slot) for slot in READ_SLOTS)


def pauses(first: float = 0.0005, longest: float = 0.02, total: float = 0.4) -> Iterator[float]:
    """Seconds to wait between attempts, doubling, `total` in all.

    An application holds what we want for milliseconds. One that holds it for longer will go on doing so, and the next
    capture asks again.
    """
    pause = first
    while total > 0:
        yield min(pause, total)
        total -= pause
        pause = min(2 * pause, longest)
