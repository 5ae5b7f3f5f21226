"""Giving what was restored its final names.

Into a place where nothing is: one rename, so that the target is there whole or not at all. Into a directory that
exists: file by file. A database needs an order of its own. Beside an old database may lie its log (`-wal`), the log's
index (`-shm`) or its journal, and SQLite replays whatever lies beside a database into it. So these are moved aside
*before* the new database gets the name: at no instant, also not after a crash, does the new database stand beside the
log of the old one. The other order would let the next application that opens it overwrite restored pages with old ones.
In between the old database stands without its log; a repeated restore goes on from there, and until it is done the old
log is kept in the staging directory. A snapshot with a journal of its own (a transaction had been cut off) needs more:
the old database is moved aside too, then the journal gets its name, then the database, so that the journal never
stands beside another database than its own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Final

from chatkeep.daemon.capture import locks
from chatkeep.daemon.capture.errors import UnsupportedSource
from chatkeep.daemon.restore.attributes import AttributeWriter
from chatkeep.daemon.restore.beneath import Beneath, syncfs
from chatkeep.daemon.restore.errors import TargetExists, TargetInUse, writing
from chatkeep.daemon.restore.plan import RestorePlan
from chatkeep.daemon.restore.staging import Staging
from chatkeep.daemon.vault.layers import FileKind

COMPANIONS: Final = (b"-wal", b"-shm", b"-journal")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY


def refuse_conflicts(plan: RestorePlan, target: Beneath, *, overwrite: bool) -> None:
    """Raise before anything is fetched if the target, which exists, cannot take the plan.

    Raises:
        TargetExists: something stands in the way that may not, or must not, be replaced.
        TargetInUse: an application has a database open.
    """
    for path, file_id in plan.paths.items():
        with writing(path):
            facts = target.lstat(path) if path else None
        if facts is None:
            continue
        is_directory = stat.S_ISDIR(facts.st_mode)
        if is_directory != (plan.files[file_id].kind is FileKind.DIRECTORY):
            # Replaced by a rename it would be lost with all below it; a link in place of a directory would be followed.
            raise TargetExists(path=path, reason="kind")
        if not is_directory:
            if not overwrite:
                raise TargetExists(path=path, reason="exists")
            if plan.files[file_id].kind is FileKind.DATABASE:
                _refuse_open_database(target, path)


def _refuse_open_database(target: Beneath, path: bytes) -> None:
    asked = [(path, locks.PENDING, 2 + locks.SHARED_COUNT), (path + b"-shm", locks.ALIVE, 1)]
    for name, first, count in asked:
        facts = target.lstat(name)
        if facts is None or not stat.S_ISREG(facts.st_mode):
            continue
        with writing(name):
            fd = target.open(name, os.O_RDONLY)
        try:
            if locks.held_by_others(fd, first, count):
                raise TargetInUse(path=path, reason="database")
        except UnsupportedSource:
            return  # a file system without locks cannot tell
        finally:
            os.close(fd)


def make_directories(plan: RestorePlan, tree: Beneath) -> None:
    """Every directory of the plan, and those that lead to its paths, for us alone until all else is done."""
    made: set[bytes] = {b""}
    for path, file_id in plan.paths.items():
        is_directory = plan.files[file_id].kind is FileKind.DIRECTORY
        for above in _ancestors(path, itself=is_directory):
            if above not in made:
                with writing(above):
                    tree.make_directory(above)
                made.add(above)


def _ancestors(path: bytes, *, itself: bool) -> Iterable[bytes]:
    parts = path.split(b"/")
    for length in range(1, len(parts) + itself):
        yield b"/".join(parts[:length])


def finish_directories(
    plan: RestorePlan, tree: Beneath, attributes: AttributeWriter, skip: frozenset[bytes] = frozenset()
) -> None:
    """Attributes of directories, the deepest first: any change below would set the time of those above anew."""
    for path, file_id in sorted(plan.paths.items(), reverse=True):
        record = plan.files[file_id]
        if record.kind is FileKind.DIRECTORY and path not in skip:
            with writing(path):
                fd = tree.open(path, _DIRECTORY)
                try:
                    attributes.set(fd, path, record)
                finally:
                    os.close(fd)


def place_whole(plan: RestorePlan, staging: Staging, parent: Beneath, name: bytes, attributes: AttributeWriter) -> None:
    """The staging tree becomes the target, which does not exist."""
    finish_directories(plan, staging.tree, attributes, frozenset({b""}))
    with writing(name):
        try:
            staging.top.rename(b"tree", parent, name)
        except OSError as exc:
            if parent.lstat(name) is None:
                raise
            raise TargetExists(path=name, reason="exists") from exc
        # Only now: a directory that may not be written cannot be moved.
        if b"" in plan.paths:
            attributes.set(staging.tree.fd, b"", plan.files[plan.paths[b""]])
        os.fsync(parent.fd)


def place_each(plan: RestorePlan, staging: Staging, target: Beneath, attributes: AttributeWriter) -> None:
    """Every file moves to its name in the target, which exists. What an earlier attempt moved is there already."""
    there = {path for path in plan.parents if target.lstat(path) is not None}
    make_directories(plan, target)
    for path, file_id in plan.paths.items():
        # One that its owner may not write takes no files. It gets its own mode back with its attributes, at the end.
        if path and path not in there and plan.files[file_id].kind is FileKind.DIRECTORY:
            with writing(path):
                target.open_up(path)
    journals = _journals(plan)
    links: list[bytes] = []
    for path, file_id in plan.paths.items():
        kind = plan.files[file_id].kind
        if kind is FileKind.SYMLINK:
            links.append(path)
        elif kind is FileKind.DATABASE:
            _place_database(plan, staging, target, path)
        elif kind is FileKind.FILE and path not in journals:
            _move(staging, target, path)
    for path in links:
        _move(staging, target, path)
    finish_directories(plan, target, attributes, frozenset({*there, b""}))
    with writing(b""):
        syncfs(target.fd)


def finish_target(plan: RestorePlan, target: Beneath, attributes: AttributeWriter) -> None:
    """Attributes of the target itself, last: the staging directory lay in it."""
    if b"" in plan.paths and b"" not in plan.parents:
        attributes.set(target.fd, b"", plan.files[plan.paths[b""]])


def _journals(plan: RestorePlan) -> set[bytes]:
    """Journals that belong to a database of the plan: they get their names with it."""
    return {
        path + b"-journal"
        for path, file_id in plan.paths.items()
        if plan.files[file_id].kind is FileKind.DATABASE and path + b"-journal" in plan.paths
    }


def _place_database(plan: RestorePlan, staging: Staging, target: Beneath, path: bytes) -> None:
    with writing(path):
        if staging.tree.lstat(path) is None:
            return  # moved by an earlier attempt: what lies beside it now is its own
        journal = path + b"-journal"
        own = journal in plan.paths
        moved = own and staging.tree.lstat(journal) is None  # by an earlier attempt, cut off before the database's turn
        for suffix in COMPANIONS:
            if not (moved and path + suffix == journal):
                staging.put_aside(target, path + suffix)
        if own and not moved:
            staging.put_aside(target, path)
            staging.tree.rename(journal, target, journal)
        with target.at(path) as (directory, _):
            os.fsync(directory)  # the order of names must survive a power cut too
        staging.tree.rename(path, target, path)


def _move(staging: Staging, target: Beneath, path: bytes) -> None:
    with writing(path):
        if staging.tree.lstat(path) is not None:
            staging.tree.rename(path, target, path)
