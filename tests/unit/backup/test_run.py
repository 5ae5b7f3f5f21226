"""Backups of real directories, restored from storage alone and compared."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.backup import contents
from chatkeep.daemon.backup.works import ROOM
from chatkeep.daemon.capture.files import Extent, StableReader
from chatkeep.daemon.capture.tree import SourceTree
from chatkeep.daemon.capture.walk import Reason
from tests.support.sources import HOUR, Clock, back_and_forth, database, fill
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


def test_everything_a_directory_can_hold(device: Device, source: Path, tmp_path: Path) -> None:
    (source / "Media" / "empty").mkdir(parents=True)
    (source / "Media" / "photo.jpg").write_bytes(random.Random(1).randbytes(2_500_000))
    (source / "Media" / "nothing").write_bytes(b"")
    os.link(source / "Media" / "photo.jpg", source / "same photo.jpg")
    (source / "link").symlink_to("Media/photo.jpg")
    (source / "dangling").symlink_to("/nowhere/at all")
    Path(os.fsdecode(os.fsencode(source) + b"/\xff\xfe\n name")).write_text("raw bytes")
    with open(source / "sparse", "wb") as file:
        file.truncate(50 << 20)
        file.seek(20 << 20)
        file.write(b"in the middle")
    os.setxattr(source / "Media" / "photo.jpg", "user.note", b"from ana")
    (source / "private").write_text("x")
    (source / "private").chmod(0o400)
    os.utime(source / "private", ns=(1, 1_234_567_890_123_456_789))
    fill(source / "wal.db", 3000, journal_mode="WAL")
    fill(source / "rollback.db", 500, page_size=1024)
    (source / "called.db").write_text("and is none " * 100)
    os.utime(source, ns=(5, 5))
    result = device.back_up(source)
    assert (result.pending, result.busy, result.problems) == (0, 0, [])
    assert [made.complete for made in result.snapshots] == [True]
    back_and_forth(device, source, tmp_path / "target")
    assert (tmp_path / "target" / "sparse").stat().st_blocks * 512 < 30 << 20
    with database(tmp_path / "target" / "wal.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert sorted(one.name for one in (tmp_path).iterdir()) == ["source", "state", "target"]


def test_nothing_changed_makes_no_snapshot(device: Device, source: Path) -> None:
    fill(source / "a.db", 100, journal_mode="WAL")
    (source / "file").write_text("text")
    assert device.back_up(source).last_seq == 1
    again = device.back_up(source)
    assert (again.snapshots, again.last_seq) == ([], 1)


def test_a_few_rows_cost_a_few_pages(device: Device, source: Path, tmp_path: Path) -> None:
    fill(source / "a.db", 20_000, journal_mode="WAL")
    first = device.back_up(source).snapshots[0]
    fill(source / "a.db", 10, seed=1)
    second = device.back_up(source).snapshots[0]
    assert second.stored < 64 * 1024 < first.stored / 50
    back_and_forth(device, source, tmp_path / "target")


def test_each_snapshot_restores_as_it_was(device: Device, source: Path, tmp_path: Path) -> None:
    seen = {}
    for round_ in range(1, 6):
        fill(source / "a.db", 200 * round_, seed=round_, journal_mode="WAL")
        (source / f"file{round_}").write_bytes(random.Random(round_).randbytes(70_000))
        if round_ > 2:
            (source / f"file{round_ - 2}").unlink()
        seen[device.back_up(source).last_seq] = describe(source)
    for seq, expected in seen.items():
        device.restore(tmp_path / f"t{seq}", seq)
        assert describe(tmp_path / f"t{seq}") == expected


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_shrunk_and_regrown_vacuumed_and_repaged(device: Device, source: Path, tmp_path: Path, mode: str) -> None:
    path = source / "a.db"
    fill(path, 4000, journal_mode=mode, page_size=4096)
    steps = (
        "DELETE FROM message WHERE id > 300; VACUUM",
        "INSERT INTO message(text, blob) SELECT text, blob FROM message, (SELECT 1 FROM message LIMIT 9)",
        "DELETE FROM message WHERE id % 2",
        "PRAGMA journal_mode=DELETE; PRAGMA page_size=8192; VACUUM",
        "PRAGMA page_size=512; VACUUM",
    )
    device.back_up(source)
    for number, step in enumerate(steps):
        with database(path) as db:
            db.executescript(step)
        device.back_up(source)
        back_and_forth(device, source, tmp_path / f"t{number}")


def test_a_rename_moves_no_page_and_a_replacement_is_found(device: Device, source: Path, tmp_path: Path) -> None:
    fill(source / "a.db", 3000)
    device.back_up(source)
    (source / "a.db").rename(source / "b.db")
    moved = device.back_up(source).snapshots[0]
    assert moved.new_plaintext < 1000
    fill(tmp_path / "other.db", 100, seed=9)
    (tmp_path / "other.db").replace(source / "b.db")
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "target")


def test_deleted_and_come_back(device: Device, source: Path, tmp_path: Path) -> None:
    fill(source / "a.db", 300)
    device.back_up(source)
    (source / "a.db").unlink()
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "without")
    fill(source / "a.db", 50, seed=3)
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "with")


def test_a_file_becomes_a_database_and_a_database_a_file(device: Device, source: Path, tmp_path: Path) -> None:
    (source / "x").write_text("only text " * 1000)
    fill(source / "y", 300)
    device.back_up(source)
    (source / "x").unlink()
    (source / "y").unlink()
    fill(source / "x", 300)
    (source / "y").write_text("only text " * 1000)
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "target")
    fill(source / "x", 10, seed=2)
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")


def test_a_small_budget_goes_piece_by_piece(device: Device, source: Path, tmp_path: Path) -> None:
    device.budget = 12 << 20
    fill(source / "big.db", 110_000)
    assert (source / "big.db").stat().st_size > ROOM
    fill(source / "small.db", 10)
    (source / "video").write_bytes(random.Random(1).randbytes(11_000_000))
    (source / "note").write_text("short")
    os.utime(source / "note", (1, 1))
    result = device.back_up(source)
    assert [made.complete for made in result.snapshots] == [False, False, True]
    report = device.restore(tmp_path / "first", 1)
    assert sorted(report.pending) == [b"big.db", b"note", b"video"]
    assert (tmp_path / "first" / "small.db").read_bytes() == (source / "small.db").read_bytes()
    back_and_forth(device, source, tmp_path / "target")


def test_a_half_sealed_file_that_changes_begins_anew(device: Device, source: Path, tmp_path: Path) -> None:
    device.budget = 4 << 20
    video = source / "video"
    video.write_bytes(random.Random(1).randbytes(40_000_000))
    opened: list[int] = []

    class Changing(StableReader):
        def __init__(self, tree: SourceTree, path: bytes, *, start_offset: int = 0) -> None:
            opened.append(start_offset)
            if len(opened) == 2:
                video.write_bytes(random.Random(2).randbytes(30_000_000))
            super().__init__(tree, path, start_offset=start_offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "StableReader", Changing)
        result = device.back_up(source)
    assert opened[0] == 0 < opened[1], "the fault did not fire: the second round must continue"
    assert opened[2] == 0
    assert result.pending == 0
    back_and_forth(device, source, tmp_path / "target")


def test_a_file_that_never_rests_keeps_its_old_version(device: Device, source: Path, tmp_path: Path) -> None:
    log = source / "log"
    log.write_text("at rest")
    device.back_up(source)
    old = describe(source)
    fired = 0

    class Growing(StableReader):
        def extents(self) -> Iterator[Extent]:
            nonlocal fired
            for extent in super().extents():
                yield extent
                fired += 1
                with open(log, "ab") as file:
                    file.write(b"more")

    log.write_text("moving")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "StableReader", Growing)
        result = device.back_up(source)
    assert fired == 2
    assert (result.busy, result.pending) == (1, 0)
    device.restore(tmp_path / "busy")
    assert describe(tmp_path / "busy")[b"log"].content == old[b"log"].content
    assert device.back_up(source).busy == 0
    back_and_forth(device, source, tmp_path / "target")


def test_hours_and_days_fold_and_every_snapshot_stays(device: Device, source: Path, tmp_path: Path) -> None:
    clock = device.clock
    assert isinstance(clock, Clock)
    seen = {}
    for number in range(40):
        fill(source / "a.db", 30, seed=number, journal_mode="WAL")
        (source / f"f{number % 7}").write_bytes(random.Random(number).randbytes(1000))
        seen[device.back_up(source).last_seq] = describe(source)
        clock.now += HOUR // 2 if number % 10 else 30 * HOUR
    _, found = device.snapshots()
    levels = [layer.level for layer in found[0].manifest.stack]
    assert len(levels) < 20
    assert 2 in levels
    assert levels == sorted(levels)
    for seq in (1, 2, 11, 25, 39, 40):
        device.restore(tmp_path / f"t{seq}", seq)
        assert describe(tmp_path / f"t{seq}") == seen[seq]


def test_a_hot_journal_is_kept_beside_its_database(device: Device, source: Path, tmp_path: Path) -> None:
    path = source / "a.db"
    fill(path, 500, journal_mode="DELETE")
    pid = os.fork()
    if pid == 0:  # an application killed inside a transaction that had already spilled
        db = sqlite3.connect(path, isolation_level=None)
        db.executescript("PRAGMA cache_size=2; BEGIN; UPDATE message SET text = 'torn'")
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert (source / "a.db-journal").stat().st_size > 0
    device.back_up(source)
    device.restore(tmp_path / "target")
    with database(tmp_path / "target" / "a.db") as db:
        assert db.execute("SELECT count(*), sum(text = 'torn') FROM message").fetchone() == (500, 0)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_cannot_be_read_is_told_and_kept(device: Device, source: Path, tmp_path: Path) -> None:
    os.mkfifo(source / "pipe")
    (source / "sub").mkdir()
    (source / "sub" / "kept").write_text("kept")
    result = device.back_up(source)
    assert [(problem.path, problem.reason) for problem in result.problems] == [(b"pipe", Reason.SPECIAL)]  # type: ignore[union-attr]
    device.restore(tmp_path / "target")
    assert (tmp_path / "target" / "sub" / "kept").read_text() == "kept"
    assert not (tmp_path / "target" / "pipe").exists()


def test_excluded_is_left_out(device: Device, source: Path, tmp_path: Path) -> None:
    (source / "Cache").mkdir()
    (source / "Cache" / "junk").write_text("junk")
    (source / "kept").write_text("kept")
    device.back_up(source, exclude=["Cache/"])
    device.restore(tmp_path / "target")
    assert sorted(os.listdir(tmp_path / "target")) == ["kept"]


def test_storage_sees_no_plaintext(device: Device, source: Path) -> None:
    secret = "the quick brown fox wrote this message"
    with database(source / "messages-of-ana.db") as db:
        db.execute("CREATE TABLE message(text)")
        db.executemany("INSERT INTO message VALUES(?)", [(secret,)] * 100)
    (source / "holiday.txt").write_text(secret)
    device.back_up(source)
    everything = b"".join(name.encode() + body for name, body in device.provider.objects.items())
    assert secret.encode() in (source / "messages-of-ana.db").read_bytes(), "the search finds nothing even in the clear"
    for word in (secret.encode(), b"SQLite format 3", b"messages-of-ana", b"holiday"):
        assert word not in everything


def test_a_lost_outbox_object_begins_a_new_stream(device: Device, source: Path, tmp_path: Path) -> None:
    fill(source / "a.db", 300)
    device.back_up(source, send=False)
    with device.open_state() as state:
        state.outbox.queue("memory")[0].path.unlink()
        (lost,) = state.outbox.recover()
        state.abandon(lost)
    result = device.back_up(source)
    assert result.last_seq == 1
    back_and_forth(device, source, tmp_path / "target")
