"""Owner, mode, extended attributes and times of what was restored. Best effort: what could not be set is reported.

The order for a file is fixed by the kernel: a change of owner clears special bits and capabilities, extended attributes
need a file that may be written, and every change moves the change time but only a write moves the modification time.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from chatkeep.daemon.vault.layers import FileRecord

SPECIAL: Final = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_PRIVILEGED: Final = (b"security.", b"trusted.")


@dataclass(frozen=True, slots=True)
class Attributes:
    """What to give back beside mode and times. Both only where asked for, and ownership only for root.

    Attributes:
        ownership: owner and group; by name where this machine knows the name, else by number.
        special_bits: setuid, setgid, sticky, and attributes that the system itself acts on: file capabilities, labels,
            marks of file systems. A backup that was tampered with would otherwise make a program that runs as another
            user.
    """

    ownership: bool = False
    special_bits: bool = False


@dataclass(frozen=True, slots=True)
class Unset:
    """An attribute that could not be given back: `what` is mode, owner, time, or the name of an extended attribute."""

    path: bytes
    what: str
    errno: int


@dataclass(slots=True)
class AttributeWriter:
    """Sets attributes and keeps account. `unset` holds at most `most` entries; `failures` counts all."""

    wanted: Attributes
    unset: list[Unset] = field(default_factory=list)
    failures: int = 0
    most: int = 1000
    _users: dict[bytes, int | None] = field(default_factory=dict)
    _groups: dict[bytes, int | None] = field(default_factory=dict)

    def set(self, fd: int, path: bytes, record: FileRecord) -> None:
        """Everything, on the descriptor of a file or directory."""
        if self.wanted.ownership and os.geteuid() == 0:
            with self._reported(path, "owner"):
                os.fchown(fd, *self._owner(record))
        for name, value in record.xattrs:
            self._xattr(fd, path, name, value)
        keep = stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO | (SPECIAL if self.wanted.special_bits else 0)
        with self._reported(path, "mode"):
            os.fchmod(fd, record.mode & keep)
        with self._reported(path, "time"):
            os.utime(fd, ns=(record.mtime, record.mtime))

    def set_link(self, dir_fd: int, name: bytes, path: bytes, record: FileRecord) -> None:
        """Owner and time of a symbolic link itself; it has no mode, and no attributes that a user may set."""
        if self.wanted.ownership and os.geteuid() == 0:
            with self._reported(path, "owner"):
                os.chown(name, *self._owner(record), dir_fd=dir_fd, follow_symlinks=False)
        for attribute, _ in record.xattrs:
            self._report(path, os.fsdecode(attribute), errno.EOPNOTSUPP)
        with self._reported(path, "time"):
            os.utime(name, ns=(record.mtime, record.mtime), dir_fd=dir_fd, follow_symlinks=False)

    def _xattr(self, fd: int, path: bytes, name: bytes, value: bytes) -> None:
        shown = os.fsdecode(name)
        if not name.startswith(b"user.") and os.geteuid() != 0:
            self._report(path, shown, errno.EPERM)
            return
        if name.startswith(_PRIVILEGED) and not self.wanted.special_bits:
            self._report(path, shown, errno.EPERM)
            return
        with self._reported(path, shown):
            os.setxattr(fd, name, value)

    def _owner(self, record: FileRecord) -> tuple[int, int]:
        if record.user not in self._users:
            with contextlib.suppress(KeyError, ValueError):
                self._users[record.user] = pwd.getpwnam(os.fsdecode(record.user)).pw_uid
        if record.group not in self._groups:
            with contextlib.suppress(KeyError, ValueError):
                self._groups[record.group] = grp.getgrnam(os.fsdecode(record.group)).gr_gid
        uid = self._users.setdefault(record.user, None)
        gid = self._groups.setdefault(record.group, None)
        return (record.uid if uid is None else uid, record.gid if gid is None else gid)

    @contextlib.contextmanager
    def _reported(self, path: bytes, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, OverflowError) as exc:  # the latter: a time that this platform cannot hold
            self._report(path, what, getattr(exc, "errno", None) or errno.EOVERFLOW)

    def _report(self, path: bytes, what: str, number: int) -> None:
        self.failures += 1
        if len(self.unset) < self.most:
            self.unset.append(Unset(path, what, number))
