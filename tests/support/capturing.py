"""Captures of one database, one after the other, kept as the vault would keep them: digests, and an image made of
nothing but changed pages."""

from __future__ import annotations

import hashlib
import os
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from chatkeep.daemon.capture.buffer import Buffer, Copied
from chatkeep.daemon.capture.database import DatabaseFile
from chatkeep.daemon.capture.digests import DigestTable, Overlay
from chatkeep.daemon.capture.dirty import DirtySet
from chatkeep.daemon.capture.errors import NotProven, PageSizeChanged
from chatkeep.daemon.capture.layout import PinState
from chatkeep.daemon.capture.pin import Pinned, ScanMark
from chatkeep.daemon.capture.position import Signature

SEED = 0x5EED
GENERATION = bytes(range(16))


class Outcome(NamedTuple):
    """One capture: what it cost, and the whole image read under the same pin, to compare with."""

    state: PinState
    how: str  # "frames": no page was compared; "scan": without locks; "pinned": under the pin
    dirty: int
    changed: int
    exact: bool
    truth: bytes
    journal: bytes | None


def later() -> int:
    """A clock that is ahead: every file is old to it, so that timestamps settle without a wait."""
    return time.time_ns() + 60_000_000_000


class Kept:
    """A database and what was captured of it. `image` is what a restore would give."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        state_dir: Path,
        page_size: int = 4096,
        room: int = 16 << 20,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = os.fsencode(path)
        self.buffer = Buffer(room)
        self._whole = Buffer(room)
        self._state_dir = state_dir
        self.image = bytearray()
        self.last: Signature | None = None
        self.file = DatabaseFile(self.path, page_size, clock)
        self.table = self._empty_table(page_size)

    def capture(self, chance: random.Random | None = None) -> Outcome:
        """The way of a backup: search without locks, then the pin; a longer pin only when nothing else is left.

        `chance` makes it forget the last signature at times, so that lock-free scans are made as well.
        """
        forget = chance is not None and chance.random() < 0.3
        last = None if forget else self.last
        for _ in range(2):
            dirty = DirtySet()
            mark = self.file.scan(self.table, dirty, SEED, self.buffer, last)
            self.file.prefetch(dirty, self.table.page_size, self.buffer)
            try:
                return self._pinned(dirty, mark)
            except NotProven:
                last = None
            except PageSizeChanged as changed:
                now = changed.params["now"]
                assert isinstance(now, int)
                self.table.close()
                self.table, self.image, last = self._empty_table(now), bytearray(), None
        return self._pinned(DirtySet(), None)

    def _pinned(self, dirty: DirtySet, mark: ScanMark | None) -> Outcome:
        with self.file.pin() as pinned:
            if mark is None:
                pinned.scan_all(self.table, dirty, SEED, self.buffer)
            else:
                pinned.complete(self.table, dirty, mark)
            copied = pinned.copy(dirty, self.buffer)
            truth = whole(pinned, self._whole)
            journal = pinned.journal() if pinned.needs_recovery else None
            pinned.validate()
        self.last = pinned.signature
        changed = self.commit(copied, pinned.page_count)
        how = "pinned" if mark is None else "scan" if mark.scanned else "frames"
        return Outcome(pinned.state, how, len(dirty), changed, bytes(self.image) == truth, truth, journal)

    def commit(self, copied: Copied, page_count: int) -> int:
        """Apply changed pages to the image and their digests to the table; how many they were."""
        size = copied.page_size
        overlay = Overlay(self.table)
        overlay.truncate(page_count)
        del self.image[page_count * size :]
        self.image.extend(bytes(page_count * size - len(self.image)))
        changed = 0
        for run in copied.changed(self.table, SEED):
            self.image[(run.first - 1) * size : (run.first - 1 + run.count) * size] = run.data
            overlay.put(run.first, run.digests)
            changed += run.count
        self.table.truncate(overlay.reach)
        self.table.apply(overlay.runs())
        return changed

    def close(self) -> None:
        self.file.close()
        self.table.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _empty_table(self, page_size: int) -> DigestTable:
        return DigestTable(self._state_dir / f"{os.path.basename(self.path).decode()}.digests", page_size, GENERATION)


def whole(pinned: Pinned, buffer: Buffer) -> bytes:
    """The image, page for page."""
    view = buffer.view[: pinned.page_count * pinned.page_size]
    pinned.read(1, pinned.page_count, view)
    return bytes(view)


def acknowledged(path: Path) -> int:
    """The number of the last transaction whose end the application has seen."""
    raw = path.read_bytes() if path.exists() else b""
    return int(struct.unpack("<Q", raw)[0]) if raw else 0


def shown(directory: Path) -> dict[str, tuple[int, ...]]:
    """Everything a visitor could leave behind: names, sizes, inodes, times, links, content."""
    facts: dict[str, tuple[int, ...]] = {}
    for entry in sorted(os.scandir(directory), key=lambda one: one.name):
        about = entry.stat()
        fd = os.open(entry.path, os.O_RDONLY | os.O_NOATIME)
        with os.fdopen(fd, "rb") as file:
            content = int.from_bytes(hashlib.sha256(file.read()).digest()[:8], "big")
        times = (about.st_atime_ns, about.st_mtime_ns, about.st_ctime_ns)
        facts[entry.name] = (about.st_ino, about.st_size, about.st_nlink, about.st_mode, content, *times)
    return facts
