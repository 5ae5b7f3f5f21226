"""Two directories compared by everything that a backup promises to keep."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple


class Thing(NamedTuple):
    """One entry as a restore must bring it back. `links`: all its names, for hard links."""

    kind: str
    mode: int
    mtime_ns: int
    size: int
    content: str
    xattrs: tuple[tuple[bytes, bytes], ...]
    links: tuple[bytes, ...]


def describe(root: Path, *, leave_out: tuple[bytes, ...] = (b"-wal", b"-shm")) -> dict[bytes, Thing]:
    """Every entry below `root` by its relative name, but those whose names end as `leave_out` says."""
    top = os.fsencode(root)
    names: dict[tuple[int, int], list[bytes]] = {}
    paths: list[bytes] = [b""]
    for directory, subdirectories, files in os.walk(top):
        paths += [os.path.relpath(os.path.join(directory, name), top) for name in (*subdirectories, *files)]
    kept = [path for path in paths if not path.endswith(leave_out)]
    for path in kept:
        facts = os.lstat(os.path.join(top, path))
        names.setdefault((facts.st_dev, facts.st_ino), []).append(path)
    return {path: _thing(os.path.join(top, path), names) for path in kept}


def _thing(path: bytes, names: dict[tuple[int, int], list[bytes]]) -> Thing:
    facts = os.lstat(path)
    kind, content, size = "directory", "", 0
    if stat.S_ISLNK(facts.st_mode):
        kind, content = "link", os.readlink(path).hex()
    elif stat.S_ISREG(facts.st_mode):
        kind, size = "file", facts.st_size
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    xattrs = tuple((os.fsencode(n), os.getxattr(path, n, follow_symlinks=False)) for n in sorted(_xattrs(path)))
    links = tuple(sorted(names[facts.st_dev, facts.st_ino])) if kind != "directory" else ()
    return Thing(kind, stat.S_IMODE(facts.st_mode), facts.st_mtime_ns, size, content, xattrs, links)


def _xattrs(path: bytes) -> list[str]:
    return [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user.")]
