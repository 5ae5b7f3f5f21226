"""What the vault has of this device, read back with the vault's key after the records of it were lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.backup.anew import end_without_trace, of_contents, of_sections
from chatkeep.daemon.backup.whereabouts import Whereabouts
from chatkeep.daemon.state import KnownBlob, State
from chatkeep.daemon.state.arrivals import FoundPack
from chatkeep.daemon.vault.errors import SnapshotPruned, VaultError, VaultLocked
from chatkeep.daemon.vault.layers import Layer
from chatkeep.daemon.vault.manifest import StackLayer
from chatkeep.daemon.vault.names import PackName
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.resolve import gather
from chatkeep.daemon.vault.room import Room
from chatkeep.daemon.vault.stack import read_layer
from chatkeep.providers.base import Provider

Step: TypeAlias = Callable[[int, int], None]
Before: TypeAlias = Mapping[bytes, tuple[str, int, bytes, int]]
"""Packs on record by hash: name, size, stream, seq."""


@dataclass
class Rebuilt:
    """What was found.

    Attributes:
        streams: chains of this device that have a snapshot.
        blobs, content: what need not be sent again, distinct blobs and their bytes before compression.
        lacking: blobs that the newest snapshots have and that not every provider has.
        findings: what was wrong in storage.
    """

    streams: list[bytes] = field(default_factory=list)
    blobs: int = 0
    content: int = 0
    lacking: int = 0
    findings: list[ChatkeepError] = field(default_factory=list)


def rebuild(
    state: State,
    reader: VaultReader,
    providers: Sequence[Provider],
    device_id: bytes,
    step: Step = lambda done, total: None,  # noqa: ARG005  # nobody watches
) -> Rebuilt:
    """Fills what is known of the vault from the newest snapshot of every chain of this device, and ends its chains: the
    next backup begins new ones, and refers to what is there. Who has which pack that some snapshot needs is noted too.

    A blob counts as there when each of `providers`, all that are configured, has its pack: by its own word, or, while
    it cannot be asked, by the receipts that the records still have.

    Raises:
        ProviderError: one cannot be asked, and there are no receipts of it.
        StateError; VaultError: as unlocking and reading do. Then nothing was changed.
    """
    where = Whereabouts(state, providers, device_id)
    found = Rebuilt()
    read = _Read(reader, found)
    own = [stream for stream in reader.streams() if stream.device_id == device_id]
    for number, stream in enumerate(own):
        step(number, len(own))
        chain = reader.chain(stream)
        newest = True
        for snapshot in reader.snapshots(chain):
            if read.snapshot(snapshot, newest=newest) and newest:
                found.streams.append(stream.stream_id)
                newest = False
        found.findings += chain.findings
        read.complete &= not len(chain.findings)
    found.findings += reader.findings
    newest_checkpoint = reader.lives.checkpoint(device_id)
    condemned = (
        set() if newest_checkpoint is None else set(newest_checkpoint.checkpoint.condemned_packs) - read.needed.keys()
    )
    useful = (read.needed.keys() | {blob.pack for blob in read.blobs}) - condemned
    before = state.pruning.arrivals.left()
    if not read.complete:  # then nothing on record is known to be of no use
        useful |= before.keys() - condemned
    # Nobody has it and no snapshot needs it: it was pruned, by a checkpoint that may be gone by now.
    idle = before.keys() - useful if where.all_asked else set()
    gone = [before[sha256][0] for sha256 in idle if not where.having(sha256) and where.all_asked]
    everywhere = {sha256 for sha256 in useful if len(where.having(sha256)) == len(providers)} - state.known.refused()
    known = {blob: size for blob, size in read.blobs.items() if blob.pack in everywhere}
    # What no snapshot needs, and only some have, is no loss: nobody may be said to lack it.
    lasting = useful if not read.complete else everywhere | read.needed.keys()
    packs = [_pack(where, read, sha256, before, device_id) for sha256 in sorted(lasting)]
    end_without_trace(state, state.lineage.active())
    state.pruning.arrivals.restate([one for one in packs if one.providers], gone, time.time_ns())
    state.known.add(known)
    found.blobs, found.content, found.lacking = len(known), sum(known.values()), len(read.blobs) - len(known)
    return found


class _Read:
    """What the snapshots of this device refer to, as they are read, newest first.

    Attributes:
        blobs: of the newest snapshots, with sizes.
        needed: packs that some snapshot needs, and one that it came with, or that needs it.
        complete: whether every snapshot could be read.
    """

    def __init__(self, reader: VaultReader, found: Rebuilt) -> None:
        self._reader: Final = reader
        self._found: Final = found
        self._layers: dict[StackLayer, Layer] = {}
        self.blobs: Final[dict[KnownBlob, int]] = {}
        self.needed: Final[dict[bytes, tuple[bytes, int]]] = {}
        self.complete = True

    def snapshot(self, snapshot: Snapshot, *, newest: bool) -> bool:
        """Takes one in; False when it cannot be read to the end: of blobs the one before has as much."""
        stack, room = snapshot.manifest.stack, Room()
        try:
            # Neighbours have most of their layers in common; those of one snapshot are in memory, not those of all.
            self._layers = {
                layer: self._layers.get(layer) or read_layer(self._reader, snapshot, layer, room) for layer in stack
            }
        except VaultLocked:
            raise
        except SnapshotPruned:
            return False  # while it was read: it needs nothing any more
        except VaultError as exc:
            self._found.findings.append(exc)
            self.complete = False
            return False
        if newest:
            for layer in self._layers.values():
                self.blobs.update(_sized(layer))
        place = (snapshot.name.stream_id, snapshot.name.seq)
        came = {pack.sha256 for pack in snapshot.manifest.packs}
        for sha256 in {part.pack for layer in stack for part in layer.parts} | set(_content(self._layers.values())):
            if sha256 in came or sha256 not in self.needed:
                self.needed[sha256] = place
        return True


def _content(layers: Iterable[Layer]) -> Iterator[bytes]:
    """The packs that the content of a snapshot is in; not what only older layers say of a file, or say of none."""
    gathered = gather(layers)
    for file_id in {file_id for file_id in gathered.paths.values() if file_id is not None}:
        shown = Layer(
            contents=tuple(gathered.contents.get(file_id, ())), sections=tuple(gathered.sections.get(file_id, ()))
        )
        yield from (blob.pack for blob in (*of_contents(shown), *of_sections(shown)))


def _pack(where: Whereabouts, read: _Read, sha256: bytes, before: Before, device_id: bytes) -> FoundPack:
    """Who has a useful pack. What was acknowledged, is needed and gone stays expected of who had it: that is a loss."""
    name, size, stream, seq = before.get(sha256, (str(PackName(device_id, sha256)), 0, b"", 0))
    stream, seq = read.needed.get(sha256, (stream, seq))
    lost = where.acknowledged(sha256) if sha256 in read.needed or not read.complete else ()
    who = sorted({*where.having(sha256), *lost})
    return FoundPack(name, sha256, size or where.size(sha256), stream, seq, who)


def _sized(layer: Layer) -> dict[KnownBlob, int]:
    chunks = [extent.length for one in layer.contents for extent in one.extents if extent.reference is not None]
    pages = [run.count * section.page_size for section in layer.sections for run in section.runs]
    sized = dict(zip(of_contents(layer), chunks, strict=True))
    return sized | dict(zip(of_sections(layer), pages, strict=True))
