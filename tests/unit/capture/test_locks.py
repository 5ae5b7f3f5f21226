"""Locks: what SQLite's own connections, in another process, see of ours and we of theirs."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.capture import locks
from chatkeep.daemon.capture.errors import UnsupportedSource
from tests.support.sqlite_app import App, Refused


@pytest.fixture
def fds(path: Path) -> Iterator[list[int]]:
    opened: list[int] = []
    yield opened
    for fd in opened:
        os.close(fd)


def opened(fds: list[int], path: str | Path) -> int:
    fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    return fds[-1]


def test_a_rollback_writer_waits_for_our_shared_lock_and_for_nothing_after_it(path: Path, fds: list[int]) -> None:
    with App(path, journal_mode="DELETE") as app:
        app.book()
        fd = opened(fds, path)
        app.sql("PRAGMA busy_timeout=0")
        assert locks.share_database(fd)
        with pytest.raises(Refused, match="database is locked"):
            app.book()
        app.sql("ROLLBACK")
        locks.release(fd)
        assert app.book() == 2


def test_a_reader_of_a_rollback_database_does_not_wait_for_us(path: Path, fds: list[int]) -> None:
    with App(path, journal_mode="DELETE") as app:
        app.book()
        assert locks.share_database(opened(fds, path))
        app.sql("PRAGMA busy_timeout=0")
        assert app.sql("SELECT max(n) FROM ledger") == [[1]]


def test_we_do_not_step_past_a_writer_that_waits_for_readers(path: Path, fds: list[int]) -> None:
    with App(path, journal_mode="DELETE") as app:
        app.book()
        first, second = opened(fds, path), opened(fds, path)
        assert locks.share_database(first)
        app.sql("PRAGMA busy_timeout=0")
        app.sql("BEGIN IMMEDIATE")
        app.sql("DELETE FROM filler")
        with pytest.raises(Refused, match="database is locked"):
            app.sql("COMMIT")  # it has PENDING now, and waits for `first`
        assert locks.held_by_others(second, locks.PENDING)
        assert not locks.share_database(second)
        locks.release(first)
        app.sql("COMMIT")
        assert locks.share_database(second)


def test_with_our_locks_transactions_go_on_and_checkpoints_do_not(path: Path, fds: list[int]) -> None:
    with App(path, wal_autocheckpoint=0) as app:
        app.book(3)
        app.checkpoint("PASSIVE")
        db, shm = opened(fds, path), opened(fds, f"{path}-shm")
        app.sql("PRAGMA busy_timeout=0")
        assert locks.share_database(db)
        assert locks.share_index(shm)
        before = path.read_bytes()
        assert app.book(3) == 6
        for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
            busy, frames, written = app.checkpoint(mode)
            assert busy == (mode != "PASSIVE"), "only a passive one takes no for an answer"
            assert written < frames
        assert path.read_bytes() == before
        locks.release(shm)
        assert app.checkpoint("TRUNCATE") == [0, 0, 0]


def test_one_read_slot_keeps_the_log_from_beginning_anew(path: Path, fds: list[int]) -> None:
    with App(path, wal_autocheckpoint=0) as app:
        app.book(3)
        app.checkpoint("PASSIVE")
        log = Path(f"{path}-wal")
        salts = log.read_bytes()[16:24]
        shm = opened(fds, f"{path}-shm")
        assert locks.share_index(shm)
        app.book()
        assert log.read_bytes()[16:24] == salts
        locks.release(shm)
        app.checkpoint("PASSIVE")
        app.book()
        assert log.read_bytes()[16:24] != salts


def test_a_checkpoint_under_way_is_seen(path: Path, fds: list[int]) -> None:
    with App(path) as app:
        app.book()
        theirs = os.open(f"{path}-shm", os.O_RDWR | os.O_CLOEXEC)
        fds.append(theirs)
        alone = locks._FLOCK.pack(fcntl.F_WRLCK, 0, locks.READ0, 1, 0)
        fcntl.fcntl(theirs, fcntl.F_OFD_SETLK, alone)
        ours = opened(fds, f"{path}-shm")
        assert not locks.share_index(ours)
        locks.release(theirs)
        assert locks.share_index(ours)


def test_alive_is_seen_and_never_taken(path: Path, fds: list[int]) -> None:
    with App(path) as app:
        app.book()
        shm = opened(fds, f"{path}-shm")
        assert locks.held_by_others(shm, locks.ALIVE)
        app.kill()
        assert not locks.held_by_others(shm, locks.ALIVE)
        assert locks.share_index(shm)
        watcher = opened(fds, f"{path}-shm")
        assert not locks.held_by_others(watcher, locks.ALIVE)


def test_a_lock_outlives_other_descriptors_of_the_file_in_this_process(path: Path, fds: list[int]) -> None:
    # An ordinary POSIX lock would be gone with the first of these.
    with App(path, journal_mode="DELETE") as app:
        app.book()
        fd = opened(fds, path)
        assert locks.share_database(fd)
        path.read_bytes()
        os.close(os.open(path, os.O_RDONLY))
        app.sql("PRAGMA busy_timeout=0")
        with pytest.raises(Refused, match="database is locked"):
            app.book()


def test_what_cannot_be_locked_is_said(fds: list[int]) -> None:
    reading, writing = os.pipe()
    fds += [reading, writing]
    with pytest.raises(UnsupportedSource):
        locks.try_shared(writing, 0)  # a shared lock needs a descriptor that can read


def test_the_wait_is_bounded() -> None:
    waits = list(locks.pauses())
    assert sum(waits) == pytest.approx(0.4)
    assert waits[0] == 0.0005
    assert max(waits) <= 0.02
