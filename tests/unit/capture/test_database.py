"""Finding what changed: every capture here takes over only what the dirty set names, and must be exact nevertheless."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chatkeep.daemon.capture.buffer import Buffer
from chatkeep.daemon.capture.database import DatabaseFile, DatabaseKind, look, probe
from chatkeep.daemon.capture.digests import DigestTable, Overlay, lock_page, page_digests
from chatkeep.daemon.capture.dirty import DirtySet
from chatkeep.daemon.capture.errors import NotProven, SourceMissing
from chatkeep.daemon.capture.layout import PinState
from chatkeep.daemon.capture.pin import ScanMark
from tests.support.capturing import GENERATION, SEED, Kept, Outcome, whole
from tests.support.sqlite_app import App, Oracle

SECOND = 1_000_000_000
KEY = "correct horse"


def later() -> int:
    """A clock that is ahead: every file is old to it, so that timestamps settle without a wait."""
    return time.time_ns() + 60 * SECOND


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle() as process:
        yield process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    where = tmp_path / "profile"
    where.mkdir()
    return where / "chat.db"


@pytest.fixture
def kept(path: Path, tmp_path: Path) -> Iterator[Callable[..., Kept]]:
    """Begin to keep the database; to be called once it exists."""
    begun: list[Kept] = []

    def begin(page_size: int = 4096, clock: Callable[[], int] = later) -> Kept:
        begun.append(Kept(path, tmp_path, page_size, clock=clock))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


def exact(keeper: Kept, outcome: Outcome) -> bool:
    return bytes(keeper.image) == outcome.truth


# Is it a database


def test_a_database_is_told_by_its_content(path: Path) -> None:
    with App(path, page_size=8192) as app:
        app.book()
    assert probe(os.fsencode(path)) == DatabaseKind(8192, opaque=False)
    renamed = path.rename(path.with_name("holiday.jpg"))
    assert probe(os.fsencode(renamed)) == DatabaseKind(8192, opaque=False)


@pytest.mark.parametrize(
    "content",
    [b"", b"minutes of the meeting\n" * 50, b"SQLite format 3\0", b"SQLite format 3\0" + bytes(200)],
    ids=["empty", "text", "cut", "zeros"],
)
def test_other_files_are_none_whatever_they_are_called(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert probe(os.fsencode(path)) is None


def test_nothing_is_no_database(path: Path) -> None:
    with pytest.raises(SourceMissing):
        probe(os.fsencode(path))


def test_an_encrypted_database_is_told_by_its_log_or_remembered(path: Path) -> None:
    with App(path, key=KEY) as app:
        app.book()
        assert not path.read_bytes().startswith(b"SQLite")
        assert probe(os.fsencode(path)) == DatabaseKind(4096, opaque=True)
        app.ask("close")
    assert probe(os.fsencode(path)) is None
    assert probe(os.fsencode(path), hint=4096) == DatabaseKind(4096, opaque=True)
    assert probe(os.fsencode(path), hint=65536) is None, "not a whole number of such pages"


# Has it changed


def test_a_look_tells_every_commit_and_nothing_else(path: Path) -> None:
    with App(path) as app:
        app.book()
        before = look(os.fsencode(path), later())
        assert not look(os.fsencode(path)).changed_since(before)
        app.sql("SELECT count(*) FROM ledger")
        assert not look(os.fsencode(path)).changed_since(before)
        app.book()
        assert look(os.fsencode(path)).changed_since(before)


@pytest.mark.parametrize("mode", ["WAL", "DELETE", "TRUNCATE"])
def test_the_signature_of_a_pin_is_that_of_a_look(path: Path, kept: Callable[..., Kept], mode: str) -> None:
    with App(path, journal_mode=mode) as app:
        app.book()
        keeper = kept()
        keeper.capture()
        assert keeper.last is not None
        assert not look(keeper.path).changed_since(keeper.last)
        app.book()
        assert look(keeper.path).changed_since(keeper.last)


def test_a_commit_under_the_pin_is_a_change_after_it(path: Path) -> None:
    with App(path) as app:
        app.book()
        with DatabaseFile(os.fsencode(path), clock=later) as file:
            with file.pin() as pinned:
                app.book()
            assert look(os.fsencode(path)).changed_since(pinned.signature)


# What has changed


def test_the_first_capture_is_everything_and_reads_nothing_before_the_pin(
    path: Path, kept: Callable[..., Kept]
) -> None:
    with App(path) as app:
        app.book(5)
        keeper = kept()
        dirty = DirtySet()
        mark = keeper.file.scan(keeper.table, dirty, SEED, keeper.buffer)
        assert mark.bytes_read == 0
        outcome = keeper.capture()
        assert exact(keeper, outcome)
        assert outcome.changed == outcome.dirty == len(outcome.truth) // 4096


def test_without_a_change_nothing_is_read_and_nothing_is_dirty(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path) as app:
        app.book(5)
        keeper = kept()
        keeper.capture()
        outcome = keeper.capture()
        assert (outcome.how, outcome.dirty) == ("frames", 0)


def test_within_one_generation_only_new_frames_count_checkpoint_or_not(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path, wal_autocheckpoint=0) as app:
        app.book(150)
        keeper = kept()
        keeper.capture()
        app.book(1)
        app.checkpoint("PASSIVE")
        outcome = keeper.capture()
        assert outcome.how == "frames"
        assert 0 < outcome.dirty < 20 < len(outcome.truth) // 4096
        assert exact(keeper, outcome)


def test_a_new_generation_is_scanned_for(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path, wal_autocheckpoint=0) as app:
        app.book(20)
        keeper = kept()
        keeper.capture()
        app.book(5)
        app.checkpoint("RESTART")
        app.book(5)
        outcome = keeper.capture()
        assert outcome.how == "scan"
        assert exact(keeper, outcome)


def test_a_new_generation_after_all_was_flushed_needs_no_scan(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path, wal_autocheckpoint=0) as app:
        app.book(20)
        keeper = kept()
        app.checkpoint("PASSIVE")
        keeper.capture()
        assert keeper.last is not None
        assert keeper.last.point is not None
        assert keeper.last.point.flushed
        salts = keeper.last.point.salts
        app.book(1)
        outcome = keeper.capture()
        assert keeper.last.point.salts != salts, "the log did not begin anew"
        assert outcome.how == "frames"
        assert exact(keeper, outcome)


def test_a_database_that_shrank_in_this_generation_is_not_called_flushed(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path, wal_autocheckpoint=0) as app:
        app.book(60)
        app.checkpoint("RESTART")
        app.book(60)
        app.sql("DELETE FROM filler")
        app.sql("VACUUM")
        app.checkpoint("PASSIVE")
        keeper = kept()
        keeper.capture()
        assert keeper.last is not None
        assert keeper.last.point is not None
        assert keeper.last.point.mx_frame > 0
        assert not keeper.last.point.flushed


def test_a_young_file_proves_nothing(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path, journal_mode="DELETE") as app:
        app.book(20)
        keeper = kept(clock=time.time_ns)
        os.utime(path)
        young = keeper.capture()
        assert young.how == "pinned"
        assert exact(keeper, young)


def test_in_rollback_mode_an_old_file_proves_that_nothing_changed(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path, journal_mode="DELETE") as app:
        app.book(20)
        keeper = kept()
        assert keeper.capture().how == "scan"
        assert keeper.capture().how == "frames"
        app.book()
        outcome = keeper.capture()
        assert outcome.how == "scan"
        assert exact(keeper, outcome)


def test_what_shrinks_and_grows_again_is_exact(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path) as app:
        app.book(60)
        keeper = kept()
        sizes = [len(keeper.capture().truth)]
        app.sql("DELETE FROM filler")
        app.sql("VACUUM")
        outcome = keeper.capture()
        assert exact(keeper, outcome)
        sizes.append(len(outcome.truth))
        app.checkpoint("TRUNCATE")
        app.book(60)
        outcome = keeper.capture()
        assert exact(keeper, outcome)
        sizes.append(len(outcome.truth))
    assert sizes[1] < sizes[0]
    assert sizes[1] < sizes[2]


def test_a_database_that_shrinks_and_grows_between_two_captures_is_exact(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path) as app:
        app.book(60)
        keeper = kept()
        keeper.capture()
        app.sql("DELETE FROM filler")
        app.sql("VACUUM")
        app.checkpoint("TRUNCATE")
        app.book(60)
        assert exact(keeper, keeper.capture())


@pytest.mark.parametrize("scanned", [False, True], ids=["frames", "scan"])
def test_pages_cut_off_and_grown_again_are_dirty_also_when_no_frame_tells(
    path: Path, kept: Callable[..., Kept], scanned: bool
) -> None:
    """The one change of the file that is no frame's: a checkpoint cuts the file to a smaller database."""
    with App(path, wal_autocheckpoint=0) as app, App(path, wal_autocheckpoint=0) as reader:
        app.book(200)
        app.checkpoint("TRUNCATE")
        app.book(1)
        keeper = kept()
        keeper.capture()
        dirty = DirtySet()
        mark = keeper.file.scan(keeper.table, dirty, SEED, keeper.buffer, None if scanned else keeper.last)
        assert mark.scanned == scanned
        app.sql("DELETE FROM filler")
        app.sql("VACUUM")
        reader.sql("BEGIN")
        reader.sql("SELECT count(*) FROM ledger")  # now the log does not begin anew
        app.checkpoint("PASSIVE")
        cut = path.stat().st_size // 4096
        app.book(150)
        with keeper.file.pin() as pinned:
            index = pinned.layout.index
            assert index is not None
            assert cut < pinned.page_count // 2
            # SQLite of today writes every page that a database grows by. One that does not leaves no frame for it.
            untold = tuple(page if page <= cut else 1 for page in index.pages)
            pinned.layout = replace(pinned.layout, index=index._replace(pages=untold))
            pinned.complete(keeper.table, dirty, mark)
            assert set(range(cut + 1, pinned.page_count + 1)) <= set(dirty)


