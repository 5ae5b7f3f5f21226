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
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import Final, Self

from chatkeep.daemon.restore.beneath import Beneath, syncfs
from chatkeep.daemon.restore.errors import TargetExists, TargetInUse, writing

PREFIX: Final = b".chatkeep-restore-"
_MOVING: Final = b"moving"


class Staging:
    """One restore's working directory, made or found again. Raises TargetUnwritable, TargetInUse, TargetExists."""

    def __init__(self, above: bytes, name: bytes) -> None:
        self.path = os.path.join(above, PREFIX + name)
        with writing(self.path), contextlib.ExitStack() as undo:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path, 0o700)
            # Somebody else's directory under this name, or a link to one, could be read and changed while we prove it.
            facts = os.lstat(self.path)
            if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
                raise TargetExists(path=self.path, reason="kind")
            os.chmod(self.path, 0o700)
            self.top = undo.enter_context(Beneath(self.path))
            self._lock()
            for part in (b"tree", b"parts", b"replaced"):
                self.top.make_directory(part)
            self.tree = undo.enter_context(Beneath(os.path.join(self.path, b"tree")))
            self.parts = undo.enter_context(Beneath(os.path.join(self.path, b"parts")))
            self.replaced = undo.enter_context(Beneath(os.path.join(self.path, b"replaced")))
            for leftover in os.listdir(os.path.join(self.path, b"parts")):
                self.parts.unlink(leftover)  # half a file proves nothing about its other half
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Leaves it for the next attempt."""
        self._undo.close()

    def remove(self) -> None:
        """Removes it with all that is left in it."""
        with writing(self.path):
            for part in ("tree", "parts", "replaced"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(os.path.join(self.path, os.fsencode(part)))
            # The mark goes last: without it, files under their final names are in the way of a repeated attempt.
            self.top.unlink(_MOVING)
            self.close()
            os.rmdir(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
