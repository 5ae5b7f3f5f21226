"""What must be there of a stream, whatever storage lists (docs/format.md, sections 13 and 14). Pure."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from chatkeep.daemon.vault.checkpoint import SnapshotId, StreamKept, VerifiedCheckpoint
from chatkeep.daemon.vault.epoch import DeviceEntry


@dataclass(frozen=True, slots=True)
class Demand:
    """What the newest checkpoint and the newest epoch record say of one stream; by default nothing.

    Attributes:
        through: up to this number exactly the snapshots in `kept` live; above it every one does.
        heads: what the chain above `through` may stand on: hashes of that number. More than one only after a fork.
        kept: hashes by number. Those above `through` are of a rival checkpoint, and live too.
        top: the newest snapshot that the epoch record knows of, if it is above `through`.
        closed: of a removed device: nothing lives but what `kept` names, `top`, and what `top` stands on.
    """

    through: int = 0
    heads: frozenset[bytes] = frozenset()
    kept: Mapping[int, frozenset[bytes]] = field(default_factory=dict)
    top: SnapshotId | None = None
    closed: bool = False
    _numbers: tuple[int, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numbers", tuple(sorted(self.kept)))

    def at(self, seq: int) -> frozenset[bytes]:
        """The hashes demanded of this number, apart from what the snapshot after it names."""
        named = self.kept.get(seq, frozenset())
        return named | {self.top.sha256} if self.top is not None and self.top.seq == seq else named

    def kept_below(self, seq: int) -> int:
        """The highest number below this one of which a snapshot is kept; 0 for none."""
        place = bisect.bisect_left(self._numbers, seq)
        return self._numbers[place - 1] if place else 0

    def below(self, seq: int) -> int:
        """The highest number below this one, and above `through`, of which something is demanded by itself; 0: none."""
        found = self.kept_below(seq)
        if self.top is not None and found < self.top.seq < seq:
            found = self.top.seq
        return found if found > self.through else 0

    def pruned(self, seq: int, sha256: bytes) -> bool:
        """Whether this snapshot need not be there any more."""
        return seq <= self.through and sha256 not in self.kept.get(seq, frozenset())


def demand_of(
    stream_id: bytes, checkpoint: VerifiedCheckpoint | None, entry: DeviceEntry | None, *, removed: bool
) -> Demand:
    """What must be there of a stream.

    Args:
        checkpoint: the device's newest that counts, with its rivals.
        entry: what the newest epoch record says of the device.
        removed: whether the device was removed; of a stream that its entry does not name nothing counts then.
    """
    head = None if entry is None else entry.heads.get(stream_id)
    top = None if head is None else SnapshotId(head.seq, head.sha256)
    rows = [] if checkpoint is None else [_row(one, stream_id) for one in (checkpoint, *checkpoint.rivals)]
    named = [row for row in rows if row is not None]
    # Of a fork each side counts for what lives: the lower `through`, and nothing pruned that one of them never did.
    settled = checkpoint is not None and checkpoint.lets_go and len(named) == len(rows)
    through = min((row.through.seq for row in named), default=0) if settled else 0
    kept: dict[int, frozenset[bytes]] = {}
    for row in named:
        for seq, sha256 in row.kept:
            if not removed or (top is not None and seq <= top.seq):
                kept[seq] = kept.get(seq, frozenset()) | {sha256}
    return Demand(
        through=through,
        heads=frozenset(row.through.sha256 for row in named if row.through.seq == through),
        kept=kept,
        top=top if top is not None and top.seq > through else None,
        closed=removed,
    )


def streams_of(
    listed: Iterable[bytes], checkpoint: VerifiedCheckpoint | None, entry: DeviceEntry | None, *, removed: bool
) -> list[bytes]:
    """The streams of a device, in order: those that storage lists, and those of which something must be there."""
    if removed:
        return [] if entry is None else sorted(entry.heads)
    found = set(listed) | (set() if entry is None else entry.heads.keys())
    for one in () if checkpoint is None else (checkpoint, *checkpoint.rivals):
        found |= {row.stream_id for row in one.checkpoint.streams if row.kept}
    return sorted(found)


def _row(one: VerifiedCheckpoint, stream_id: bytes) -> StreamKept | None:
    return next((row for row in one.checkpoint.streams if row.stream_id == stream_id), None)