def test_another_page_size_begins_anew(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path, journal_mode="DELETE") as app:
        app.book(20)
        keeper = kept()
        keeper.capture()
        app.sql("PRAGMA page_size=1024")
        app.sql("VACUUM")
        outcome = keeper.capture()
        assert keeper.table.page_size == 1024
        assert exact(keeper, outcome)
        assert outcome.changed == len(outcome.truth) // 1024


def test_another_file_with_the_same_log_is_scanned(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path, wal_autocheckpoint=0) as app:
        app.book(20)
        app.checkpoint("TRUNCATE")
        app.book(1)
    keeper = kept()
    keeper.capture()
    raw = bytearray(path.read_bytes())
    raw[5 * 4096 + 100] ^= 1
    path.write_bytes(raw)  # a restore from elsewhere, by a program that knows nothing of logs
    outcome = keeper.capture()
    assert outcome.how != "frames"
    assert exact(keeper, outcome)


def test_a_commit_taken_back_is_noticed(path: Path, kept: Callable[..., Kept]) -> None:
    """Two histories with one beginning: same salts, same length, other frames. As after a sync that failed."""
    log = Path(f"{path}-wal")
    with App(path, wal_autocheckpoint=0) as app:
        app.book(3)
    beginning = log.read_bytes()
    histories = []
    for seed in (1, 2):
        log.write_bytes(beginning)
        with App(path, seed=seed, wal_autocheckpoint=0) as app:
            app.book(1, pages=0)
        histories.append(log.read_bytes())
    assert histories[0][:32] == histories[1][:32]
    assert histories[0] != histories[1]
    assert len(histories[0]) == len(histories[1])
    log.write_bytes(histories[0])
    keeper = kept()
    keeper.capture()
    log.write_bytes(histories[1])
    outcome = keeper.capture()
    assert outcome.how == "scan"
    assert exact(keeper, outcome)


