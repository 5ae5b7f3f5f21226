"""What goes wrong in the source during a backup: all keeps what it had, and the next backup heals it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.backup import contents, databases, run
from chatkeep.daemon.backup.works import ROOM
from chatkeep.daemon.capture import database as capture_database
from chatkeep.daemon.capture import files as capture_files
from chatkeep.daemon.capture.database import DatabaseFile
from chatkeep.daemon.capture.errors import EntryVanished, SourceBusy, SourceUnreadable
from chatkeep.daemon.capture.files import Extent, StableReader
from chatkeep.daemon.capture.pin import Pinned
from chatkeep.daemon.capture.tree import Found, SourceTree
from tests.support.sources import Clock, back_and_forth, database, fill
from tests.support.trees import describe
from tests.support.whole import Device


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device.make(tmp_path / "state", Clock())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    return made


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatkeep.daemon.capture.locks.pauses", lambda: iter([0.0, 0.0]))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written an instant ago is as good as old."""
    monkeypatch.setattr("chatkeep.daemon.capture.position.COARSE_TICK_NS", 0)
    monkeypatch.setattr("chatkeep.daemon.capture.files.FRESH_NS", 0)


def texts(path: Path) -> list[tuple[object, ...]]:
    with database(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return db.execute("SELECT * FROM message ORDER BY id").fetchall()


@contextlib.contextmanager
def locked(path: Path, statements: str = "BEGIN EXCLUSIVE") -> Iterator[None]:
    """Another process keeps everybody else out. Not this one: closing any descriptor of the file would end it."""
    code = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1], isolation_level=None)"
    code += f"; d.executescript('{statements}'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=-1, stdout=-1) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        yield
        holder.stdin.close()


OWN_LOG = "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS mine(a)"


@pytest.mark.parametrize("statements", ["BEGIN EXCLUSIVE", OWN_LOG])
@pytest.mark.parametrize("first", [True, False])
def test_a_locked_database_holds_up_no_other(
    device: Device, source: Path, tmp_path: Path, no_waiting: None, first: bool, statements: str
) -> None:
    for name in ("a.db", "b.db", "c.db"):
        fill(source / name, 50)
    old = None
    if not first:
        device.back_up(source)
        old = describe(source)
        for name in ("a.db", "b.db", "c.db"):
            fill(source / name, 50, seed=7)
    with locked(source / "b.db", statements):
        result = device.back_up(source)
    assert [problem.path for problem in result.problems] == [b"b.db"]
    assert (result.pending, result.busy) == ((1, 0) if first else (0, 1))
    assert not result.snapshots[-1].complete or not first
    report = device.restore(tmp_path / "now")
    assert report.pending == ((b"b.db",) if first else ())
    for kept in (b"a.db", b"c.db"):
        assert describe(tmp_path / "now")[kept].content == describe(source)[kept].content
    if old is not None:
        assert describe(tmp_path / "now")[b"b.db"].content == old[b"b.db"].content
        assert report.stale == (b"b.db",)
    assert device.back_up(source).problems == []
    back_and_forth(device, source, tmp_path / "later")


def test_a_companion_that_cannot_be_opened_concerns_its_database_only(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.db", "b.db", "c.db"):
        fill(source / name, 50)
    fired: list[object] = []
    pin = DatabaseFile.pin

    def refused(self: DatabaseFile) -> Pinned:
        if self.path.endswith(b"b.db"):
            fired.append(self.path)
            raise SourceUnreadable(path=self.path + b"-wal", errno=13)
        return pin(self)

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseFile, "pin", refused)
        result = device.back_up(source)
    assert fired
    assert [problem.path for problem in result.problems] == [b"b.db"]
    assert result.pending == 1
    device.restore(tmp_path / "now")
    assert sorted(os.listdir(tmp_path / "now")) == ["a.db", "c.db"]
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")


def test_an_error_without_a_path_loses_no_database(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [b"%d.db" % number for number in range(7)]
    for name in names:
        fill(source / os.fsdecode(name), 5)

    def refused(self: DatabaseFile) -> Pinned:
        raise SourceUnreadable(errno=5)

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseFile, "pin", refused)
        result = device.back_up(source)
    assert sorted(problem.path for problem in result.problems) == names
    assert result.pending == 7
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")


