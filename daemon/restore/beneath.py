"""A directory, and names beneath it: whatever a snapshot's tree holds, nothing is touched outside.

Every step to a file is made from a descriptor of the directory, and the kernel is told to follow no symbolic link and
no `..` on the way (openat2, Linux 5.6). Where that call is missing or forbidden, the path is walked one component at a
time with O_NOFOLLOW. The last component is then only ever given to calls that do not follow it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, Self

from chatkeep.daemon.vault.layers import check_path

_OPENAT2: Final = 437  # the same number on every architecture (asm-generic/unistd.h)
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_UNSUPPORTED: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EINVAL})
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # needs no permission to read
_HELD: Final = 64  # directories kept open: files of one directory mostly follow each other

_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _openat2(dir_fd: int, path: bytes, flags: int) -> int:
    how = _How(flags, 0, _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH)
    fd: int = _libc.syscall(_OPENAT2, dir_fd, path, ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def _walk(dir_fd: int, path: bytes, flags: int) -> int:
    current = dir_fd
    try:
        *steps, last = path.split(b"/")
        for step in steps:
            inner = _one(current, step, _STEP)
            if current != dir_fd:
                os.close(current)
            current = inner
        return _one(current, last, flags | os.O_NOFOLLOW)
    finally:
        if current != dir_fd:
            os.close(current)


def _one(dir_fd: int, name: bytes, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=dir_fd)
    except NotADirectoryError as exc:
        # What the kernel says of a link where a directory was asked for and no link may be followed.
        if stat.S_ISLNK(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from exc
        raise


def _kernel_can() -> bool:
    root = os.open("/", _DIRECTORY)
    try:
        os.close(_openat2(root, b".", _DIRECTORY))
    except OSError as exc:
        if exc.errno not in _UNSUPPORTED:
            raise
        return False
    finally:
        os.close(root)
    return True


def syncfs(fd: int) -> None:
    """Everything written to the file system of `fd` is on its medium on return. Raises OSError."""
    if _libc.syncfs(fd):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Beneath:
    """A directory held open. Paths are bytes, relative, in the form of section 11 of the format; empty is it itself.

    Raises OSError, and Malformed for another form of path. Threads may share one; they take turns. Two that are given
    to each other (`rename`, `link`) must always be given in the same direction.
    """

    openat2: bool | None = None  # whether the kernel has it; found out once

    def __init__(self, where: bytes | str | os.PathLike[str] | int) -> None:
        """`where`: a path, whose links are followed, or a descriptor of a directory, which is taken over."""
        self.fd = where if isinstance(where, int) else os.open(where, _DIRECTORY & ~os.O_NOFOLLOW)
        self._held: OrderedDict[bytes, int] = OrderedDict()
        self._turn = threading.RLock()
        if Beneath.openat2 is None:
            Beneath.openat2 = _kernel_can()

    @classmethod
    def without_links(cls, path: bytes) -> Self:
        """The directory at an absolute path in which no link is left, as `os.path.realpath` returns it: one that
        somebody else has put on the way since then is refused."""
        with cls(os.open("/", _STEP)) as root:
            return cls(root.open(path.strip(b"/"), _DIRECTORY))

    def inside(self, path: bytes) -> Beneath:
        """A directory beneath this one, held open by itself."""
        return Beneath(self.open(path, _DIRECTORY))

    def close(self) -> None:
        """Lets go of everything; safe to repeat."""
        self.forget()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def forget(self) -> None:
        """Lets go of directories held open, before they are moved."""
        with self._turn:
            for fd in self._held.values():
                os.close(fd)
            self._held.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, path: bytes, flags: int) -> int:
        """A descriptor of what stands at `path`; it is never created and no link is followed."""
        check_path(path)
        return self._open(path or b".", flags | os.O_CLOEXEC | os.O_NOFOLLOW)

    def create(self, path: bytes) -> int:
        """A new empty file, for us alone until its own mode is set."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._parent(path) as (parent, name):
            return os.open(name, flags, 0o600, dir_fd=parent)

    def lstat(self, path: bytes) -> os.stat_result | None:
        """What stands at `path`; None when nothing does, or when a directory on the way is missing."""
        try:
            with self._parent(path) as (parent, name):
                return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def make_directory(self, path: bytes) -> bool:
        """A directory for us alone; False when one is there. Raises FileExistsError when something else is."""
        with self._parent(path) as (parent, name):
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    raise
                return False
            return True

    def open_up(self, path: bytes) -> None:
        """Let the owner, who we are, read, write and enter a directory."""
        with self._parent(path) as (parent, name):
            fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            if mode & stat.S_IRWXU != stat.S_IRWXU:
                # Such a descriptor needs no permission and takes no fchmod; this names it without a path to follow.
                os.chmod(f"/proc/self/fd/{fd}", mode | stat.S_IRWXU)
        finally:
            os.close(fd)

    def symlink(self, target: bytes, path: bytes) -> None:
        """A new symbolic link. Nothing is ever written through it."""
        with self._parent(path) as (parent, name):
            os.symlink(target, name, dir_fd=parent)

    def link(self, old: bytes, to: Beneath, new: bytes) -> None:
        """Another name, in `to`, for a file."""
        with self._parent(old, hold=True) as (old_parent, old_name), to._parent(new) as (parent, name):
            os.link(old_name, name, src_dir_fd=old_parent, dst_dir_fd=parent, follow_symlinks=False)

    def unlink(self, path: bytes) -> None:
        """Removes a name that is not a directory's."""
        with self._parent(path) as (parent, name):
            os.unlink(name, dir_fd=parent)

    def remove_directory(self, path: bytes) -> None:
        """Removes an empty directory."""
        self.forget()
        with self._parent(path) as (parent, name):
            os.rmdir(name, dir_fd=parent)

    def rename(self, old: bytes, to: Beneath, new: bytes) -> None:
        """Moves a name into `to`, over what is there."""
        with self._parent(old, hold=True) as (old_parent, old_name), to._parent(new) as (parent, name):
            os.rename(old_name, name, src_dir_fd=old_parent, dst_dir_fd=parent)

    @contextlib.contextmanager
    def at(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The directory that holds `path`, and the name in it, for calls that do not follow links."""
        with self._parent(path) as found:
            yield found

    @contextlib.contextmanager
    def _parent(self, path: bytes, *, hold: bool = False) -> Iterator[tuple[int, bytes]]:
        check_path(path)
        above, _, name = path.rpartition(b"/")
        if not above:
            yield self.fd, name or b"."
            return
        with self._turn:  # for as long as the descriptor is used: another thread may push it out of those held
            fd = self._held.get(above)
            if fd is None:
                fd = self._held[above] = self._open(above, _DIRECTORY)
            self._held.move_to_end(above)
            if hold:  # the other path of a pair may push this one out
                fd = os.dup(fd)
            try:
                while len(self._held) > _HELD:
                    os.close(self._held.popitem(last=False)[1])
                yield fd, name
            finally:
                if hold:
                    os.close(fd)

    def _open(self, path: bytes, flags: int) -> int:
        return _openat2(self.fd, path, flags) if Beneath.openat2 else _walk(self.fd, path, flags)
