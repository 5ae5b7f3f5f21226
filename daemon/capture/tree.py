"""A source, opened once: everything below it is reached relative to that one descriptor and never through a symbolic
link.

Names are raw bytes, as the kernel gives them: no decoding, no Unicode normalisation. Two names that look alike are
two files.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import stat
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple, Self

from chatkeep.daemon.capture.errors import EntryUnreadable, EntryVanished, SourceMissing, SourceUnreadable

MAX_NAME = 255  # docs/format.md section 11
# The format allows 4096 bytes and so does the kernel, its final NUL included; 64 are left for "/proc/self/fd/<fd>/",
# through which extended attributes are read. A path within this limit is never refused half-way through a capture.
MAX_PATH = 4096 - 64

# O_NONBLOCK: a FIFO put in the place of a file would otherwise stop the capture until somebody writes to it.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})


class Kind(enum.IntEnum):
    """What stands at a path. The first three are the numbers of docs/format.md section 11; SPECIAL is never stored."""

    DIRECTORY = 0
    FILE = 1
    SYMLINK = 2
    SPECIAL = 255  # FIFO, socket, device


_KINDS = {stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.SYMLINK}


class Found(NamedTuple):
    """One entry and what `lstat` said about it. A tuple, because 100,000 of them are made in one walk."""

    path: bytes  # relative to the source, no leading slash; empty is the source itself
    kind: Kind
    mode: int  # permission bits, 12
    uid: int
    gid: int
    size: int  # bytes
    blocks: int  # of 512 bytes, allocated
    mtime_ns: int
    ctime_ns: int
    nlink: int
    dev: int
    ino: int

    @classmethod
    def of(cls, path: bytes, facts: os.stat_result) -> Found:
        """The entry that `facts` describe."""
        mode = facts.st_mode
        return cls(
            path,
            _KINDS.get(mode & 0o170000, Kind.SPECIAL),
            mode & 0o7777,
            facts.st_uid,
            facts.st_gid,
            facts.st_size,
            facts.st_blocks,
            facts.st_mtime_ns,
            facts.st_ctime_ns,
            facts.st_nlink,
            facts.st_dev,
            facts.st_ino,
        )


def open_quietly(path: bytes, flags: int, dir_fd: int | None = None) -> int:
    """`os.open` that leaves the access time alone where the kernel permits it (own files, or CAP_FOWNER). Raises
    OSError."""
    try:
        return os.open(path, flags | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError as exc:
        if exc.errno != errno.EPERM:
            raise
    return os.open(path, flags, dir_fd=dir_fd)


@contextlib.contextmanager
def translated(path: bytes) -> Iterator[None]:
    """Turns OSError about the entry `path` into EntryVanished or EntryUnreadable."""
    try:
        yield
    except OSError as exc:
        if exc.errno in _GONE:
            raise EntryVanished(path=path) from exc
        raise EntryUnreadable(path=path, errno=exc.errno) from exc


class SourceTree:
    """The source directory, held open. A symbolic link at the root itself is followed once, here: people move profiles.

    Holding the descriptor keeps one capture within one tree, also when the directory is renamed or replaced while it
    runs. Raises SourceMissing, SourceUnreadable.
    """

    def __init__(self, root: bytes) -> None:
        try:
            self.fd = open_quietly(root, DIRECTORY & ~os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise SourceMissing(path=root) from exc
        except OSError as exc:
            raise SourceUnreadable(path=root, errno=exc.errno) from exc
        self.root = root

    def close(self) -> None:
        """Lets go of the directory; safe to repeat."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self, path: bytes, flags: int = READ) -> int:
        """A descriptor of the entry; no component of `path` may be a symbolic link. Raises EntryVanished,
        EntryUnreadable."""
        with translated(path), self._parent(path) as (parent, name):
            return open_quietly(name, flags, parent)

    def stat(self, path: bytes) -> Found:
        """What stands at `path` now. Raises EntryVanished, EntryUnreadable."""
        with translated(path), self._parent(path) as (parent, name):
            return Found.of(path, os.stat(name, dir_fd=parent, follow_symlinks=False))

    def readlink(self, path: bytes) -> bytes:
        """The target of a symbolic link, verbatim. Raises EntryVanished, also when it is a link no more;
        EntryUnreadable."""
        try:
            with self._parent(path) as (parent, name):
                return os.readlink(name, dir_fd=parent)
        except OSError as exc:
            if exc.errno in _GONE or exc.errno == errno.EINVAL:
                raise EntryVanished(path=path) from exc
            raise EntryUnreadable(path=path, errno=exc.errno) from exc

    def from_anywhere(self, path: bytes) -> bytes:
        """`path` for calls that take no directory descriptor. Its inner components are not protected against being
        replaced by links: use it for attributes, not for content."""
        return b"/proc/self/fd/%d/%s" % (self.fd, path) if path else b"/proc/self/fd/%d/." % self.fd

    @contextlib.contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The directory that holds `path`, reached step by step: O_NOFOLLOW protects the last component only, so each
        is made the last once. Otherwise a folder replaced by a link would lead the capture out of the source."""
        *steps, name = path.split(b"/")
        current = self.fd
        try:
            for step in steps:
                inner = os.open(step, _STEP, dir_fd=current)
                if current != self.fd:
                    os.close(current)
                current = inner
            yield current, name or b"."
        finally:
            if current != self.fd:
                os.close(current)
