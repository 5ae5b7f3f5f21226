"""Ordinary files: attributes, what proves one unchanged, and reads that say whether they saw one version."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import time
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple, Self

from chatkeep.daemon.capture.errors import EntryUnreadable, EntryVanished
from chatkeep.daemon.capture.tree import Found, Kind, SourceTree, translated

PIECE = 1 << 20  # bytes; the largest chunk blob (docs/format.md section 9), and the grid on which files are cut
MIN_HOLE = 64 << 10  # bytes; a shorter stretch of zeros costs less as data than as an extent
BLOCK = 512  # bytes; unit of st_blocks, whatever the file system
FRESH_NS = 2_000_000_000  # FAT's timestamps have steps of 2 s: the coarsest a source may lie on
MAX_XATTRS = 256 << 10  # bytes of names and values per file: one file record must fit into one layer part


class FileIdentity(NamedTuple):
    """What changes whenever a file's content or attributes do, but for what FRESH_NS covers."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, found: Found) -> FileIdentity:
        """The identity an entry had when it was found."""
        return cls(found.dev, found.ino, found.size, found.mtime_ns, found.ctime_ns)


def unchanged(old: FileIdentity, new: FileIdentity, captured_ns: int) -> bool:
    """Whether a file captured as `old`, its read begun at wall time `captured_ns`, provably has that content still.

    A write right after the capture can leave every timestamp as it was, when it falls into the same step of the
    clock. So a file that was younger than 2 s when its read began is read once more, even if nothing seems to have
    changed. A ctime in the future (the clock was set back) proves nothing either. A far future mtime is taken:
    programs set it as they like, and a video with a wrong date must not be read at every snapshot. What no timestamp
    shows: stores through a shared mapping, until written back.
    """
    if old != new:
        return False
    near = abs(captured_ns - old.mtime_ns) <= FRESH_NS
    return not near and old.ctime_ns + FRESH_NS < captured_ns


class OwnerNames:
    """User and group names by number, empty when unknown. Each is looked up once: the name service may be remote."""

    def __init__(self) -> None:
        self._users: dict[int, bytes] = {}
        self._groups: dict[int, bytes] = {}

    def user(self, uid: int) -> bytes:
        """The user's name as bytes."""
        if uid not in self._users:
            try:
                self._users[uid] = os.fsencode(pwd.getpwuid(uid).pw_name)
            except KeyError:
                self._users[uid] = b""
        return self._users[uid]

    def group(self, gid: int) -> bytes:
        """The group's name as bytes."""
        if gid not in self._groups:
            try:
                self._groups[gid] = os.fsencode(grp.getgrgid(gid).gr_name)
            except KeyError:
                self._groups[gid] = b""
        return self._groups[gid]


class Attributes(NamedTuple):
    """What a file record has beyond `lstat`."""

    user: bytes
    group: bytes
    target: bytes  # of a symbolic link, else empty
    xattrs: tuple[tuple[bytes, bytes], ...]  # by name; POSIX ACLs are among them (system.posix_acl_*)
    xattrs_left_out: int  # unreadable for us, or beyond MAX_XATTRS in all


def attributes(tree: SourceTree, found: Found, names: OwnerNames) -> Attributes:
    """The attributes of one entry. Every change of them changes its ctime. Raises EntryVanished, EntryUnreadable."""
    target = tree.readlink(found.path) if found.kind is Kind.SYMLINK else b""
    xattrs, left_out = _xattrs(tree, found.path)
    return Attributes(names.user(found.uid), names.group(found.gid), target, xattrs, left_out)


def _xattrs(tree: SourceTree, path: bytes) -> tuple[tuple[tuple[bytes, bytes], ...], int]:
    reached = tree.from_anywhere(path)
    # The magic link to the root's descriptor is an inner component, which is followed; the entry itself never is.
    try:
        names = sorted(map(os.fsencode, os.listxattr(reached, follow_symlinks=False)))
    except OSError as exc:
        if exc.errno == errno.ENOTSUP:
            return (), 0
        with translated(path):
            raise
    kept: list[tuple[bytes, bytes]] = []
    room = MAX_XATTRS
    for name in names:
        try:
            value = os.getxattr(reached, name, follow_symlinks=False)
        except OSError:  # removed since, or not for us (trusted.*): the file itself is worth more than one attribute
            continue
        if len(name) + len(value) <= room:
            kept.append((name, value))
            room -= len(name) + len(value)
    return tuple(kept), len(names) - len(kept)


