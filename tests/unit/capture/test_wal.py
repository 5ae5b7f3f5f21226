"""The parser of the log and of its index, against SQLite's own reading of the same bytes."""

from __future__ import annotations

import os
import random
import struct
from array import array
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatkeep.daemon.capture.buffer import Buffer
from chatkeep.daemon.capture.database import DatabaseFile
from chatkeep.daemon.capture.layout import PinState
from chatkeep.daemon.capture.logfile import CommitSizes, VerifiedLog, WalIndex, shrank, trusted_index, verify
from chatkeep.daemon.capture.wal import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    Commit,
    FrameChain,
    checksum,
    frame_offset,
    parse_frame,
    parse_header,
    parse_shm,
    shm_page_numbers,
)
from tests.support.capturing import whole
from tests.support.sqlite_app import App, Oracle


class Log(NamedTuple):
    """A database and its log as the application left them when it was killed."""

    db: bytes
    wal: bytes
    page_size: int

    @property
    def frames(self) -> int:
        return (len(self.wal) - HEADER_SIZE) // (self.page_size + FRAME_HEADER_SIZE)


def written(where: Path, page_size: int, seed: int) -> Log:
    """A log of commits, rollbacks, transactions that spilled before their end, and one that never ended."""
    path = where / f"written-{page_size}.db"
    with App(path, seed=seed, page_size=page_size, cache_size=5, wal_autocheckpoint=0) as app:
        app.book(2)
        app.checkpoint("RESTART")
        dice = random.Random(seed)
        for _ in range(12):
            app.book(1, pages=dice.choice((1, 3, 30)), end=dice.choice(("COMMIT", "COMMIT", "ROLLBACK")))
        app.book(1, pages=60, end="")
        db, wal = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    return Log(db, wal, page_size)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def log(place: Path) -> Log:
    found = written(place, 1024, seed=11)
    assert found.frames > 60, "nothing spilled"
    return found


@pytest.fixture(scope="module")
def buffer() -> Buffer:
    return Buffer(4 << 20)


def ours_and_sqlites(place: Path, oracle: Oracle, buffer: Buffer, db: bytes, wal: bytes) -> tuple[bytes, bytes]:
    """The image that the pin gives, and what SQLite makes of the same files."""
    path = place / "copy.db"
    path.write_bytes(db)
    Path(f"{path}-wal").write_bytes(wal)
    with DatabaseFile(os.fsencode(path)) as file, file.pin() as pinned:
        assert pinned.state in (PinState.DEAD_WAL, PinState.NO_WAL)
        ours = whole(pinned, buffer)
        pinned.validate()
    oracle.ask("settle", path=str(path))
    return ours, path.read_bytes()


@given(st.data())
@settings(max_examples=80)
def test_a_log_cut_anywhere_is_what_sqlite_makes_of_it(
    place: Path, log: Log, oracle: Oracle, buffer: Buffer, data: st.DataObject
) -> None:
    cut = data.draw(
        st.one_of(st.integers(0, len(log.wal)), st.integers(0, log.frames).map(lambda n: frame_offset(n + 1, 1024)))
    )
    ours, sqlites = ours_and_sqlites(place, oracle, buffer, log.db, log.wal[:cut])
    assert ours == sqlites


@given(st.data())
@settings(max_examples=80)
def test_a_log_with_a_wrong_byte_is_what_sqlite_makes_of_it(
    place: Path, log: Log, oracle: Oracle, buffer: Buffer, data: st.DataObject
) -> None:
    at = data.draw(st.one_of(st.integers(0, HEADER_SIZE + 23), st.integers(0, len(log.wal) - 1)))
    wal = bytearray(log.wal)
    wal[at] ^= data.draw(st.integers(1, 255))
    ours, sqlites = ours_and_sqlites(place, oracle, buffer, log.db, bytes(wal))
    assert ours == sqlites


@pytest.mark.parametrize("page_size", [512, 2048, 4096, 65536])
def test_every_page_size(place: Path, oracle: Oracle, buffer: Buffer, page_size: int) -> None:
    log = written(place, page_size, seed=page_size)
    ours, sqlites = ours_and_sqlites(place, oracle, Buffer(32 << 20), log.db, log.wal)
    assert ours == sqlites
    assert ours != log.db


