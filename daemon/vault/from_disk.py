"""Reading a file from the disk itself, past the memory that the system keeps of it."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

# A multiple of every block size there is; O_DIRECT wants addresses, offsets and lengths aligned to the device's.
_STEP: Final = 1 << 20
# File systems without direct reads say so on opening or on the first read.
_NO_DIRECT: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP})


class FromDisk:
    """One pass over a file that was synced: what is delivered came from the device, as far as the system lets it.

    Direct reads where the file system has them: they cost no second copy and leave the cached pages to whoever reads
    next. Elsewhere the cache is asked to let go of the pages first. Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # An anonymous map begins on a page: the alignment that direct reads need.
        self._map = memoryview(mmap.mmap(-1, _STEP))
        self._room = memoryview(bytearray())
        self._ready = self._map[:0]
        self._direct = True
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError as exc:
            if exc.errno not in _NO_DIRECT:
                raise
            self._open_cached()

    def take(self, size: int) -> memoryview:
        """The next `size` bytes, fewer at the end; valid until the next call."""
        if size > len(self._room):
            self._room = memoryview(bytearray(size))
        got = 0
        while got < size and (self._ready or self._fill()):
            piece = self._ready[: size - got]
            self._room[got : got + len(piece)] = piece
            self._ready = self._ready[len(piece) :]
            got += len(piece)
        return self._room[:got]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def _fill(self) -> bool:
        try:
            count = os.readv(self._fd, [self._map])
        except OSError as exc:
            if not self._direct or exc.errno not in _NO_DIRECT:
                raise
            at = os.lseek(self._fd, 0, os.SEEK_CUR)
            os.close(self._fd)
            self._open_cached()
            os.lseek(self._fd, at, os.SEEK_SET)
            count = os.readv(self._fd, [self._map])
        self._ready = self._map[:count]
        return count > 0

    def _open_cached(self) -> None:
        self._direct = False
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