class Extent(NamedTuple):
    """A stretch of a file, in order. `data` None is a hole, of any length."""

    offset: int
    length: int
    data: bytes | None


class StableReader:
    """One read of one file, from one descriptor, which then says whether it saw one version.

    Take all `extents()`, then ask `stable`: True when the path still names this file, in the state it had when it was
    opened. Otherwise what was read is of no use. Memory: one piece of 1 MiB at a time. A file that grows for ever is
    read to the size it had when it was opened.

    Raises EntryVanished (also when something else than a file stands there) and EntryUnreadable, on opening and on
    reading.
    """

    def __init__(self, tree: SourceTree, path: bytes, *, start_offset: int = 0) -> None:
        if start_offset % PIECE:
            raise ValueError("start_offset is not on the grid")
        self._tree = tree
        self._start = start_offset
        # Before the first fstat: a later clock reading could call a file settled that was written between the two.
        self.captured_ns = time.time_ns()
        self._fd = tree.open(path)
        facts = os.fstat(self._fd)
        if not stat.S_ISREG(facts.st_mode):
            self.close()
            raise EntryVanished(path=path)
        self.found = Found.of(path, facts)
        self.identity = FileIdentity.of(self.found)
        self.stable = False

    def close(self) -> None:
        """Lets go of the file; safe to repeat."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def extents(self) -> Iterator[Extent]:
        """The file from `start_offset`: pieces of data that end on the 1 MiB grid or at the end, and holes.

        A hole covers whole pieces of the grid: where data begins is then the same for whoever reads the file. To
        resume a large file, begin at a multiple of 1 MiB and use the result only if `identity` is still that of the
        first part.
        """
        self.stable = False
        for offset, length, hole in self._stretches():
            data = None if hole else self._read(length, offset)
            if data is not None and len(data) < length:
                return  # truncated meanwhile
            yield Extent(offset, length, data)
        self.stable = self._is_same()

    def _stretches(self) -> Iterator[tuple[int, int, bool]]:
        offset, size = self._start, self.found.size
        # Only where fewer blocks than bytes are allocated: else the question costs a call per file and has one answer.
        data_end = offset if self.found.blocks * BLOCK < size else size
        while offset < size:
            if offset >= data_end:
                data, data_end = self._next_data(offset, size)
                hole_end = size if data >= size else data - data % PIECE
                if hole_end - offset >= MIN_HOLE:
                    yield offset, hole_end - offset, True
                    offset = hole_end
                    continue
            length = min(PIECE, size - offset)
            yield offset, length, False
            offset += length

    def _next_data(self, offset: int, size: int) -> tuple[int, int]:
        """Begin and end of the first data at or after `offset`, as the file system knows it; (size, size) when none
        is left."""
        try:
            begin = os.lseek(self._fd, offset, os.SEEK_DATA)
            return begin, os.lseek(self._fd, begin, os.SEEK_HOLE)
        except OSError as exc:
            # ENXIO: a hole to the end. Anything else: a file system that cannot tell, so all of it is data.
            return (size, size) if exc.errno == errno.ENXIO else (offset, size)

    def _read(self, length: int, offset: int) -> bytes:
        """The bytes there, fewer only where the file ends before. The kernel writes into the object that is returned:
        a buffer to read into would be cleared first and copied from afterwards."""
        data = b""
        while len(data) < length:
            try:
                more = os.pread(self._fd, length - len(data), offset + len(data))
            except OSError as exc:
                raise EntryUnreadable(path=self.found.path, errno=exc.errno) from exc
            if not more:
                break
            data = data + more if data else more
        return data

    def _is_same(self) -> bool:
        # By path, not by descriptor: programs write a new version beside and rename it over the old one, and the
        # descriptor would go on delivering what the path no longer has.
        try:
            return FileIdentity.of(self._tree.stat(self.found.path)) == self.identity
        except EntryVanished:
            return False