def test_pages_without_a_digest_are_dirty_whatever_the_frames_say(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path) as app:
        app.book(20)
        keeper = kept()
        keeper.capture()
        keeper.table.truncate(3)
        outcome = keeper.capture()
        assert outcome.how == "frames"
        assert outcome.changed == len(outcome.truth) // 4096 - 3


# What happens between scan and pin


def between(keeper: Kept, happen: Callable[[], object]) -> tuple[ScanMark, DirtySet]:
    """A full scan, with something happening before the pin."""
    dirty = DirtySet()
    mark = keeper.file.scan(keeper.table, dirty, SEED, keeper.buffer)
    assert mark.scanned
    happen()
    return mark, dirty


def test_commits_and_checkpoints_of_the_same_generation_are_completed(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path, wal_autocheckpoint=0) as app:
        app.book(20)
        keeper = kept()
        keeper.capture()
        app.book(3)

        def work() -> None:
            app.book(3)
            app.checkpoint("PASSIVE")

        mark, dirty = between(keeper, work)
        assert exact(keeper, keeper._pinned(dirty, mark))


@pytest.mark.parametrize("ending", ["restart", "close", "close and open"])
def test_another_generation_is_not_proven(path: Path, kept: Callable[..., Kept], ending: str) -> None:
    with App(path, wal_autocheckpoint=0) as app:
        app.book(20)
        keeper = kept()
        keeper.capture()
        app.book(3)

        def work() -> None:
            app.book(3)
            if ending == "restart":
                app.checkpoint("RESTART")
                app.book(1)
            else:
                app.ask("close")

        mark, dirty = between(keeper, work)
        if ending == "close and open":
            with App(path) as second:
                second.book()
                with keeper.file.pin() as pinned, pytest.raises(NotProven):
                    pinned.complete(keeper.table, dirty, mark)
        else:
            with keeper.file.pin() as pinned, pytest.raises(NotProven):
                pinned.complete(keeper.table, dirty, mark)
        assert exact(keeper, keeper.capture())