def rewritten(log: Log, magic: int, page_zero: int | None = None) -> bytes:
    """The same log as another machine writes it, with its own checksums; `page_zero`: a frame that names no page."""
    big_endian = magic == 0x377F0683
    header = struct.pack(">I", magic) + log.wal[4:24]
    state = checksum(header, big_endian)
    out = bytearray(header + struct.pack(">II", *state))
    size = log.page_size + FRAME_HEADER_SIZE
    for number, at in enumerate(range(HEADER_SIZE, len(log.wal) - size + 1, size), start=1):
        frame = log.wal[at : at + size]
        if number == page_zero:
            frame = bytes(4) + frame[4:]
        state = checksum(frame[:8] + frame[FRAME_HEADER_SIZE:], big_endian, state)
        out += frame[:16] + struct.pack(">II", *state) + frame[FRAME_HEADER_SIZE:]
    return bytes(out)


def test_a_log_of_the_other_byte_order(place: Path, log: Log, oracle: Oracle, buffer: Buffer) -> None:
    # SQLite's own reading of the rewritten log is the judge of the rewriting.
    wal = rewritten(log, 0x377F0683)
    ours, sqlites = ours_and_sqlites(place, oracle, buffer, log.db, wal)
    assert ours == sqlites
    assert ours == ours_and_sqlites(place, oracle, buffer, log.db, log.wal)[0]


def test_the_log_ends_before_a_frame_that_names_no_page(place: Path, log: Log, oracle: Oracle, buffer: Buffer) -> None:
    assert rewritten(log, 0x377F0682)[: 1 << 15] == log.wal[: 1 << 15]
    ours, sqlites = ours_and_sqlites(place, oracle, buffer, log.db, rewritten(log, 0x377F0682, page_zero=20))
    assert ours == sqlites
    assert ours != ours_and_sqlites(place, oracle, buffer, log.db, log.wal)[0]


def test_frames_summed_side_by_side_equal_frames_summed_one_by_one(log: Log) -> None:
    header = parse_header(log.wal)
    assert header is not None
    size = log.page_size + FRAME_HEADER_SIZE
    state, last = header.checksum, header.checksum
    pages: list[int] = []
    for number in range(log.frames):
        frame = log.wal[HEADER_SIZE + number * size :][:size]
        found = parse_frame(frame)
        assert found is not None
        state = checksum(frame[:8] + frame[FRAME_HEADER_SIZE:], header.big_endian, state)
        if found.salts != header.salts or found.checksum != state:
            break
        pages.append(found.page)
        if found.page_count:
            last, committed = state, len(pages)
    for batch in (1, 3, 17, 1000):
        chain = FrameChain(header)
        body = log.wal[HEADER_SIZE : HEADER_SIZE + log.frames * size]
        for at in range(0, len(body), batch * size):
            if not chain.feed(body[at : at + batch * size]):
                break
        assert chain.checksum == last
        assert chain.pages == pages[:committed]
        assert chain.mx_frame == committed < len(pages), "the transaction that never ended is not in the log"


@pytest.mark.parametrize("size", [0, 31])
def test_half_a_header_is_none(log: Log, size: int) -> None:
    assert parse_header(log.wal[:size]) is None


@pytest.mark.parametrize(("at", "value"), [(0, 0), (7, 1), (8, 1), (9, 255), (10, 3), (24, 77)])
def test_a_wrong_header_is_none(log: Log, at: int, value: int) -> None:
    raw = bytearray(log.wal[:HEADER_SIZE])
    assert parse_header(bytes(raw)) is not None
    raw[at] = value
    assert parse_header(bytes(raw)) is None


