"""The walk over a source: every entry with its `lstat`, in an order that depends on names only.

Memory holds one directory's entries, and the subdirectories still to be listed. Mounts below the source are part of
it: a profile with its media on another disk is backed up whole; each is noted, so that a person can exclude it.
"""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from chatkeep.daemon.capture.errors import SourceUnreadable
from chatkeep.daemon.capture.exclude import Exclusions
from chatkeep.daemon.capture.tree import DIRECTORY, MAX_NAME, MAX_PATH, Found, Kind, SourceTree, open_quietly

# A directory that changes while it is listed may show a renamed file under neither name, and the snapshot would call
# it deleted. It is listed again; one that never rests is taken as it is, and the next snapshot has the rest.
LISTINGS = 3


class Reason(enum.Enum):
    """Why an entry is not in the backup, or is in it with a remark."""

    UNREADABLE = "unreadable"  # the system refused; `errno` says what
    CHANGED = "changed"  # a directory was replaced or removed between being found and being listed
    SPECIAL = "special"  # FIFO, socket, device: nothing to store
    TOO_LONG = "too-long"  # longer than the format carries
    MOUNTED = "mounted"  # a directory of another file system: captured, noted


class Problem(NamedTuple):
    """A remark about one path; never fatal."""

    path: bytes
    reason: Reason
    errno: int = 0

    @property
    def hides_content(self) -> bool:
        """Whether something may exist at or below the path that the walk could not see.

        What earlier snapshots know there must then be kept, not called deleted.
        """
        return self.reason in (Reason.UNREADABLE, Reason.CHANGED)


class Listing(NamedTuple):
    """One directory: its own facts, its entries in the order of their names, remarks about any of them or itself."""

    directory: Found
    entries: list[Found]
    problems: list[Problem]


def walk(tree: SourceTree, exclude: Exclusions | None = None) -> Iterator[Found | Problem]:
    """Every entry below the source, the source itself (empty path) first; a directory always before what it holds."""
    for listing in walk_directories(tree, exclude):
        if not listing.directory.path:
            yield listing.directory
        yield from listing.entries
        yield from listing.problems


def walk_directories(tree: SourceTree, exclude: Exclusions | None = None) -> Iterator[Listing]:
    """The same, one directory at a time, parents first, siblings by name: what tells databases from files needs the
    neighbours.

    Special files and excluded entries are in no `entries`. Raises SourceUnreadable when the source itself cannot be
    listed.
    """
    pending = [Found.of(b"", os.fstat(tree.fd))]
    while pending:
        listing = _list_directory(tree, pending.pop(), exclude or None)
        yield listing
        pending.extend(found for found in reversed(listing.entries) if found.kind is Kind.DIRECTORY)


def _list_directory(tree: SourceTree, directory: Found, exclude: Exclusions | None) -> Listing:
    try:
        fd = open_quietly(directory.path or b".", DIRECTORY, tree.fd)
    except OSError as exc:
        return _unlisted(tree, directory, exc)
    try:
        facts = os.fstat(fd)
        # O_NOFOLLOW is about the last component only. Comparing with what was found is what keeps a parent that was
        # replaced by a symbolic link from leading the walk out of the source.
        if (facts.st_dev, facts.st_ino) != (directory.dev, directory.ino):
            return Listing(directory, [], [Problem(directory.path, Reason.CHANGED)])
        return _settled(fd, directory, exclude)
    except OSError as exc:
        return _unlisted(tree, directory, exc)
    finally:
        os.close(fd)


def _unlisted(tree: SourceTree, directory: Found, exc: OSError) -> Listing:
    if not directory.path:  # an empty listing of the source would read as "everything was deleted"
        raise SourceUnreadable(path=tree.root, errno=exc.errno) from exc
    gone = exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    reason = Reason.CHANGED if gone else Reason.UNREADABLE
    return Listing(directory, [], [Problem(directory.path, reason, exc.errno or 0)])


def _settled(fd: int, directory: Found, exclude: Exclusions | None) -> Listing:
    for _ in range(LISTINGS):
        before = os.fstat(fd).st_mtime_ns
        listing, vanished = _list_once(fd, directory, exclude)
        if not vanished and os.fstat(fd).st_mtime_ns == before:
            break
    return listing


def _list_once(fd: int, directory: Found, exclude: Exclusions | None) -> tuple[Listing, bool]:
    prefix = directory.path + b"/" if directory.path else b""
    entries: list[Found] = []
    problems: list[Problem] = []
    vanished = False
    for name in sorted(map(os.fsencode, os.listdir(fd))):
        path = prefix + name
        try:
            found = Found.of(path, os.stat(name, dir_fd=fd, follow_symlinks=False))
        except FileNotFoundError:
            vanished = True
            continue
        except OSError as exc:
            problems.append(Problem(path, Reason.UNREADABLE, exc.errno or 0))
            continue
        if exclude is not None and exclude.match(path, found.kind is Kind.DIRECTORY):
            continue
        remark = _remark(found, len(name), directory.dev)
        if remark is not None:
            problems.append(Problem(path, remark))
        if remark is None or remark is Reason.MOUNTED:
            entries.append(found)
    return Listing(directory, entries, problems), vanished


def _remark(found: Found, name_length: int, parent_dev: int) -> Reason | None:
    if found.kind is Kind.SPECIAL:
        return Reason.SPECIAL
    if name_length > MAX_NAME or len(found.path) > MAX_PATH:
        return Reason.TOO_LONG
    if found.dev != parent_dev and found.kind is Kind.DIRECTORY:
        return Reason.MOUNTED
    return None
