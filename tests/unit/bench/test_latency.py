"""Commits and windows to ratios; the writer beside which they are measured."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

import pytest

from bench.commits import Application, Commit, read_commits
from bench.latency import Window, compare, observe, waits

MS = 10**6
SECOND = 1000 * MS


def steady(start: int, count: int, took: int, slow: int = 0, slow_ms: int = 0) -> list[Commit]:
    """`count` commits within a second from `start` s on, of `took` ms; the first `slow` of them take `slow_ms`."""
    commits = []
    for number in range(count):
        begun = start * SECOND + number * (SECOND // count)
        commits.append(Commit(begun, begun + (slow_ms if number < slow else took) * MS, busy=False))
    return commits


def window(start: int, backups: int) -> Window:
    return Window(start * SECOND, (start + 1) * SECOND - 1, backups)


def test_the_ratio_is_the_median_of_alternations() -> None:
    commits = [
        *steady(0, 100, 2),
        *steady(2, 100, 2, slow=5, slow_ms=4),  # with backups: p99 doubles
        *steady(4, 100, 2, slow=5, slow_ms=6),
        *steady(6, 100, 2),
        *steady(8, 100, 1),
        *steady(10, 100, 1, slow=5, slow_ms=9),
    ]
    windows = [window(0, 0), window(2, 3), window(4, 1), window(6, 0), window(8, 0), window(10, 1)]

    found = compare(commits, windows)

    assert list(found.pairs) == [2, 3, 9]
    assert found.ratio == 3
    assert found.backups == 5
    assert (found.quiet.commits, found.during.commits) == (300, 300)
    assert (found.quiet.p99, found.during.longest) == (2, 9)


def test_a_commit_that_overlaps_a_window_belongs_to_it() -> None:
    late = Commit(2 * SECOND - 5 * MS, 2 * SECOND + 5 * MS, busy=False)
    between = Commit(int(1.5 * SECOND), int(1.5 * SECOND) + MS, busy=False)
    commits = [*steady(0, 10, 1), late, between, *steady(2, 10, 1)]
    found = compare(commits, [window(0, 0), window(2, 1)])
    assert found.during.commits == 11
    assert found.during.longest == 10
    assert found.quiet.commits == 10


def test_refused_commits_are_counted_and_not_timed() -> None:
    found = waits([Commit(0, 3 * MS, busy=False), Commit(0, 999 * MS, busy=True), Commit(0, MS, busy=False)])
    assert (found.commits, found.busy, found.longest, found.p50) == (2, 1, 3, 2)


def test_windows_without_commits_are_no_measurement() -> None:
    with pytest.raises(ValueError, match="no values"):
        compare(steady(0, 10, 1), [window(0, 0), window(2, 1)])


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "messages.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, chat, body, uid TEXT NOT NULL UNIQUE)")
        rows = [(n, n % 3, f"hello {n}", f"{n:032x}") for n in range(1, 51)]
        connection.executemany("INSERT INTO messages VALUES(?, ?, ?, ?)", rows)
        connection.commit()
    return path


def rows(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM messages").fetchone()[0]
        return count


def test_the_application_adds_messages_like_those_there_are(database: Path) -> None:
    application = Application(database, seed=1)
    done = [application.commit() for _ in range(20)]
    application.close()
    assert not any(one.busy for one in done)
    assert all(one.start < one.end for one in done)
    assert rows(database) == 70


def test_the_application_does_not_wait_for_a_lock(database: Path) -> None:
    application = Application(database, seed=1)
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = application.commit()
        other.execute("ROLLBACK")
    assert refused.busy
    assert (refused.end - refused.start) < SECOND
    assert not application.commit().busy
    application.close()
    assert rows(database) == 51


def test_a_database_without_messages(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE t(x)")
    with pytest.raises(LookupError):
        Application(tmp_path / "other.db", seed=1)


def test_windows_are_measured_beside_a_writer(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.latency.PAUSE", 0.01)
    calls: list[float] = []
    before = rows(database)

    found = observe(database, tmp_path, lambda: calls.append(time.monotonic()), rate=500, seconds=0.1, rounds=2, seed=1)

    assert len(found.pairs) == 2
    assert found.backups == len(calls) > 0
    assert rows(database) - before == len(read_commits(tmp_path / "commits"))
