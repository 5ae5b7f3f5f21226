"""Opening and reading files of others: never written, never waited for, and not even their access times are touched."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from chatkeep.daemon.capture.errors import SourceMissing, SourceUnreadable, UnsupportedSource
from chatkeep.daemon.capture.position import FileVersion

# Called with the number of bytes read, every 1 MiB or so: progress, a pace, or an exception to stop.
Tick = Callable[[int], None]

# O_NONBLOCK: a FIFO in the place of a file would stop the capture until somebody writes to it.
# O_NOFOLLOW: SQLite keeps the companions of a link beside its target, so a link is no database file.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})


def no_tick(_: int) -> None:
    """Reading that nobody follows."""


def open_source(path: bytes) -> int:
    """A descriptor of a regular file. Raises SourceMissing, SourceUnreadable, UnsupportedSource."""
    try:
        fd = _open_quietly(path)
    except OSError as exc:
        if exc.errno in _GONE:
            raise SourceMissing(path=path) from exc
        if exc.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise UnsupportedSource(path=path, reason="kind") from exc
        raise SourceUnreadable(path=path, errno=exc.errno) from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnsupportedSource(path=path, reason="kind")
    return fd


def open_companion(path: bytes) -> int | None:
    """The same for a file that need not exist."""
    try:
        return open_source(path)
    except SourceMissing:
        return None


def version_at(path: bytes) -> FileVersion | None:
    """What stands at the path now, None for nothing. Raises SourceUnreadable."""
    try:
        return FileVersion.of(os.stat(path, follow_symlinks=False))
    except OSError as exc:
        if exc.errno in _GONE:
            return None
        raise SourceUnreadable(path=path, errno=exc.errno) from exc


def read_padded(fd: int, out: memoryview, offset: int) -> int:
    """Fill `out` from `offset` on, with zeros beyond the end of the file. Returns the bytes that were there."""
    got = 0
    while got < len(out):
        count = os.preadv(fd, [out[got:]], offset + got)
        if count == 0:
            out[got:] = bytes(len(out) - got)
            break
        got += count
    return got


def _open_quietly(path: bytes) -> int:
    try:
        return os.open(path, _FLAGS | os.O_NOATIME)
    except PermissionError as exc:
        if exc.errno != errno.EPERM:  # only the owner, or root, may leave the access time alone
            raise
    return os.open(path, _FLAGS)
