"""What the image of a database consists of, looked at under the pin; and the first look that tells it is a database."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from typing import NamedTuple

from chatkeep.daemon.capture.companions import Companions
from chatkeep.daemon.capture.errors import DatabaseDamaged, SourceBusy
from chatkeep.daemon.capture.logfile import CommitSizes, VerifiedLog, WalIndex, trusted_index
from chatkeep.daemon.capture.wal import valid_page_size

HEADER_SIZE = 100  # https://www.sqlite.org/fileformat2.html section 1.3
_MAGIC = b"SQLite format 3\0"
_WAL_MODE = 2
_DEFAULT_PAGE_SIZE = 4096


class PinState(enum.Enum):
    """What the pinned image is made of."""

    LIVE_WAL = "live-wal"  # applications are alive: their index says which frames are committed
    DEAD_WAL = "dead-wal"  # a log with committed frames and nobody alive: its checksums say which
    NO_WAL = "no-wal"  # the file is the image; it would be written through a log
    ROLLBACK = "rollback"  # the file is the image
    HOT_JOURNAL = "hot-journal"  # a transaction was cut off: file and journal together are the image


class FileHeader(NamedTuple):
    """What a plain SQLite file says of itself. `page_count` is None when the file's size is to be believed instead."""

    page_size: int
    wal_mode: bool
    page_count: int | None


@dataclass(frozen=True, slots=True)
class Layout:
    """The image under the pin. `index` is None when no log counts. `opaque`: the application encrypts its pages."""

    state: PinState
    page_size: int
    page_count: int
    index: WalIndex | None
    opaque: bool


class Logs:
    """What is remembered of a database's log, so that the pin need not read it all."""

    def __init__(self) -> None:
        self.verified = VerifiedLog()
        self.sizes = CommitSizes()


def parse_file_header(raw: bytes) -> FileHeader | None:
    """None when it is not the header of a plain SQLite file."""
    if len(raw) < HEADER_SIZE or not raw.startswith(_MAGIC):
        return None
    size = int.from_bytes(raw[16:18], "big")
    page_size = 65536 if size == 1 else size
    if not valid_page_size(page_size):
        return None
    page_count: int | None = int.from_bytes(raw[28:32], "big")
    # A version of SQLite before 3.7.0 does not keep the count up: then the counters differ.
    if page_count == 0 or raw[24:28] != raw[92:96]:
        page_count = None
    return FileHeader(page_size, raw[19] == _WAL_MODE, page_count)


def survey(path: bytes, fd: int, side: Companions, logs: Logs, hint: int | None, now_ns: int) -> Layout:
    """For use with the locks held. `hint`: the page size to assume where no file tells it.

    Raises SourceBusy when log and index disagree, DatabaseDamaged when the files make no database.
    """
    header = parse_file_header(os.pread(fd, HEADER_SIZE, 0))
    size = os.fstat(fd).st_size
    opaque = header is None
    alive = side.alive
    index = _index(path, side, logs, now_ns, alive=alive)
    if not alive and side.hot_journal(fd):
        if index is not None:
            # SQLite would roll back one and then replay the other; no crash of its own leaves both behind.
            raise DatabaseDamaged(path=path, reason="journal-and-log")
        page_size = header.page_size if header else hint or _DEFAULT_PAGE_SIZE
        return Layout(PinState.HOT_JOURNAL, page_size, -(-size // page_size), None, opaque)
    if index is not None and (index.mx_frame or index.page_count):
        state = PinState.LIVE_WAL if alive else PinState.DEAD_WAL
        return Layout(state, index.page_size, index.page_count, index, opaque)
    page_size = header.page_size if header else index.page_size if index else hint or _DEFAULT_PAGE_SIZE
    page_count = _page_count(path, size, page_size, header)
    if alive:
        return Layout(PinState.LIVE_WAL, page_size, page_count, index, opaque)
    # Encrypted pages do not tell the mode. It makes no difference here, as there is no log.
    state = PinState.NO_WAL if header is not None and header.wal_mode else PinState.ROLLBACK
    return Layout(state, page_size, page_count, None, opaque)


def _index(path: bytes, side: Companions, logs: Logs, now_ns: int, *, alive: bool) -> WalIndex | None:
    if side.wal_fd is None:
        return None
    if alive and side.shm_fd is not None:
        index = trusted_index(side.wal_fd, side.shm_fd, logs.sizes)
        if index is not None:
            return index
    # Nobody alive, or an application is just recovering: the log's own checksums are what it will go by.
    found = logs.verified.read(side.wal_fd, now_ns)
    if found is None and alive:
        raise SourceBusy(path=path, reason="index")
    return found


def _page_count(path: bytes, size: int, page_size: int, header: FileHeader | None) -> int:
    pages, rest = divmod(size, page_size)
    # The file may be longer than the database, when the application has it grow in large steps.
    if header is not None and header.page_count is not None and header.page_count <= pages:
        return header.page_count
    if rest or not pages:
        raise DatabaseDamaged(path=path, reason="size")
    return pages
