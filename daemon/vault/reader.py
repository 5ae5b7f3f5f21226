"""Reading an unlocked vault from its providers: streams, snapshots, layers, blobs.

Everything returned was authenticated, from the vault's keys down: certificate, signature of the manifest, ids of the
blobs. What was damaged, missing or forged on the way is in the findings, also where another copy made up for it.
What the newest checkpoint lets go is neither: a sweep may take it away at any moment, also from under a reader.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from chatkeep.daemon.keys.holding import OpeningKey
from chatkeep.daemon.vault.blob import BlobKind, BlobRef, IdKeys
from chatkeep.daemon.vault.copies import Findings, note
from chatkeep.daemon.vault.devices import RemovedDevice
from chatkeep.daemon.vault.epoch import DeviceCert, EpochRecord
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    Malformed,
    SnapshotPruned,
    Unreadable,
    VaultError,
    VaultLocked,
)
from chatkeep.daemon.vault.lives import Lives
from chatkeep.daemon.vault.manifest import Header, Manifest, StackLayer, VerifiedManifest, open_manifest
from chatkeep.daemon.vault.names import ManifestName, PackName, stream_prefix, streams_prefix
from chatkeep.daemon.vault.pack_reader import PackReader
from chatkeep.daemon.vault.preference import in_order
from chatkeep.daemon.vault.snapshots import SnapshotChain, Stream, list_manifests
from chatkeep.providers.base import ObjectNotFound, Provider, ProviderError

MOST_OPEN_PACKS: Final = 256
"""Packs whose directory is kept: opening one again costs a request. A directory has some kilobytes."""
MOST_OPEN_ENTRIES: Final = 1 << 19
"""Entries in all of these directories, which can be made of 65535 each: some 120 MB."""


class Unlocked(Protocol):
    """What reading needs of an unlocked vault; `chatkeep.daemon.vault.unlocked` has it."""

    @property
    def vault_id(self) -> bytes:
        """The vault."""

    @property
    def devices(self) -> Mapping[bytes, DeviceCert]:
        """Certificates of the devices that write, by device id."""

    @property
    def removed(self) -> Mapping[bytes, RemovedDevice]:
        """Devices that were removed: what they wrote before still counts."""

    @property
    def records(self) -> Sequence[EpochRecord]:
        """The verified epoch records, 1 to the newest."""

    def opener(self, epoch: int, key_id: bytes) -> OpeningKey:
        """The key of an epoch. Raises `UnknownKey`, `VaultLocked`."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot whose manifest was verified and opened.

    Attributes:
        name: of the manifest.
        header: what it says in the clear.
        manifest: what it says.
        ids: the keys for the ids of its device's blobs.
    """

    name: ManifestName
    header: Header
    manifest: Manifest
    ids: IdKeys


class VaultReader:
    """Reads one vault. Threads may share it; each generator belongs to one thread.

    Args:
        providers: where the vault is, in the order they are asked; at least one.
        unlocked: its keys and devices.

    Attributes:
        findings: what was wrong with listings and packs. A chain has its own.
        lives: which snapshots live.
    """

    def __init__(self, providers: Sequence[Provider], unlocked: Unlocked) -> None:
        if not providers:
            raise AssertionError("a vault is read from at least one provider")
        self._providers: Final = tuple(providers)
        self._unlocked: Final = unlocked
        self._packs: Final[OrderedDict[tuple[int, PackName], PackReader]] = OrderedDict()
        self._entries = 0
        self._lock: Final = threading.Lock()
        self._doubted: Final[set[tuple[ManifestName, PackName]]] = set()
        self.findings: Final = Findings()
        self.lives: Final = Lives(self._providers, unlocked.records, unlocked.removed, self.findings)

    def streams(self) -> list[Stream]:
        """The streams of all devices, removed ones included, in order: those that the providers together list, and
        those that a checkpoint or the newest epoch record names.

        Raises:
            ProviderError: no provider could be asked.
        """
        found: list[Stream] = []
        for device_id in self._unlocked.devices:
            listed = list_manifests(self._providers, streams_prefix(device_id), self.findings)
            found += self.lives.streams(device_id, listed)
        for device_id in self._unlocked.removed:  # nothing that storage lists of them counts by being there
            found += self.lives.streams(device_id, ())
        return sorted(found)

    def chain(self, stream: Stream) -> SnapshotChain:
        """The manifests of a stream, to be walked.

        Raises:
            AuthenticationFailed: no certificate for this device.
            ProviderError: no provider could be asked.
        """
        demand = self.lives.demand(stream)
        cert = self._unlocked.devices.get(stream.device_id)
        listed: dict[int, set[bytes]] = {}
        if cert is not None:
            prefix = stream_prefix(stream.device_id, stream.stream_id)
            listed = list_manifests(self._providers, prefix, self.findings).get(stream.stream_id, {})
        elif stream.device_id in self._unlocked.removed:
            cert = self._unlocked.removed[stream.device_id].certificate
        else:
            raise AuthenticationFailed(what="device", reason="unknown", device=stream.device_id.hex())
        renew = functools.partial(self.lives.demand_again, stream)
        return SnapshotChain(self._providers, stream, cert, listed, demand, renew)

    def open(self, verified: VerifiedManifest) -> Snapshot:
        """Opens a manifest. Raises as `manifest.open_manifest` does, and `VaultLocked`."""
        header = verified.header
        manifest = open_manifest(verified, self._unlocked.opener(header.epoch, header.key_id))
        return Snapshot(verified.name, header, manifest, manifest.ids())

    def snapshots(self, chain: SnapshotChain) -> Iterator[Snapshot]:
        """Yields the snapshots of a chain, newest first, each fetched and opened when it is drawn.

        A manifest that does not open is a finding of the chain and passed over; one that is later than the one after
        it is a finding.
        """
        after: Snapshot | None = None
        for verified in chain.walk():
            try:
                snapshot = self.open(verified)
            except VaultLocked:
                raise
            except VaultError as exc:
                chain.findings.add(exc, name=str(verified.name))
                continue
            if after is not None and snapshot.manifest.time > after.manifest.time:
                chain.findings.add(Malformed(what="manifest", reason="time", name=str(verified.name)))
            after = snapshot
            yield snapshot

    def fetch_parts(self, snapshot: Snapshot, layer: StackLayer) -> Iterator[tuple[BlobRef, bytes]]:
        """Yields the parts of a layer in their order. Raises as `fetch_blobs` does."""
        run: list[BlobRef] = []
        for part in layer.parts:
            if run and (part.pack != run[-1].pack or part.slot <= run[-1].slot):
                yield from self.fetch_blobs(snapshot, BlobKind.LAYER, run)
                run = []
            run.append(part)
        yield from self.fetch_blobs(snapshot, BlobKind.LAYER, run)

    def fetch_blobs(
        self, snapshot: Snapshot, kind: BlobKind, refs: Iterable[BlobRef]
    ) -> Iterator[tuple[BlobRef, bytes]]:
        """Yields (reference, plaintext) for each distinct reference: pack by pack, in a pack in the order of slots.

        A blob that one provider does not return whole is taken from the next, and told in `findings`.

        Raises:
            SnapshotPruned: a pack is gone, and by right: this snapshot was pruned since it was found.
            Unreadable: no provider has the blob whole.
            VaultLocked: the keys were wiped.
        """
        by_pack: dict[bytes, dict[int, BlobRef]] = {}
        for ref in refs:
            if by_pack.setdefault(ref.pack, {}).setdefault(ref.slot, ref) != ref:
                # Two ids for one blob: one of the references is wrong, whatever the pack holds.
                name = str(PackName(snapshot.header.device_id, ref.pack))
                raise Unreadable(name=name, slot=ref.slot, reasons={})
        for pack, wanted in by_pack.items():
            yield from self._fetch_from(PackName(snapshot.header.device_id, pack), wanted, kind, snapshot)

    def open_pack(self, number: int, name: PackName) -> PackReader:
        """A pack at one provider, by its number in the order given. Raises as `PackReader` does."""
        with self._lock:
            reader = self._packs.get((number, name))
            if reader is not None:
                self._packs.move_to_end((number, name))
                return reader
        provider = self._providers[number]

        def fetch(offset: int, length: int | None) -> bytes:
            return provider.get(str(name), offset, length)

        # Outside the lock: opening is a request. Two threads may open the same pack, which costs one more.
        reader = PackReader(fetch, name, self._unlocked.vault_id, self._unlocked.opener)
        with self._lock:
            self._entries -= self._packs[number, name].count if (number, name) in self._packs else 0
            self._packs[number, name] = reader
            self._entries += reader.count
            while len(self._packs) > MOST_OPEN_PACKS or (self._entries > MOST_OPEN_ENTRIES and len(self._packs) > 1):
                self._entries -= self._packs.popitem(last=False)[1].count
        return reader

    def _fetch_from(
        self, name: PackName, wanted: dict[int, BlobRef], kind: BlobKind, snapshot: Snapshot
    ) -> Iterator[tuple[BlobRef, bytes]]:
        reasons: dict[str, str] = {}
        idle = 0
        pruned = damaged = False
        # Round and round, since each provider may have lost another blob of the pack; until none brings anything.
        for number in itertools.cycle(in_order(self._providers)):
            before = len(wanted)
            try:
                reader = self.open_pack(number, name)
                for slot, content in reader.read_many(
                    kind, [(ref.slot, ref.id) for ref in wanted.values()], snapshot.ids
                ):
                    yield wanted.pop(slot), content
                return
            except VaultLocked:
                raise
            except (VaultError, ProviderError) as exc:
                reasons[self._providers[number].name] = exc.code
                # What was damaged on the way is not when it is asked for again, and it may be the only copy.
                damaged = damaged or isinstance(exc, VaultError)
                gone = isinstance(exc, ObjectNotFound)
                pruned = pruned or (gone and self._pruned_since(snapshot, name))
                if not (gone and pruned):  # what was swept at one provider may be read at another: no finding
                    note(self.findings, exc, self._providers[number], name)
            idle = 0 if len(wanted) < before else idle + 1
            if idle >= len(self._providers) * (2 if damaged else 1):
                if pruned:
                    raise SnapshotPruned(name=str(snapshot.name), seq=snapshot.header.seq)
                raise Unreadable(name=str(name), slot=min(wanted), reasons=reasons)

    def _pruned_since(self, snapshot: Snapshot, missing: PackName) -> bool:
        """Whether a checkpoint that came since the snapshot was found lets it go: then no pack of it must be there."""
        stream = Stream(snapshot.header.device_id, snapshot.header.stream_id)
        with self._lock:
            doubted = (snapshot.name, missing) in self._doubted
            self._doubted.add((snapshot.name, missing))
        # Once a pack: the checkpoint is there before anything is deleted, and one blob after the other is asked for.
        demand = self.lives.demand(stream) if doubted else self.lives.demand_again(stream)
        return demand.pruned(snapshot.header.seq, snapshot.name.sha256)