def test_a_database_deleted_right_after_its_pin(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.db", "b.db", "c.db"):
        fill(source / name, 50)
    device.back_up(source)
    for name in ("a.db", "b.db", "c.db"):
        fill(source / name, 50, seed=3)
    fired: list[object] = []
    release = Pinned.release

    def deleting(self: Pinned) -> None:
        release(self)
        if self.path.endswith(b"b.db") and not fired:
            fired.append(self.path)
            (source / "b.db").unlink()

    with monkeypatch.context() as patch:
        patch.setattr(Pinned, "release", deleting)
        device.back_up(source)
    assert fired
    device.restore(tmp_path / "now")
    for kept in (b"a.db", b"c.db"):
        assert describe(tmp_path / "now")[kept].content == describe(source)[kept].content
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")


@pytest.mark.parametrize("sizes", [(4096, 8192), (8192, 1024)])
def test_half_copied_with_another_page_size(
    device: Device, source: Path, tmp_path: Path, sizes: tuple[int, int]
) -> None:
    path = source / "a.db"
    fill(path, 110_000, page_size=sizes[0])
    assert path.stat().st_size > ROOM
    device.back_up(source)
    with database(path) as db:
        db.executescript(f"PRAGMA page_size={sizes[1]}; VACUUM")
    device.budget = 12 << 20
    result = device.back_up(source)
    assert len(result.snapshots) > 1, "the fault did not fire: nothing was copied ahead"
    back_and_forth(device, source, tmp_path / "target")


def cut_off(path: Path, seed: int = 0) -> None:
    """An application killed inside a transaction that had already spilled."""
    pid = os.fork()
    if pid == 0:
        db = sqlite3.connect(path, isolation_level=None)
        db.executescript("PRAGMA cache_size=2; BEGIN; UPDATE message SET text = 'torn'")
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert path.with_name(path.name + "-journal").stat().st_size > 0


def test_a_hot_journal_stays_as_long_as_its_database_needs_it(
    device: Device, source: Path, tmp_path: Path, settled: None
) -> None:
    path = source / "a.db"
    fill(path, 500, journal_mode="DELETE")
    sound = texts(path)
    cut_off(path)
    device.back_up(source)
    (source / "note").write_text("makes another snapshot")
    assert device.back_up(source).snapshots
    device.restore(tmp_path / "second")
    assert texts(tmp_path / "second" / "a.db") == sound
    assert texts(path) == sound
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "recovered")


def test_a_hot_journal_stays_while_its_database_is_busy(
    device: Device, source: Path, tmp_path: Path, no_waiting: None
) -> None:
    path = source / "a.db"
    fill(path, 500, journal_mode="DELETE")
    sound = texts(path)
    cut_off(path)
    device.back_up(source)
    with database(path) as db:
        db.execute("DELETE FROM message WHERE id % 2")
    with locked(path):
        result = device.back_up(source)
    assert result.busy == 1
    device.restore(tmp_path / "busy")
    assert texts(tmp_path / "busy" / "a.db") == sound
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")