def test_a_file_overwritten_with_nobody_alive_is_not_proven(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path, wal_autocheckpoint=0) as app:
        app.book(20)
        app.checkpoint("TRUNCATE")
        app.book(1)
    keeper = kept()
    keeper.capture()
    dirty = DirtySet()
    mark = keeper.file.scan(keeper.table, dirty, SEED, keeper.buffer, keeper.last)
    assert not mark.scanned
    with path.open("r+b") as file:
        file.seek(5 * 4096 + 100)
        file.write(b"a restore from elsewhere")
    with keeper.file.pin() as pinned, pytest.raises(NotProven):
        pinned.complete(keeper.table, dirty, mark)


def test_a_log_that_begins_anew_over_an_untouched_file_is_proven_by_the_file(
    path: Path, kept: Callable[..., Kept]
) -> None:
    with App(path, wal_autocheckpoint=0) as app:
        app.book(20)
        app.checkpoint("PASSIVE")
        keeper = kept()
        keeper.capture()
        mark, dirty = between(keeper, lambda: app.book(1))
        assert exact(keeper, keeper._pinned(dirty, mark))


def test_a_transaction_in_rollback_mode_is_not_proven(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path, journal_mode="DELETE") as app:
        app.book(20)
        keeper = kept()
        keeper.capture()
        mark, dirty = between(keeper, lambda: app.book(1))
        with keeper.file.pin() as pinned, pytest.raises(NotProven):
            pinned.complete(keeper.table, dirty, mark)


def test_pages_torn_during_the_scan_are_read_again(path: Path, kept: Callable[..., Kept]) -> None:
    """A checkpoint in the middle of the scan: what came before it is old, what came after is new."""
    with App(path, wal_autocheckpoint=0) as app:
        app.book(300, pages=6)
        keeper = kept()
        keeper.capture()
        app.checkpoint("RESTART")
        app.book(200, pages=6)
        steps: list[int] = []

        def tick(size: int) -> None:
            steps.append(size)
            if len(steps) == 1:
                app.checkpoint("PASSIVE")

        dirty = DirtySet()
        mark = keeper.file.scan(keeper.table, dirty, SEED, keeper.buffer, tick=tick)
        assert len(steps) > 1
        assert exact(keeper, keeper._pinned(dirty, mark))


def test_pages_beyond_the_end_of_the_file_count_as_the_zeros_they_would_be(
    path: Path, kept: Callable[..., Kept]
) -> None:
    with App(path, journal_mode="DELETE") as app:
        app.book(20)
        keeper = kept()
        keeper.capture()
        pages = keeper.table.count
        keeper.table.apply([(pages + 1, page_digests(bytes(4096), 4096, SEED) + b"of another page." * 2)])
        dirty = DirtySet()
        keeper.file.scan(keeper.table, dirty, SEED, keeper.buffer)
        assert list(dirty) == [pages + 2, pages + 3]


def test_a_scan_can_be_stopped(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path) as app:
        app.book(20)
        keeper = kept()
        keeper.capture()

        def stop(_: int) -> None:
            raise InterruptedError

        with pytest.raises(InterruptedError):
            keeper.file.scan(keeper.table, DirtySet(), SEED, keeper.buffer, tick=stop)


def test_pages_copied_beforehand_are_read_again_only_where_they_changed(path: Path, tmp_path: Path) -> None:
    with App(path, wal_autocheckpoint=0) as app:
        app.book(200)
        app.checkpoint("TRUNCATE")
        app.book(1)
        buffer = Buffer(4 << 20)
        with DatabaseFile(os.fsencode(path)) as file, DigestTable(tmp_path / "digests", 4096, GENERATION) as table:
            digests, dirty = Overlay(table), DirtySet()
            mark = file.scan(digests, dirty, SEED, buffer)
            image = bytearray()
            for first in range(1, dirty.page_count + 1, 16):
                count = min(16, dirty.page_count + 1 - first)
                file.read_unlocked(first, count, 4096, buffer.view)
                image += buffer.view[: count * 4096]
                digests.put(first, page_digests(buffer.view[: count * 4096], 4096, SEED))
            dirty.clear()
            app.book(2)
            app.checkpoint("PASSIVE")
            with file.pin() as pinned:
                pinned.complete(digests, dirty, mark)
                assert 0 < len(dirty) < pinned.page_count // 2
                copied = pinned.copy(dirty, buffer)
                truth = whole(pinned, Buffer(4 << 20))
            image.extend(bytes(len(truth) - len(image)))
            for run in copied.changed(digests, SEED):
                image[(run.first - 1) * 4096 : (run.first - 1) * 4096 + len(run.data)] = run.data
            assert bytes(image) == truth


