"""A place for what is restored only to be looked at: private, and never left behind.

    .chatkeep-drill-<random>/    0700, locked for as long as its process lives

A process that was killed leaves one. Whoever comes next removes those that nobody locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from typing import Final, Self

from chatkeep.daemon.restore.beneath import Beneath
from chatkeep.daemon.restore.errors import writing
from chatkeep.daemon.restore.staging import empty

PREFIX: Final = b".chatkeep-drill-"
_ALONE: Final = b"alone"


class Scratch:
    """A new directory below one that exists; what others left there before is removed first. As a context manager, it
    is removed in the end.

    Raises: TargetUnwritable, NoSpace, UnsafePath: it cannot be made or removed.
    """

    def __init__(self, above: bytes) -> None:
        self.above = os.path.realpath(above)
        with writing(self.above):
            self._around = Beneath.without_links(self.above)
        try:
            with writing(self.above):
                self._sweep()
                self._make()
        except BaseException:
            self._around.close()
            raise

    @property
    def path(self) -> bytes:
        """Where it is."""
        return os.path.join(self.above, self._name)

    def clear(self) -> None:
        """Removes all that is in it."""
        with writing(self.path):
            empty(self.top)

    @contextlib.contextmanager
    def alone(self, path: bytes) -> Iterator[bytes]:
        """A directory with nothing in it but a restored database, as `db`, and its journal if it has one.

        What else a snapshot has beside a database may be links: SQLite would follow them, and write.
        """
        with writing(path):
            steps = path.split(b"/")
            for count in range(1, len(steps)):
                self.top.open_up(b"/".join(steps[:count]))
            self.top.make_directory(_ALONE)
            for suffix in (b"", b"-journal"):
                facts = self.top.lstat(path + suffix)
                if facts is not None and stat.S_ISREG(facts.st_mode):
                    self.top.link(path + suffix, self.top, _ALONE + b"/db" + suffix)
                    with self.top.at(_ALONE + b"/db" + suffix) as (parent, name):
                        os.chmod(name, 0o600, dir_fd=parent)
        try:
            yield os.path.join(self.path, _ALONE)
        finally:
            with writing(path), self.top.inside(_ALONE) as found:
                empty(found)
                self.top.remove_directory(_ALONE)

    def close(self) -> None:
        """Removes it."""
        try:
            self.clear()
            with writing(self.path):
                self.top.close()
                self._around.remove_directory(self._name)
        finally:
            self.top.close()
            self._around.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self) -> None:
        while True:
            self._name = PREFIX + secrets.token_hex(8).encode()
            self._around.make_directory(self._name)
            # Another one's sweep may take it away before it is locked.
            with contextlib.suppress(FileNotFoundError):
                self.top = self._around.inside(self._name)
                fcntl.flock(self.top.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(self.top.fd).st_nlink:
                    return

    def _sweep(self) -> None:
        """Removes what killed processes left."""
        for name in map(os.fsencode, os.listdir(self._around.fd)):
            if not name.startswith(PREFIX):
                continue
            gone = contextlib.suppress(FileNotFoundError, NotADirectoryError, BlockingIOError)
            with gone, self._around.inside(name) as found:
                if os.fstat(found.fd).st_uid == os.geteuid():
                    fcntl.flock(found.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    empty(found)
                    self._around.remove_directory(name)
