"""The bytes of a checkpoint (docs/format.md, section 14), and the rules that its lists keep. Pure.

Of a checkpoint's signature, and whether it counts, `checkpoint` knows.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from chatkeep.daemon.keys.secret import Buffer
from chatkeep.daemon.vault.errors import Malformed, UnsupportedVersion
from chatkeep.daemon.vault.labels import CHECKPOINT_MAGIC, HASH_SIZE, MAX_CHECKPOINT, SIGNATURE_SIZE
from chatkeep.daemon.vault.names import MAX_SEQ

NO_PREVIOUS: Final = bytes(HASH_SIZE)

_HEAD: Final = struct.Struct(">8s16sI16s16sQ32sQ")
_COUNT: Final = struct.Struct(">I")
_STREAM: Final = struct.Struct(">16sQ32s")
_SNAPSHOT: Final = struct.Struct(">Q32s")
_MANIFEST: Final = struct.Struct(">16sQ32s")
_PACK: Final = struct.Struct(">32s")
_LEAST: Final = _HEAD.size + 4 * _COUNT.size + SIGNATURE_SIZE
_MOST_TIME: Final = (1 << 63) - 1


class SnapshotId(NamedTuple):
    """A snapshot of a stream: its number, and the hash of its manifest."""

    seq: int
    sha256: bytes


class StreamKept(NamedTuple):
    """What lives of one stream: up to `through` exactly the snapshots `kept`, in ascending order; above it all."""

    stream_id: bytes
    through: SnapshotId
    kept: tuple[SnapshotId, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says. Everything in ascending order, nothing twice.

    Attributes:
        number: from 1, rising by 1.
        prev: hash of the checkpoint before; zeros for the first.
        time: nanoseconds since 1970 UTC.
        streams: every stream this device ever pruned.
        condemned_manifests: (stream id, snapshot) that this checkpoint condemns anew; so `condemned_packs`, hashes.
    """

    number: int
    prev: bytes
    time: int
    streams: tuple[StreamKept, ...]
    condemned_manifests: tuple[tuple[bytes, SnapshotId], ...] = ()
    condemned_packs: tuple[bytes, ...] = ()


class CheckpointHead(NamedTuple):
    """What a checkpoint begins with, behind its magic number. Nothing of it is verified."""

    vault_id: bytes
    epoch: int
    key_id: bytes
    device_id: bytes
    number: int
    prev: bytes
    time: int

    @classmethod
    def parse(cls, raw: Buffer) -> Self:
        """Of a whole object. Raises `Malformed` or `UnsupportedVersion`."""
        if not _LEAST <= len(raw) <= MAX_CHECKPOINT:
            raise Malformed(what="checkpoint", reason="size")
        magic, *fields = _HEAD.unpack_from(raw)
        if magic != CHECKPOINT_MAGIC:
            if magic[:-1] == CHECKPOINT_MAGIC[:-1]:
                raise UnsupportedVersion(what="checkpoint", version=magic[-1])
            raise Malformed(what="checkpoint", reason="no-header")
        return cls(*fields)


def encode(checkpoint: Checkpoint, vault_id: bytes, epoch: int, key_id: bytes, device_id: bytes) -> bytes:
    """All of the object but its signature. Raises `Malformed` when the checkpoint breaks a rule or is too long."""
    check_rules(checkpoint)
    number, prev, time = checkpoint.number, checkpoint.prev, checkpoint.time
    parts = [_HEAD.pack(CHECKPOINT_MAGIC, vault_id, epoch, key_id, device_id, number, prev, time)]
    parts.append(_COUNT.pack(len(checkpoint.streams)))
    for stream_id, through, kept in checkpoint.streams:
        parts += [_STREAM.pack(stream_id, *through), _COUNT.pack(len(kept))]
        parts += [_SNAPSHOT.pack(*one) for one in kept]
    parts.append(_COUNT.pack(len(checkpoint.condemned_manifests)))
    parts += [_MANIFEST.pack(stream_id, *one) for stream_id, one in checkpoint.condemned_manifests]
    parts.append(_COUNT.pack(len(checkpoint.condemned_packs)))
    parts += [_PACK.pack(sha256) for sha256 in checkpoint.condemned_packs]
    signed = b"".join((*parts, _COUNT.pack(0)))
    if len(signed) + SIGNATURE_SIZE > MAX_CHECKPOINT:
        raise Malformed(what="checkpoint", reason="too-long")
    return signed


