"""The files beside a database: its log (`-wal`), the log's index (`-shm`), its rollback journal."""

from __future__ import annotations

import os
from collections.abc import Iterator

from chatkeep.daemon.capture import locks, logfile
from chatkeep.daemon.capture.errors import SourceMissing
from chatkeep.daemon.capture.position import FileVersion
from chatkeep.daemon.capture.reading import open_companion, open_source, version_at

WAL, INDEX, JOURNAL = b"-wal", b"-shm", b"-journal"
_PIECE = 1 << 20


class Companions:
    """Log and index of one database as they were found, held open. A descriptor is None when there was no such file.

    Raises SourceUnreadable, UnsupportedSource.
    """

    def __init__(self, path: bytes) -> None:
        self._path = path
        self.wal_fd = open_companion(path + WAL)
        self.shm_fd: int | None = None
        try:
            self.shm_fd = open_companion(path + INDEX)
            # Looked up before anything is read: what is written meanwhile then shows as another version later.
            self.wal = None if self.wal_fd is None else FileVersion.of(os.fstat(self.wal_fd))
            self.journal = version_at(path + JOURNAL)
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether a connection that uses the log is open."""
        return self.shm_fd is not None and logfile.alive(self.shm_fd)

    def lock(self) -> bool:
        """Stop checkpoints and new beginnings of the log. False: one is under way. Without an index nothing to lock."""
        return self.shm_fd is None or locks.share_index(self.shm_fd)

    def unlock(self) -> None:
        """Give up the locks on the index."""
        if self.shm_fd is not None:
            locks.release(self.shm_fd)

    def same_paths(self) -> bool:
        """Whether log and index are still the files at their paths, or are still not there."""
        return self._same(WAL, self.wal_fd) and self._same(INDEX, self.shm_fd)

    def same_log(self) -> bool:
        """Whether nobody has written to the log since it was opened."""
        return self.wal_fd is None or FileVersion.of(os.fstat(self.wal_fd)) == self.wal

    def same_journal(self) -> bool:
        """Whether the journal at the path is the one that was opened."""
        return version_at(self._path + JOURNAL) == self.journal

    def hot_journal(self, db_fd: int) -> bool:
        """Whether a transaction was cut off: a journal with content, and nobody who is writing it.

        The test of SQLite itself (pager.c, hasHotJournal), for use under SHARED. A transaction that has not written to
        the database yet may begin and end meanwhile, and its journal come and go: only one that stays the same file
        before and after the look at RESERVED is nobody's.
        """
        if self.journal is None or not self.journal.size:
            return False
        try:
            begin = next(self.read_journal(), b"\0")
        except SourceMissing:
            return False
        # A journal kept for the next transaction (PERSIST) begins with zeros.
        return begin[:1] != b"\0" and not locks.held_by_others(db_fd, locks.RESERVED) and self.same_journal()

    def read_journal(self) -> Iterator[bytes]:
        """The journal's bytes, 1 MiB at a time. Raises SourceMissing when it is gone."""
        fd = open_source(self._path + JOURNAL)
        try:
            offset = 0
            while piece := os.pread(fd, _PIECE, offset):
                yield piece
                offset += len(piece)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close both; our locks go with them."""
        for fd in (self.wal_fd, self.shm_fd):
            if fd is not None:
                os.close(fd)
        self.wal_fd = self.shm_fd = None

    def _same(self, suffix: bytes, fd: int | None) -> bool:
        now = version_at(self._path + suffix)
        if fd is None or now is None:
            return fd is None and now is None
        facts = os.fstat(fd)
        return (now.dev, now.ino) == (facts.st_dev, facts.st_ino)