def test_a_hot_journal_is_kept_once_however_often_the_pin_is_tried(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source / "a.db"
    fill(path, 500, journal_mode="DELETE")
    cut_off(path)
    fired: list[object] = []
    validate = Pinned.validate

    def once_busy(self: Pinned) -> None:
        if not fired:
            fired.append(self.path)
            raise SourceBusy(path=self.path, reason="changed")
        validate(self)

    monkeypatch.setattr(Pinned, "validate", once_busy)
    device.back_up(source)
    assert fired
    device.restore(tmp_path / "target")
    assert len(texts(tmp_path / "target" / "a.db")) == 500


def unstable(times: int) -> tuple[type[StableReader], list[bytes]]:
    """A reader that finds the file changed, so many times."""
    fired: list[bytes] = []

    class Unstable(StableReader):
        def extents(self) -> Iterator[Extent]:
            yield from super().extents()
            if len(fired) < times:
                fired.append(self.found.path)
                self.stable = False

    return Unstable, fired


def test_a_new_file_that_never_rests_is_pending_and_not_empty(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "log").write_text("never at rest")
    (source / "note").write_text("at rest")
    reader, fired = unstable(2)
    with monkeypatch.context() as patch:
        patch.setattr(contents, "StableReader", reader)
        result = device.back_up(source)
    assert fired == [b"log", b"log"] or fired == [b"note", b"note"]
    assert (result.pending, result.busy) == (1, 0)
    report = device.restore(tmp_path / "now")
    assert report.pending == (fired[0],)
    assert not (tmp_path / "now" / os.fsdecode(fired[0])).exists()
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")


def test_nothing_to_say_after_sealing_in_vain(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "log").write_bytes(os.urandom(100_000))
    reader, fired = unstable(4)
    with monkeypatch.context() as patch:
        patch.setattr(contents, "StableReader", reader)
        device.back_up(source)
        assert device.back_up(source).snapshots == []
    assert len(fired) == 4
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")


def test_a_database_replaced_by_a_file_that_cannot_be_read(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source / "a.db", 100)
    device.back_up(source)
    old = describe(source)
    (source / "a.db").unlink()
    (source / "a.db").write_text("no database")
    fired: list[object] = []

    def refused(self: object, wanted: contents.Wanted, partial: object) -> bool:
        fired.append(wanted.found.path)
        raise EntryVanished(path=wanted.found.path)

    with monkeypatch.context() as patch:
        patch.setattr(contents.ContentPass, "read", refused)
        device.back_up(source)
    assert fired == [b"a.db"]
    device.restore(tmp_path / "now")
    assert describe(tmp_path / "now")[b"a.db"].content == old[b"a.db"].content
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")


def test_a_file_written_between_the_walk_and_its_read_gets_its_own_time(
    device: Device, source: Path, tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "note").write_text("first")
    fired: list[object] = []
    reading = contents.ContentPass.read

    def late(self: contents.ContentPass, *arguments: object) -> bool:
        if not fired:
            fired.append(1)
            (source / "note").write_text("second")
            (source / "note").chmod(0o604)
            os.utime(source / "note", ns=(5, 1_600_000_000_000_000_000))
            os.setxattr(source / "note", "user.tag", b"late")
        return reading(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(contents.ContentPass, "read", late)
        device.back_up(source)
    assert fired
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "target")


def test_the_name_that_has_the_log_is_the_one_to_read_by(device: Device, source: Path, tmp_path: Path) -> None:
    fill(source / "z.db", 100, journal_mode="WAL")
    os.link(source / "z.db", source / "a.db")
    app = sqlite3.connect(source / "z.db", isolation_level=None)
    app.execute("INSERT INTO message(text) VALUES('only in the log')")
    device.back_up(source)
    expected = app.execute("SELECT * FROM message ORDER BY id").fetchall()
    device.restore(tmp_path / "target")
    app.close()
    (tmp_path / "target" / "a.db").unlink()
    assert texts(tmp_path / "target" / "z.db") == expected


def test_a_path_that_got_another_file_and_lost_it_again_is_gone(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "a").write_text("moved")
    device.back_up(source)
    (source / "a").rename(source / "b")
    (source / "a").write_text("new, and gone before it is read")
    fired: list[object] = []
    attributes = capture_files.attributes

    def vanishing(tree: object, found: Found, names: object) -> object:
        if found.path == b"a":
            fired.append(1)
            (source / "a").unlink(missing_ok=True)
            raise EntryVanished(path=found.path)
        return attributes(tree, found, names)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(run, "attributes", vanishing)
        device.back_up(source)
    assert fired
    device.restore(tmp_path / "now")
    assert sorted(os.listdir(tmp_path / "now")) == ["b"]


def test_a_table_that_outlived_its_database_is_not_believed(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source / "a.db"
    fill(path, 300)
    body = path.read_bytes()
    device.back_up(source)
    path.write_text("a file for a while")
    fired: list[object] = []
    with monkeypatch.context() as patch:  # killed after the commit and before the table is removed
        patch.setattr(run, "remove_tables", lambda *_: fired.append(1))
        device.back_up(source)
    assert fired
    path.write_bytes(body)
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "target")


def test_a_table_from_another_time_is_found_out(device: Device, source: Path, tmp_path: Path) -> None:
    path = source / "a.db"
    fill(path, 300)
    body = path.read_bytes()
    device.back_up(source)
    (table,) = (tmp_path / "state" / "tables").iterdir()
    old = table.read_bytes()
    with database(path) as db:
        db.execute("UPDATE message SET text = 'other'")
    device.back_up(source)
    table.write_bytes(old)
    path.write_bytes(body)
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "target")


def test_one_moment_is_said_only_when_it_is_true(
    device: Device, source: Path, tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source / "a.db", 50)
    fill(source / "b.db", 50)
    device.back_up(source)
    _, (newest, *_) = device.snapshots()
    assert newest.manifest.group
    fill(source / "b.db", 50, seed=2)
    fired: list[object] = []
    pin_all = capture_database.pin_all

    def late(files: list[DatabaseFile]) -> list[Pinned]:
        if not fired:
            fired.append(1)
            fill(source / "a.db", 5, seed=3)  # after it was found unchanged, before the other was pinned
        return pin_all(files)

    with monkeypatch.context() as patch:
        patch.setattr(databases, "pin_all", late)
        device.back_up(source)
    assert fired
    _, (newest, *_) = device.snapshots()
    assert not newest.manifest.group


def test_a_long_file_that_never_rests_does_not_keep_the_backup_going(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.budget = 2 << 20
    log = source / "log"
    log.write_bytes(os.urandom(5 << 20))
    (source / "note").write_text("short")
    opened: list[int] = []

    class Growing(StableReader):
        def __init__(self, tree: SourceTree, path: bytes, *, start_offset: int = 0) -> None:
            if path == b"log":
                opened.append(start_offset)
                assert len(opened) < 30, "the backup never ends"
                with open(log, "ab") as file:
                    file.write(b"more")
            super().__init__(tree, path, start_offset=start_offset)

    with monkeypatch.context() as patch:
        patch.setattr(contents, "StableReader", Growing)
        result = device.back_up(source)
    assert any(opened), "the fault did not fire: it was never half sealed"
    assert result.pending == 1
    device.restore(tmp_path / "now")
    assert sorted(os.listdir(tmp_path / "now")) == ["note"]
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")