def decode(raw: bytes) -> Checkpoint:
    """What a whole object says, every rule checked; its signature is not looked at.

    Raises `Malformed` or `UnsupportedVersion`.
    """
    head = CheckpointHead.parse(raw)
    lists = _Lists(memoryview(raw)[_HEAD.size : -SIGNATURE_SIZE])
    streams = []
    for _ in range(lists.count()):  # each takes bytes, so no more turns than there are bytes
        stream_id, seq, sha256 = lists.one(_STREAM)
        kept = tuple(map(SnapshotId._make, _SNAPSHOT.iter_unpack(lists.rows(_SNAPSHOT))))
        streams.append(StreamKept(stream_id, SnapshotId(seq, sha256), kept))
    rows = _MANIFEST.iter_unpack(lists.rows(_MANIFEST))
    manifests = tuple((stream_id, SnapshotId(seq, sha256)) for stream_id, seq, sha256 in rows)
    packs = tuple(sha256 for (sha256,) in _PACK.iter_unpack(lists.rows(_PACK)))
    if lists.count():
        raise Malformed(what="checkpoint", reason="reserved")
    lists.end()
    checkpoint = Checkpoint(head.number, head.prev, head.time, tuple(streams), manifests, packs)
    check_rules(checkpoint)
    return checkpoint


def check_rules(checkpoint: Checkpoint) -> None:
    """What no list may contradict. Raises `Malformed`."""
    if not 1 <= checkpoint.number <= MAX_SEQ or not 0 <= checkpoint.time <= _MOST_TIME:
        raise Malformed(what="checkpoint", reason="number")
    if (checkpoint.prev == NO_PREVIOUS) != (checkpoint.number == 1):
        raise Malformed(what="checkpoint", reason="previous")
    _ascending([stream.stream_id for stream in checkpoint.streams])
    alive: dict[bytes, tuple[int, frozenset[SnapshotId]]] = {}
    for stream_id, through, kept in checkpoint.streams:
        _ascending([one.seq for one in kept])  # one of a number: two would be a fork, and a stream has one history
        last = kept[-1] if kept else through
        if not 1 <= through.seq <= MAX_SEQ or (kept and kept[0].seq < 1) or last.seq > through.seq:
            raise Malformed(what="checkpoint", reason="number")
        if last.seq == through.seq and last != through:
            raise Malformed(what="checkpoint", reason="through")
        alive[stream_id] = (through.seq, frozenset(kept))
    _ascending(checkpoint.condemned_manifests)
    _ascending(checkpoint.condemned_packs)
    for stream_id, one in checkpoint.condemned_manifests:
        through_seq, lives = alive.get(stream_id, (0, frozenset()))
        # Above `through` everything lives, and of a stream that is not named everything does.
        if not 1 <= one.seq <= through_seq or one in lives:
            raise Malformed(what="checkpoint", reason="condemned")


def _ascending(items: Sequence[Any]) -> None:
    if any(not one < other for one, other in itertools.pairwise(items)):
        raise Malformed(what="checkpoint", reason="order")


class _Lists:
    """The counted lists of a body, taken one by one. A count is believed only as far as there are bytes for it."""

    def __init__(self, body: memoryview) -> None:
        self._left = body

    def count(self) -> int:
        return int(_COUNT.unpack(self._take(_COUNT.size))[0])

    def one(self, record: struct.Struct) -> tuple[bytes, int, bytes]:
        stream_id, seq, sha256 = record.unpack(self._take(record.size))
        return stream_id, seq, sha256

    def rows(self, record: struct.Struct) -> memoryview:
        return self._take(self.count() * record.size)

    def end(self) -> None:
        if len(self._left):
            raise Malformed(what="checkpoint", reason="too-long")

    def _take(self, size: int) -> memoryview:
        if size > len(self._left):
            raise Malformed(what="checkpoint", reason="too-short")
        taken, self._left = self._left[:size], self._left[size:]
        return taken