# Special databases


def test_the_lock_page_is_zeros_and_never_dirty(path: Path, tmp_path: Path) -> None:
    size, hole = 65536, lock_page(65536)
    with App(path, page_size=size, journal_mode="DELETE") as app:
        app.book()
        app.ask("close")
    small = path.stat().st_size // size
    with path.open("r+b") as file:
        file.truncate(1 << 30)  # up to the lock page, as if large rows had been there
        file.seek(28)
        file.write(struct.pack(">I", hole - 1))
    buffer = Buffer(4 << 20)
    with App(path, wal_autocheckpoint=0) as app, DigestTable(tmp_path / "digests", size, GENERATION) as table:
        table.apply([(small + 1, page_digests(bytes(size), size, SEED) * (hole - 1 - small))])
        app.book(40, pages=40)
        for mode in ("", "TRUNCATE"):
            if mode:
                app.checkpoint(mode)
            with DatabaseFile(os.fsencode(path)) as file:
                dirty = DirtySet()
                mark = file.scan(table, dirty, SEED, buffer)
                with file.pin() as pinned:
                    pinned.complete(table, dirty, mark)
                    assert pinned.page_count > hole + 3
                    assert hole not in dirty
                    assert hole + 1 in dirty
                    assert len(dirty) < 200
                    pinned.read(hole - 1, 3, buffer.view[: 3 * size])
                    assert bytes(buffer.view[size : 2 * size]) == bytes(size)
                    assert bytes(buffer.view[2 * size : 3 * size]) != bytes(size)
                    assert pinned.copy(dirty, buffer).view


def test_an_encrypted_database_is_captured_without_its_key(
    path: Path, tmp_path: Path, kept: Callable[..., Kept], oracle: Oracle
) -> None:
    with App(path, key=KEY, wal_autocheckpoint=20) as app:
        app.book(10)
        keeper = kept()
        for round_ in range(1, 6):
            outcome = keeper.capture()
            assert exact(keeper, outcome)
            assert b"SQLite format" not in outcome.truth
            (tmp_path / "image.db").write_bytes(keeper.image)
            assert oracle.judge(tmp_path / "image.db", key=KEY) == 10 * round_
            app.book(10)
        app.ask("close")
    outcome = keeper.capture()
    assert outcome.state is PinState.ROLLBACK
    assert exact(keeper, outcome)


def test_commits_padded_to_sectors_are_counted_once(path: Path, tmp_path: Path, oracle: Oracle) -> None:
    """Without power-safe overwrite SQLite repeats the last frame of a commit to fill a sector."""
    with App(f"file:{path}?psow=0", page_size=512, synchronous="FULL") as app:
        app.book(5)
        assert path.with_name("chat.db-wal").stat().st_size % 4096 < 536, "no padding"
        with Kept(path, tmp_path, 512) as keeper:
            for round_ in range(1, 4):
                outcome = keeper.capture()
                assert exact(keeper, outcome)
                (tmp_path / "image.db").write_bytes(keeper.image)
                assert oracle.judge(tmp_path / "image.db") == 5 * round_
                app.book(5)


def test_databases_of_old_versions_of_sqlite_have_the_size_of_their_file(path: Path, tmp_path: Path) -> None:
    with App(path, journal_mode="DELETE") as app:
        app.book(5)
        app.ask("close")
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        file.seek(28)
        file.write(struct.pack(">I", pages - 1))
        file.seek(92)
        file.write(bytes(4))  # not of the version that counted the pages
    with DatabaseFile(os.fsencode(path)) as database, database.pin() as pinned:
        assert pinned.page_count == pages


def test_the_capture_knows_no_sqlite_library() -> None:
    # One that opened a watched file would drop its owner's locks when it closed it.
    code = "import sys, chatkeep.daemon.capture.database; print(sorted({'sqlite3', 'apsw', '_sqlite3'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout == "[]\n"
