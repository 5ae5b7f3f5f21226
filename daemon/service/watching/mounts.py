"""Which file systems lie at and below a directory, and whether the kernel sees every change there.

inotify tells what this kernel did. What another machine writes to a shared file system, or what a program writes behind
a FUSE mount, it does not see. Overlays count as seen: everything that goes through the mount does, and changing their
layers underneath is undefined (Documentation/filesystems/overlayfs). So does `fuseblk`, a local disk with a driver in
user space.

The kind comes from the mount that a descriptor belongs to (`mnt_id`, proc(5)), not from statfs(2): one magic number
stands for all of FUSE, and device numbers do not identify subvolumes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

# Types as /proc/self/mountinfo names them; of FUSE every subtype.
_SHARED = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p", "virtiofs", "ceph", "lustre"),
        *("gfs2", "ocfs2", "gpfs", "beegfs", "orangefs", "pvfs2", "glusterfs", "vboxsf", "prl_fs", "vmhgfs", "fuse"),
    }
)
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_MOUNTS = "/proc/self/mountinfo"


class Mount(NamedTuple):
    """One line of the mount table."""

    number: int
    point: bytes
    kind: str


def is_shared(kind: str) -> bool:
    """Whether a file system of this type changes without this kernel being asked."""
    return kind in _SHARED or kind.startswith("fuse.")


def parse(table: bytes) -> Iterator[Mount]:
    """The mounts of /proc/self/mountinfo (proc(5)); lines of another form are passed over."""
    for line in table.splitlines():
        fields = line.split(b" ")
        try:
            kind = fields[fields.index(b"-", 6) + 1]
            yield Mount(int(fields[0]), _unescaped(fields[4]), kind.decode("ascii", "replace"))
        except (ValueError, IndexError):
            continue


def mounts_below(directory: bytes) -> tuple[Mount, ...]:
    """What is mounted strictly below, in the order of the table."""
    try:
        inside = os.path.realpath(directory).rstrip(b"/") + b"/"
        return tuple(mount for mount in parse(_read(_MOUNTS)) if mount.point.startswith(inside) and mount.point != b"/")
    except OSError:
        return ()  # no /proc: mounts are noticed by whole comparisons


def kind_at(directory: bytes) -> str:
    """The type of file system that a directory is on; empty when it cannot be told. Raises OSError when it cannot be
    opened."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        number = _mount_of(fd)
        return next((mount.kind for mount in parse(_read(_MOUNTS)) if mount.number == number), "")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _mount_of(fd: int) -> int:
    for line in _read(f"/proc/self/fdinfo/{fd}").splitlines():
        name, _, value = line.partition(b":")
        if name == b"mnt_id":
            return int(value)
    return -1


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _unescaped(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), text)