def test_the_living_index_and_the_checksums_name_the_same_frames(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    with App(path, seed=5, page_size=512, cache_size=5, wal_autocheckpoint=0) as app:
        app.book(400, pages=10)  # beyond the 4062 frames of the index's first block, and those of the second
        app.book(1, pages=40, end="")
        wal, shm = os.open(f"{path}-wal", os.O_RDONLY), os.open(f"{path}-shm", os.O_RDONLY)
        try:
            living, verified = trusted_index(wal, shm, CommitSizes()), verify(wal)
        finally:
            os.close(wal)
            os.close(shm)
    assert living is not None
    assert verified is not None
    assert living.mx_frame > 4062 + 4096
    assert living[:6] == verified[:6]
    assert living.commits == verified.commits
    assert len(living.commits) == 401
    assert not shrank(living)


def test_what_was_read_ahead_of_a_log_is_not_used_for_another(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    sizes = CommitSizes()
    with App(path, wal_autocheckpoint=0) as app:
        app.book(3)
        wal, shm = os.open(f"{path}-wal", os.O_RDONLY), os.open(f"{path}-shm", os.O_RDONLY)
        try:
            for step in ("go on", "begin anew", "begin anew", "go on"):
                if step == "begin anew":
                    app.checkpoint("RESTART")
                app.book(2)
                living, verified = trusted_index(wal, shm, sizes), verify(wal)
                assert living is not None
                assert verified is not None
                assert living.commits == verified.commits
            assert sizes.read(wal, 4096, b"elsewher", 3) is None
        finally:
            os.close(wal)
            os.close(shm)


@pytest.mark.parametrize(
    ("commits", "pages", "expected"),
    [
        ([(2, 5), (3, 6)], (1, 5, 6), False),
        ([(2, 6), (3, 5)], (1, 6, 1), True),
        ([(2, 5), (3, 6)], (1, 6, 6), True),  # the first transaction wrote a page and gave it back
    ],
    ids=["grew", "shrank", "spilled and gave back"],
)
def test_a_database_that_shrank(commits: list[tuple[int, int]], pages: tuple[int, ...], expected: bool) -> None:
    index = WalIndex(4096, b"saltsalt", 3, 6, bytes(8), pages, 3, tuple(Commit(*one) for one in commits), None)
    assert shrank(index) is expected


@pytest.mark.parametrize(
    ("at", "what"), [(16, "checksum of the last frame"), (8, "salts of the last frame"), (None, "salts of the log")]
)
def test_an_index_and_a_log_that_disagree_are_not_believed(tmp_path: Path, at: int | None, what: str) -> None:
    path = tmp_path / "chat.db"
    log = Path(f"{path}-wal")
    with App(path, wal_autocheckpoint=0) as app:
        app.book(5)
        wal, shm = os.open(log, os.O_RDONLY), os.open(f"{path}-shm", os.O_RDONLY)
        try:
            living = trusted_index(wal, shm, CommitSizes())
            assert living is not None
            with log.open("r+b") as file:
                file.seek(16 if at is None else frame_offset(living.mx_frame, 4096) + at)
                file.write(b"else")
            assert trusted_index(wal, shm, CommitSizes()) is None, what
        finally:
            os.close(wal)
            os.close(shm)


def test_a_log_is_summed_up_once_unless_it_may_have_changed_unseen(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    with App(path) as app:
        app.book(5)
    wal = os.open(f"{path}-wal", os.O_RDONLY)
    try:
        written_ns, verified = os.fstat(wal).st_mtime_ns, VerifiedLog()
        young = verified.read(wal, written_ns + 1)
        old = verified.read(wal, written_ns + 60 * 10**9)
        assert young == old
        assert young is not old
        assert verified.read(wal, written_ns + 60 * 10**9) is old
    finally:
        os.close(wal)


def test_the_index_keeps_page_numbers_in_blocks() -> None:
    # walformat.html 2.2: 4062 in the first block after 136 bytes, 4096 at the start of every further 32 KiB.
    assert shm_page_numbers(1, 1) == [(136, 4)]
    assert shm_page_numbers(1, 4062) == [(136, 4062 * 4)]
    assert shm_page_numbers(4062, 4063) == [(136 + 4061 * 4, 4), (32768, 4)]
    assert shm_page_numbers(4063, 4062 + 4096 + 2) == [(32768, 4096 * 4), (65536, 8)]
    assert shm_page_numbers(5, 4) == []


def shm(mx_frame: int = 7) -> bytes:
    """An index header as the format page has it, made by hand."""
    body = struct.pack("=IIIBBHIIII8s", 3007000, 0, 42, 1, 0, 4096, mx_frame, 99, 11, 12, b"saltsalt")
    words = array("I", body)
    s0 = s1 = 0
    for first, second in zip(words[::2], words[1::2], strict=True):
        s0 = (s0 + first + s1) & 0xFFFFFFFF
        s1 = (s1 + second + s0) & 0xFFFFFFFF
    copy = body + struct.pack("=II", s0, s1)
    return copy + copy + struct.pack("=I", 5) + bytes(36)


def test_an_index_header() -> None:
    header = parse_shm(shm())
    assert header is not None
    assert (header.changes, header.page_size, header.mx_frame, header.page_count) == (42, 4096, 7, 99)
    assert (header.checksum, header.salts, header.backfilled) == ((11, 12), b"saltsalt", 5)


@pytest.mark.parametrize("at", range(96))
def test_a_torn_index_header_is_none(at: int) -> None:
    raw = bytearray(shm())
    raw[at] ^= 1
    assert parse_shm(bytes(raw)) is None


def test_two_equal_copies_with_a_wrong_checksum_are_none() -> None:
    raw = bytearray(shm())
    raw[16] ^= 1
    raw[48 + 16] ^= 1
    assert parse_shm(bytes(raw)) is None
    assert parse_shm(shm()[:135]) is None
    assert parse_shm(bytes(136)) is None
