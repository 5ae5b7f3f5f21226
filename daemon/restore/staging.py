"""The directory a restore is made in, before anything gets its final name.

    .chatkeep-restore-<snapshot>/    0700, locked by the restore that works in it
      tree/                          the files under their names, each whole and proven before it gets there
      parts/<file id>                files on their way
      replaced/<n>                   what stood in the way of a database: kept until everything has its name
      moving                         everything in tree/ was whole and on the medium: final names are being given

It lies on the target's file system, so that giving a name is a rename and never a copy.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final, Self

from chatkeep.daemon.restore.beneath import Beneath, syncfs
from chatkeep.daemon.restore.errors import TargetExists, TargetInUse, writing

PREFIX: Final = b".chatkeep-restore-"
_MOVING: Final = b"moving"
_PARTS: Final = (b"tree", b"parts", b"replaced")
_ALL: Final = frozenset(map(os.fsdecode, (*_PARTS, _MOVING)))


class Staging:
    """One restore's working directory, made or found again. Raises TargetUnwritable, TargetInUse, TargetExists.

    Every step to it and in it is made from the descriptor of the directory around it, which stays the caller's: others
    may be able to write there, and a path would lead wherever they turn it meanwhile.

    Args:
        around: the directory it is made in.
        above: its path, to be shown.
        name: of the snapshot.
    """

    def __init__(self, around: Beneath, above: bytes, name: bytes) -> None:
        self._around, self._name = around, PREFIX + name
        self.path = os.path.join(above, self._name)
        with writing(self.path), contextlib.ExitStack() as undo:
            try:
                around.make_directory(self._name)
                self.top = undo.enter_context(around.inside(self._name))
            except (FileExistsError, NotADirectoryError) as exc:
                raise TargetExists(path=self.path, reason="kind") from exc
            # Somebody else's directory under this name could be read and changed while we prove what is in it.
            if os.fstat(self.top.fd).st_uid != os.geteuid() or not _ALL.issuperset(os.listdir(self.top.fd)):
                raise TargetExists(path=self.path, reason="kind")
            os.fchmod(self.top.fd, 0o700)
            self._lock()
            for part in _PARTS:
                self.top.make_directory(part)
            self.tree, self.parts, self.replaced = (undo.enter_context(self.top.inside(part)) for part in _PARTS)
            for leftover in os.listdir(self.parts.fd):
                self.parts.unlink(os.fsencode(leftover))  # half a file proves nothing about its other half
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Leaves it for the next attempt."""
        self._undo.close()

    def remove(self) -> None:
        """Removes it with all that is left in it."""
        with writing(self.path):
            for part in _PARTS:
                # Opened anew: what `tree` holds open may by now be the target.
                with contextlib.suppress(FileNotFoundError), self.top.inside(part) as found:
                    empty(found)
                    self.top.remove_directory(part)
            # The mark goes last: without it, files under their final names are in the way of a repeated attempt.
            self.top.unlink(_MOVING)
            self.close()
            self._around.remove_directory(self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def resumes(around: Beneath, name: bytes) -> bool:
        """Whether an attempt in this directory was cut off while files got their names."""
        with contextlib.suppress(OSError):  # somebody else's, or no directory
            return around.lstat(PREFIX + name + b"/" + _MOVING) is not None
        return False

    @property
    def moving(self) -> bool:
        """Whether an earlier attempt had everything whole, and some of it may have its final name by now."""
        return self.top.lstat(_MOVING) is not None

    def finished(self) -> None:
        """Everything is in `tree`: make that durable, and remember it. A name must not outlive a power cut that the
        content under it did not."""
        with writing(self.path):
            syncfs(self.top.fd)
            if not self.moving:
                os.close(self.top.create(_MOVING))
            syncfs(self.top.fd)

    def holds_anything(self) -> bool:
        """Whether anything of the restore, or what it replaced, lies in it."""
        with contextlib.suppress(OSError):
            if self._around.lstat(self._name) is None:
                return False  # removed, and its descriptors closed: their numbers may be others' by now
        for part in _PARTS:
            # Opened anew: what `tree` holds open may by now be the target.
            with contextlib.suppress(OSError), self.top.inside(part) as found:
                if os.listdir(found.fd):
                    return True
        return False

    def put_aside(self, place: Beneath, path: bytes) -> bool:
        """Move what stands at `path` out of the way, if anything does. It stays here until the restore is done."""
        if place.lstat(path) is None:
            return False
        number = len(os.listdir(self.replaced.fd))
        place.rename(path, self.replaced, b"%d" % number)
        return True

    def prune(self, keep: Callable[[bytes, os.stat_result], bool]) -> set[bytes]:
        """Remove from `tree` whatever an earlier attempt left that `keep` does not want; the paths of what stays.
        Directories stay, and are ours to write in again."""
        kept: set[bytes] = set()
        for path, facts in _walk(self.tree):
            if not stat.S_ISDIR(facts.st_mode):
                if keep(path, facts):
                    kept.add(path)
                else:
                    self.tree.unlink(path)
        return kept

    def _lock(self) -> None:
        try:
            fcntl.flock(self.top.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise TargetInUse(path=self.path, reason="restore") from exc


def empty(tree: Beneath) -> None:
    """Removes all that is in a directory of ours. Not by calling itself: a path may have two thousand directories."""
    directories: list[bytes] = []
    for path, facts in _walk(tree):
        if stat.S_ISDIR(facts.st_mode):
            directories.append(path)
        else:
            tree.unlink(path)
    for path in reversed(directories):
        tree.remove_directory(path)


def _walk(tree: Beneath) -> Iterator[tuple[bytes, os.stat_result]]:
    waiting = [b""]
    while waiting:
        above = waiting.pop()
        fd = tree.open(above, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in map(os.fsencode, os.listdir(fd)):
                path = above + b"/" + name if above else name
                facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode):
                    os.chmod(name, 0o700, dir_fd=fd)  # an earlier attempt may have given it its final mode
                    waiting.append(path)
                yield path, facts
        finally:
            os.close(fd)
