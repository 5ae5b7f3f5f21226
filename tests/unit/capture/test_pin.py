"""The pin: which image it shows, what it leaves behind, and when it takes back what it showed."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.daemon.capture import locks
from chatkeep.daemon.capture.buffer import Buffer
from chatkeep.daemon.capture.companions import Companions
from chatkeep.daemon.capture.database import DatabaseFile, pin_all
from chatkeep.daemon.capture.digests import DigestTable
from chatkeep.daemon.capture.dirty import DirtySet
from chatkeep.daemon.capture.errors import (
    DatabaseDamaged,
    DatabaseReplaced,
    PageSizeChanged,
    SourceBusy,
    SourceMissing,
    TooManyDirty,
    UnsupportedSource,
)
from chatkeep.daemon.capture.layout import PinState
from tests.support.capturing import GENERATION, SEED, shown, whole
from tests.support.nobody import as_nobody
from tests.support.sqlite_app import App, Oracle, Refused


@pytest.fixture(scope="module")
def buffer() -> Buffer:
    return Buffer(4 << 20)


def file_at(path: Path) -> DatabaseFile:
    return DatabaseFile(os.fsencode(path))


def image_of(path: Path, buffer: Buffer) -> bytes:
    with file_at(path) as file, file.pin() as pinned:
        found = whole(pinned, buffer)
        pinned.validate()
    return found


def entries(image: bytes, where: Path, oracle: Oracle, journal: bytes | None = None) -> int:
    """How many transactions the image holds."""
    copy = where / "image.db"
    copy.write_bytes(image)
    if journal is not None:
        Path(f"{copy}-journal").write_bytes(journal)
    return oracle.judge(copy)


def cut_off(path: Path) -> None:
    """A rollback journal that must be played back: the transaction spilled into the file, and then its process died."""
    with App(path, journal_mode="DELETE", cache_size=5) as app:
        app.book(4)
        app.book(1, pages=80, end="")


def left_by(state: PinState, path: Path) -> None:
    if state is PinState.HOT_JOURNAL:
        cut_off(path)
        return
    with App(path, journal_mode="DELETE" if state is PinState.ROLLBACK else "WAL") as app:
        app.book(4)
        if state is not PinState.DEAD_WAL:
            app.ask("close")


NOBODY_ALIVE = [PinState.DEAD_WAL, PinState.NO_WAL, PinState.ROLLBACK, PinState.HOT_JOURNAL]


@pytest.mark.parametrize("state", NOBODY_ALIVE, ids=lambda state: state.value)
def test_a_database_nobody_has_open_is_read_and_nothing_is_left_behind(
    path: Path, tmp_path: Path, oracle: Oracle, buffer: Buffer, state: PinState
) -> None:
    left_by(state, path)
    before = shown(path.parent)
    with file_at(path) as file, file.pin() as pinned:
        assert pinned.state is state
        assert pinned.needs_recovery == (state is PinState.HOT_JOURNAL)
        image = whole(pinned, buffer)
        journal = pinned.journal() if pinned.needs_recovery else None
        pinned.validate()
        assert pinned.unchanged()
    assert shown(path.parent) == before
    assert entries(image, tmp_path, oracle, journal) == 4


def test_a_living_database_is_read_and_nothing_is_left_behind(
    path: Path, tmp_path: Path, oracle: Oracle, buffer: Buffer
) -> None:
    with App(path) as app:
        app.book(4)
        before = shown(path.parent)
        with file_at(path) as file, file.pin() as pinned:
            assert pinned.state is PinState.LIVE_WAL
            image = whole(pinned, buffer)
            pinned.validate()
        assert shown(path.parent) == before
        assert app.book() == 5
    assert entries(image, tmp_path, oracle) == 4


@pytest.mark.parametrize("state", NOBODY_ALIVE, ids=lambda state: state.value)
def test_files_and_a_directory_that_may_only_be_read_suffice(path: Path, buffer: Buffer, state: PinState) -> None:
    left_by(state, path)
    image = image_of(path, buffer)

    def read() -> None:
        with pytest.raises(OSError):
            (path.parent / "new").touch()
        assert image_of(path, buffer) == image

    for file in path.parent.iterdir():
        file.chmod(0o444)
    path.parent.chmod(0o555)
    as_nobody(read, os.fsencode(path.parent))
    path.parent.chmod(0o755)


def test_frames_of_a_transaction_that_did_not_end_are_not_in_the_image(path: Path, buffer: Buffer) -> None:
    with App(path, cache_size=5, wal_autocheckpoint=0) as app:
        app.book(4)
        image = image_of(path, buffer)
        frames = Path(f"{path}-wal").stat().st_size
        app.book(1, pages=80, end="")
        assert Path(f"{path}-wal").stat().st_size > frames, "nothing spilled"
        assert image_of(path, buffer) == image
        app.sql("ROLLBACK")
        assert image_of(path, buffer) == image
        app.kill()
    assert image_of(path, buffer) == image


def test_the_image_stays_while_transactions_go_on(path: Path, buffer: Buffer) -> None:
    with App(path, wal_autocheckpoint=2) as app:
        app.book(4)
        with file_at(path) as file, file.pin() as pinned:
            first = whole(pinned, buffer)
            assert pinned.unchanged()
            app.book(30)
            assert whole(pinned, buffer) == first
            assert not pinned.unchanged()
            pinned.validate()


def test_an_application_that_closes_under_the_pin_loses_nothing(
    path: Path, tmp_path: Path, oracle: Oracle, buffer: Buffer
) -> None:
    with App(path) as app:
        app.book(4)
        with file_at(path) as file, file.pin() as pinned:
            app.ask("close")
            image = whole(pinned, buffer)
            pinned.validate()
    assert entries(image, tmp_path, oracle) == 4
    with App(path) as app:
        assert app.book() == 5
        app.ask("close")
    assert [entry.name for entry in path.parent.iterdir()] == ["chat.db"]


def test_an_application_that_opens_an_idle_database_under_the_pin_spoils_it(path: Path, buffer: Buffer) -> None:
    left_by(PinState.NO_WAL, path)
    with file_at(path) as file, file.pin() as pinned, App(path) as app:
        app.book()
        app.checkpoint("PASSIVE")
        with pytest.raises(SourceBusy):
            pinned.validate()
        assert not pinned.unchanged()


def test_an_application_that_recovers_an_index_we_hold_does_not(path: Path, buffer: Buffer) -> None:
    left_by(PinState.DEAD_WAL, path)
    image = image_of(path, buffer)
    with file_at(path) as file, file.pin() as pinned, App(path) as app:
        app.book()
        app.checkpoint("PASSIVE")
        assert whole(pinned, buffer) == image
        pinned.validate()
        assert not pinned.unchanged()


def test_an_application_that_recovers_without_an_index_does(path: Path) -> None:
    left_by(PinState.DEAD_WAL, path)
    Path(f"{path}-shm").unlink()
    with file_at(path) as file, file.pin() as pinned, App(path) as app:
        assert pinned.state is PinState.DEAD_WAL
        app.book()
        with pytest.raises(SourceBusy):
            pinned.validate()


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"x")


def _replace(path: Path) -> None:
    shutil.copy(path, f"{path}.new")
    os.replace(f"{path}.new", path)


@pytest.mark.parametrize(
    ("suffix", "spoil"),
    [("", _overwrite), ("-wal", _replace), ("-wal", Path.unlink), ("-shm", _replace), ("-shm", Path.unlink)],
    ids=["db overwritten", "log replaced", "log deleted", "index replaced", "index deleted"],
)
def test_programs_that_know_no_locks_spoil_the_pin(path: Path, suffix: str, spoil: Callable[[Path], None]) -> None:
    with App(path) as app:
        app.book(4)
        with file_at(path) as file, file.pin() as pinned:
            pinned.validate()
            spoil(Path(f"{path}{suffix}"))
            with pytest.raises(SourceBusy) as caught:
                pinned.validate()
            assert caught.value.params["path"] == os.fsencode(path)


def test_a_frame_that_is_not_the_one_the_index_named_is_refused(path: Path, buffer: Buffer) -> None:
    with App(path) as app:
        app.book(4)
        with file_at(path) as file, file.pin() as pinned:
            log = Path(f"{path}-wal")
            raw = bytearray(log.read_bytes())
            raw[32 + 8] ^= 1  # the first frame's salt
            for frame in range(1, (len(raw) - 32) // 4120):
                raw[32 + frame * 4120 + 8] ^= 1
            log.write_bytes(raw)
            with pytest.raises(SourceBusy):
                whole(pinned, buffer)


def test_a_torn_index_is_not_believed_and_the_checksums_are(path: Path, buffer: Buffer) -> None:
    with App(path, cache_size=5) as app:
        app.book(4)
        app.book(1, pages=60, end="")
        image = image_of(path, buffer)
        with Path(f"{path}-shm").open("r+b") as index:
            index.seek(16)
            index.write(b"\xff\xff")
        assert image_of(path, buffer) == image


def test_who_keeps_the_index_to_himself_is_left_alone(path: Path) -> None:
    with App(path, locking_mode="EXCLUSIVE") as app:
        app.book(4)
        assert not Path(f"{path}-shm").exists()
        with file_at(path) as file, pytest.raises(SourceBusy) as caught:
            file.pin()
        assert caught.value.params["reason"] == "exclusive"
        assert app.book() == 5


def test_a_rollback_writer_at_work_is_waited_for_and_then_left_alone(path: Path, buffer: Buffer) -> None:
    with App(path, journal_mode="DELETE") as app:
        app.book(4)
        app.sql("BEGIN EXCLUSIVE")
        with file_at(path) as file:
            with pytest.raises(SourceBusy) as caught:
                file.pin()
            assert caught.value.params["reason"] == "writing"
            app.sql("ROLLBACK")
            with file.pin() as pinned:
                assert pinned.state is PinState.ROLLBACK


def test_a_checkpoint_at_work_is_waited_for_and_then_left_alone(path: Path) -> None:
    with App(path) as app:
        app.book(4)
        theirs = os.open(f"{path}-shm", os.O_RDWR)
        try:
            fcntl.fcntl(theirs, fcntl.F_OFD_SETLK, locks._FLOCK.pack(fcntl.F_WRLCK, 0, locks.READ0, 1, 0))
            with file_at(path) as file:
                with pytest.raises(SourceBusy) as caught:
                    file.pin()
                os.close(theirs)
                theirs = -1
                app.sql("PRAGMA busy_timeout=0")
                assert app.sql("PRAGMA journal_mode=DELETE") == [["delete"]], "the failed pin left a lock"
        finally:
            if theirs >= 0:
                os.close(theirs)
        assert caught.value.params["reason"] == "checkpoint"


def test_a_released_pin_holds_nothing(path: Path) -> None:
    with App(path, journal_mode="DELETE") as app:
        app.book()
        app.sql("PRAGMA busy_timeout=0")
        with file_at(path) as file:
            pinned = file.pin()
            with pytest.raises(Refused, match="locked"):
                app.book()
            app.sql("ROLLBACK")
            pinned.release()
            pinned.release()
            assert app.book() == 2


def test_a_journal_and_a_log_together_make_no_database(path: Path) -> None:
    left_by(PinState.DEAD_WAL, path)
    Path(f"{path}-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504))
    with file_at(path) as file, pytest.raises(DatabaseDamaged):
        file.pin()


def test_a_journal_kept_for_next_time_is_not_hot(path: Path) -> None:
    with App(path, journal_mode="PERSIST") as app:
        app.book(4)
        assert Path(f"{path}-journal").stat().st_size > 0
        with file_at(path) as file, file.pin() as pinned:
            assert pinned.state is PinState.ROLLBACK


@pytest.mark.parametrize("meanwhile", [Path.unlink, _replace], ids=["gone", "another"])
def test_a_journal_that_does_not_stay_is_not_hot(path: Path, meanwhile: Callable[[Path], None]) -> None:
    left_by(PinState.HOT_JOURNAL, path)
    fd = os.open(path, os.O_RDONLY)
    side = Companions(os.fsencode(path))
    try:
        assert side.hot_journal(fd)
        meanwhile(Path(f"{path}-journal"))
        assert not side.hot_journal(fd)
    finally:
        side.close()
        os.close(fd)


def test_a_journal_left_beside_a_living_log_is_of_no_meaning(path: Path) -> None:
    with App(path) as app:
        app.book(4)
        Path(f"{path}-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504))
        with file_at(path) as file, file.pin() as pinned:
            assert pinned.state is PinState.LIVE_WAL


def test_an_index_that_outlived_its_owners_is_not_believed(
    path: Path, tmp_path: Path, oracle: Oracle, buffer: Buffer
) -> None:
    with App(path) as app:
        app.book(2)
        stale = Path(f"{path}-shm").read_bytes()
        app.book(2)
    Path(f"{path}-shm").write_bytes(stale)
    assert entries(image_of(path, buffer), tmp_path, oracle) == 4


def test_a_journal_being_written_is_not_hot(path: Path, buffer: Buffer) -> None:
    # With synchronous=OFF its header is complete from the start; else only once the journal was synced.
    with App(path, journal_mode="DELETE", synchronous="OFF") as app:
        app.book(4)
        image = image_of(path, buffer)
        app.book(1, end="")
        assert Path(f"{path}-journal").read_bytes()[:1] != b"\0"
        with file_at(path) as file, file.pin() as pinned:
            assert pinned.state is PinState.ROLLBACK
            assert whole(pinned, buffer) == image


def test_a_file_longer_than_the_database_is_as_long_as_the_database(path: Path, buffer: Buffer) -> None:
    left_by(PinState.ROLLBACK, path)
    image = path.read_bytes()
    with path.open("ab") as file:
        file.write(bytes(3 * 4096))
    assert image_of(path, buffer) == image


def test_a_file_of_half_a_page_more_than_it_says_is_damaged(path: Path) -> None:
    left_by(PinState.ROLLBACK, path)
    os.truncate(path, path.stat().st_size - 100)
    with file_at(path) as file, pytest.raises(DatabaseDamaged):
        file.pin()


def test_another_file_at_the_path_is_noticed(path: Path) -> None:
    left_by(PinState.ROLLBACK, path)
    with file_at(path) as file:
        _replace(path)
        with pytest.raises(DatabaseReplaced):
            file.pin()
        path.unlink()
        with pytest.raises(SourceMissing):
            file.pin()


def test_what_is_no_file_is_not_opened(path: Path) -> None:
    with pytest.raises(SourceMissing):
        file_at(path)
    os.mkfifo(path)
    with pytest.raises(UnsupportedSource):
        file_at(path)
    link = path.with_name("link.db")
    link.symlink_to(path)
    with pytest.raises(UnsupportedSource):
        file_at(link)
    with pytest.raises(UnsupportedSource):
        file_at(path.parent)


def test_more_pages_than_room_are_refused_before_the_first_is_copied(path: Path) -> None:
    left_by(PinState.ROLLBACK, path)
    small = Buffer(4096)
    with file_at(path) as file, file.pin() as pinned:
        dirty = DirtySet(pinned.page_count)
        dirty.add(1)
        assert len(pinned.copy(dirty, small).view) == 4096
        dirty.add(3)
        with pytest.raises(TooManyDirty) as caught:
            pinned.copy(dirty, small)
    assert (caught.value.params["pages"], caught.value.params["room"]) == (2, 1)


def test_digests_of_another_page_size_are_refused(path: Path, tmp_path: Path, buffer: Buffer) -> None:
    left_by(PinState.ROLLBACK, path)
    with file_at(path) as file, DigestTable(tmp_path / "digests", 8192, GENERATION) as table, file.pin() as pinned:
        with pytest.raises(PageSizeChanged) as caught:
            pinned.scan_all(table, DirtySet(), SEED, buffer)
        assert (caught.value.params["was"], caught.value.params["now"]) == (8192, 4096)


def test_databases_pinned_together_are_of_one_moment_unless_one_went_on(path: Path) -> None:
    other = path.with_name("media.db")
    with App(path) as chat, App(other, journal_mode="DELETE") as media:
        chat.book()
        media.book()
        with file_at(path) as first, file_at(other) as second:
            pins = pin_all([first, second])
            assert all(pinned.unchanged() for pinned in pins)
            chat.book()
            assert [pinned.unchanged() for pinned in pins] == [False, True]
            for pinned in pins:
                pinned.release()
        media.book()


def test_one_that_cannot_be_pinned_frees_all_others(path: Path) -> None:
    other = path.with_name("media.db")
    with App(path, journal_mode="DELETE") as chat, App(other, journal_mode="DELETE") as media:
        chat.book()
        media.book()
        media.sql("BEGIN EXCLUSIVE")
        with file_at(path) as first, file_at(other) as second:
            with pytest.raises(SourceBusy) as caught:
                pin_all([first, second])
            assert caught.value.params["path"] == os.fsencode(other)
            chat.sql("PRAGMA busy_timeout=0")
            assert chat.book() == 2
