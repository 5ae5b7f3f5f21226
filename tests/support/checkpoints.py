"""Checkpoints for tests: signed ones, and names of what they speak of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from chatkeep.daemon.keys.root import EpochKeys
from chatkeep.daemon.vault.checkpoint import Checkpoint, SnapshotId, StreamKept, sign_checkpoint
from chatkeep.daemon.vault.epoch import EpochRecord
from chatkeep.daemon.vault.names import CheckpointName, ManifestName

NOW = 1_800_000_000_000_000_000


def snapshot(seq: int) -> SnapshotId:
    """A snapshot of this number, with a hash of its own."""
    return SnapshotId(seq, hashlib.sha256(b"%d" % seq).digest())


def kept(stream_id: bytes, through: int, *seqs: int) -> StreamKept:
    """A stream of such snapshots."""
    return StreamKept(stream_id, snapshot(through), tuple(map(snapshot, seqs)))


def keeping(chain: Iterable[ManifestName], through: int, seqs: Iterable[int]) -> StreamKept:
    """The checkpoint row of a real chain of one stream: of its numbers up to `through` these live."""
    hashes: Mapping[int, ManifestName] = {name.seq: name for name in chain}
    ids = [SnapshotId(seq, hashes[seq].sha256) for seq in sorted(seqs)]
    return StreamKept(hashes[through].stream_id, SnapshotId(through, hashes[through].sha256), tuple(ids))


def checkpoint(number: int, *streams: StreamKept, prev: bytes | None = None, **fields: object) -> Checkpoint:
    """A checkpoint; the one before is made up unless given."""
    before = bytes(32) if number == 1 else b"b" * 32
    return Checkpoint(number, before if prev is None else prev, NOW, tuple(streams), **fields)  # type: ignore[arg-type]


def signed(made: Checkpoint, device_id: bytes, record: EpochRecord, keys: EpochKeys) -> tuple[CheckpointName, bytes]:
    """Name and bytes of the object."""
    raw = sign_checkpoint(made, device_id, record, keys.checkpoint)
    return CheckpointName(device_id, made.number, hashlib.sha256(raw).digest()), raw
