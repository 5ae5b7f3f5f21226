"""Finding what changed: every capture here takes over only what the dirty set names, and must be exact nevertheless."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chatkeep.daemon.capture.buffer import Buffer
from chatkeep.daemon.capture.database import DatabaseFile
from chatkeep.daemon.capture.digests import DigestTable, Overlay, page_digests
from chatkeep.daemon.capture.dirty import DirtySet
from chatkeep.daemon.capture.errors import NotProven
from chatkeep.daemon.capture.pin import ScanMark
from tests.support.capturing import GENERATION, SEED, Kept, whole
from tests.support.sqlite_app import App


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
        assert outcome.exact
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
        assert outcome.exact


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
        assert outcome.exact


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
        assert outcome.exact


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
        assert young.exact


def test_in_rollback_mode_an_old_file_proves_that_nothing_changed(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path, journal_mode="DELETE") as app:
        app.book(20)
        keeper = kept()
        assert keeper.capture().how == "scan"
        assert keeper.capture().how == "frames"
        app.book()
        outcome = keeper.capture()
        assert outcome.how == "scan"
        assert outcome.exact


def test_what_shrinks_and_grows_again_is_exact(path: Path, kept: Callable[..., Kept]) -> None:
    with App(path) as app:
        app.book(60)
        keeper = kept()
        sizes = [len(keeper.capture().truth)]
        app.sql("DELETE FROM filler")
        app.sql("VACUUM")
        outcome = keeper.capture()
        assert outcome.exact
        sizes.append(len(outcome.truth))
        app.checkpoint("TRUNCATE")
        app.book(60)
        outcome = keeper.capture()
        assert outcome.exact
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
        assert keeper.capture().exact


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
        assert outcome.exact
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
    assert outcome.exact


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
    assert outcome.exact


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
        assert keeper._pinned(dirty, mark).exact


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
        assert keeper.capture().exact


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
        assert keeper._pinned(dirty, mark).exact


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
        assert keeper._pinned(dirty, mark).exact


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
