"""Where a database stood: what can be compared later to know whether, and how, it went on."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

# A write in the same tick of the clock as the one before leaves the timestamps as they were: kernels before 6.13 have
# ticks of up to 10 ms, file systems with coarse timestamps whole seconds (two for FAT). A file is *settled* when its
# last write is older than that at the moment of the look: any later write shows.
TICK_NS = 20_000_000
COARSE_TICK_NS = 2_000_000_000
_COARSE_GRAIN_NS = 10_000_000  # a timestamp that is a multiple of this may come from a coarse file system

_ENCODING_VERSION = 1
_FILE = struct.Struct(">QQqqq")
_POINT = struct.Struct(">QQ8sI8sB")
_INDEX = struct.Struct(">II8s")


class FileVersion(NamedTuple):
    """What `stat` says about one version of a file."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, facts: os.stat_result) -> FileVersion:
        """The version that `facts` are of."""
        return cls(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)

    def settled(self, now_ns: int) -> bool:
        """Whether every write after `now_ns`, the wall clock when this was looked up, shows in the timestamps."""
        newest = max(self.mtime_ns, self.ctime_ns)
        coarse = self.mtime_ns % _COARSE_GRAIN_NS == 0
        return now_ns - newest >= (COARSE_TICK_NS if coarse else TICK_NS)


class IndexMark(NamedTuple):
    """The commit counter of the living applications' index, and the generation it counts in."""

    changes: int
    mx_frame: int
    salts: bytes


class WalPoint(NamedTuple):
    """A commit in a write-ahead log.

    `flushed`: every frame up to it is in the database file, so the file alone was the image.
    """

    dev: int
    ino: int
    salts: bytes  # 8: the generation
    mx_frame: int  # 0: no frames yet
    anchor: bytes  # 8: the running checksum at mx_frame; other bytes there later mean that history was rewritten
    flushed: bool

    def same_generation(self, other: WalPoint) -> bool:
        """Whether both are points of one log between two beginnings. Salts of zero name no generation."""
        return any(self.salts) and (self.dev, self.ino, self.salts) == (other.dev, other.ino, other.salts)


@dataclass(frozen=True, slots=True)
class Signature:
    """How a database and its companions looked at `taken_ns` (wall clock)."""

    taken_ns: int
    db: FileVersion
    wal: FileVersion | None
    journal: FileVersion | None
    index: IndexMark | None
    point: WalPoint | None = None

    def changed_since(self, old: Signature) -> bool:
        """False only if nothing was committed between `old` and this one; needs no lock and reads no page.

        What was younger than 2 s when `old` was taken counts as changed: it may have been written again in the same
        tick of a coarse clock.
        """
        if (self.db, self.wal, self.journal, self.index) != (old.db, old.wal, old.journal, old.index):
            return True
        files = [file for file in (old.db, old.wal, old.journal) if file is not None]
        return any(old.taken_ns - max(file.mtime_ns, file.ctime_ns) < COARSE_TICK_NS for file in files)

    def encode(self) -> bytes:
        """Bytes for the state database."""
        parts = [struct.pack(">Bq", _ENCODING_VERSION, self.taken_ns), _FILE.pack(*self.db)]
        parts += [_optional(_FILE, self.wal), _optional(_FILE, self.journal)]
        parts += [_optional(_INDEX, self.index), _optional(_POINT, self.point)]
        return b"".join(parts)

    @classmethod
    def decode(cls, raw: bytes) -> Signature | None:
        """What `encode` gave; None for anything else, which is as if nothing had been kept."""
        try:
            version, taken_ns = struct.unpack_from(">Bq", raw)
            db = FileVersion(*_FILE.unpack_from(raw, 9))
            wal, at = _take(raw, 9 + _FILE.size, _FILE)
            journal, at = _take(raw, at, _FILE)
            index, at = _take(raw, at, _INDEX)
            point, at = _take(raw, at, _POINT)
        except (struct.error, IndexError):
            return None
        if version != _ENCODING_VERSION or at != len(raw):
            return None
        return cls(
            taken_ns,
            db,
            FileVersion(*wal) if wal else None,
            FileVersion(*journal) if journal else None,
            IndexMark(*index) if index else None,
            _point(*point) if point else None,
        )


def _point(dev: int, ino: int, salts: bytes, mx_frame: int, anchor: bytes, flushed: int) -> WalPoint:
    return WalPoint(dev, ino, salts, mx_frame, anchor, flushed=bool(flushed))


def _optional(form: struct.Struct, value: tuple[object, ...] | None) -> bytes:
    return b"\0" if value is None else b"\1" + form.pack(*value)


def _take(raw: bytes, at: int, form: struct.Struct) -> tuple[tuple[Any, ...] | None, int]:
    if raw[at] == 0:
        return None, at + 1
    return form.unpack_from(raw, at + 1), at + 1 + form.size
