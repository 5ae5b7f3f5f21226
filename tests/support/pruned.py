"""A stream that is pruned, epochs that end, and what a reader makes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.vault.checkpoint import Checkpoint, StreamKept, sign_checkpoint
from chatkeep.daemon.vault.devices import RemovedDevice
from chatkeep.daemon.vault.epoch import DeviceEntry, EpochRecord, Head, create_record
from chatkeep.daemon.vault.names import CheckpointName, DeviceName, ManifestName, VaultName
from chatkeep.daemon.vault.reader import VaultReader
from chatkeep.daemon.vault.snapshots import SnapshotChain, Stream
from chatkeep.daemon.verify.scrub import scrub
from chatkeep.providers.base import Provider
from tests import independent_reader
from tests.support.checkpoints import NOW, keeping
from tests.support.independent import Objects, opened
from tests.support.manifests import Keys, TestVault, make_chain
from tests.support.memory_provider import MemoryProvider

STREAM = b"stream-of-a-test"
Told = list[tuple[str, object]]


class PrunedVault:
    """One device, one stream of manifests, at one provider or several, and every epoch's keys."""

    def __init__(self, vault: TestVault, count: int, *providers: str) -> None:
        self.vault = vault
        self.device_id = vault.credential.device_id
        self.stream = Stream(self.device_id, STREAM)
        self.providers = [MemoryProvider(name) for name in providers or ("a",)]
        self.chain = make_chain(vault, STREAM, count)
        self.keys: list[EpochKeys] = [vault.keys]
        self.records: list[EpochRecord] = [vault.record]
        self.checkpoints: list[CheckpointName] = []
        self.removed: dict[bytes, RemovedDevice] = {}
        marker = b'{"chatkeep":1,"vault":"%s"}\n' % vault.vault_id.hex().encode()
        self.put({str(VaultName(vault.vault_id)): marker, str(DeviceName(self.device_id)): vault.cert.raw})
        self.put({str(vault.record.name): vault.record.raw})
        self.put({str(name): raw for name, raw in self.chain.items()})

    @property
    def provider(self) -> MemoryProvider:
        """The only one."""
        (one,) = self.providers
        return one

    def put(self, objects: Mapping[str, bytes]) -> None:
        """At every provider."""
        for provider in self.providers:
            provider.objects.update(objects)

    def name(self, seq: int) -> ManifestName:
        """Of a manifest of the stream."""
        return next(name for name in self.chain if name.seq == seq)

    def head(self, seq: int) -> Head:
        """As an epoch record names it."""
        return Head(seq, self.name(seq).sha256)

    # -- what the vault does

    def sign(self, made: Checkpoint, epoch: int = 0, device_id: bytes | None = None) -> tuple[CheckpointName, bytes]:
        """A checkpoint by the key of an epoch (0: the newest), not stored."""
        owner = device_id or self.device_id
        raw = sign_checkpoint(made, owner, self.records[epoch - 1], self.keys[epoch - 1].checkpoint)
        return CheckpointName(owner, made.number, hashlib.sha256(raw).digest()), raw

    def checkpoint(self, through: int, seqs: Iterable[int], **fields: object) -> Checkpoint:
        """The next one: of the numbers up to `through` these live."""
        return self.say(keeping(self.chain, through, seqs), **fields)

    def say(self, *rows: StreamKept, **fields: object) -> Checkpoint:
        """The next checkpoint, with these rows."""
        number = self.checkpoints[-1].number + 1 if self.checkpoints else 1
        prev = self.checkpoints[-1].sha256 if self.checkpoints else bytes(32)
        usual: dict[str, object] = {"number": number, "prev": prev, "time": NOW, "streams": rows}
        return Checkpoint(**(usual | fields))  # type: ignore[arg-type]

    def prune(self, through: int, *seqs: int, sweep: bool = True) -> CheckpointName:
        """What prune does: a checkpoint at every provider, then the manifests that it does not keep go."""
        name, raw = self.sign(self.checkpoint(through, seqs))
        self.put({str(name): raw})
        self.checkpoints.append(name)
        if sweep:
            self.drop(*(one.seq for one in self.chain if one.seq <= through and one.seq not in seqs))
        return name

    def drop(self, *seqs: int) -> None:
        """Take manifests out of every provider."""
        for provider in self.providers:
            for name in self.chain:
                if name.seq in seqs:
                    provider.objects.pop(str(name), None)

    def rotate(self, heads: Mapping[bytes, Head], checkpoint: CheckpointName | None, *, remove: bool = False) -> None:
        """A new epoch, whose record says this of the device."""
        keys = EpochKeys(RootSecret.generate())
        last = None if checkpoint is None else Head(checkpoint.number, checkpoint.sha256)
        entry = DeviceEntry(self.vault.cert.sha256, heads, last)
        entries = {self.device_id: entry}
        record = create_record(
            keys,
            self.vault.vault_id,
            (self.records[-1], self.keys[-1]),
            devices={} if remove else entries,
            removed=entries if remove else {},
        )
        self.keys.append(keys)
        self.records.append(record)
        self.put({str(record.name): record.raw})
        if remove:
            self.removed = {self.device_id: RemovedDevice(self.vault.cert, entry)}

    # -- what is made of it

    def unlocked(self) -> Keys:
        """What a reader gets of the vault."""
        keys = Keys(self.vault)
        keys.records = tuple(self.records)
        keys.removed = self.removed
        if self.removed:
            keys.devices = {}
        return keys

    def reader(self, *providers: Provider) -> VaultReader:
        """A reader that has fetched nothing yet."""
        return VaultReader(providers or self.providers, self.unlocked())

    def walked(self, *providers: Provider) -> tuple[list[int], Told]:
        """The numbers a reader gets of the stream, newest first, and what it finds wrong."""
        reader = self.reader(*providers)
        if self.stream not in reader.streams():
            return [], told(reader.findings)
        chain: SnapshotChain = reader.chain(self.stream)
        seqs = [one.header.seq for one in chain.walk()]
        found = told((*reader.findings, *chain.findings))
        if not providers and [type(one) for one in self.providers] == [MemoryProvider]:
            self._walk_again(seqs, found)
        return seqs, found

    def _walk_again(self, seqs: list[int], found: Told) -> None:
        """The reader that shares no code with this one gets the same snapshots, and is as content."""
        roots = [bytes(keys.root.view()) for keys in self.keys]
        vault, notes = opened(Objects(self.provider.objects), self.vault.vault_id.hex(), roots)
        walked = [one.seq for one in independent_reader.snapshots(vault) if one.stream == STREAM.hex()]
        assert (walked, bool(notes)) == (seqs, bool(found)), (notes, found)

    def scrubbed(self) -> Told:
        """What is found without a key, at the only provider."""
        report = scrub(self.provider)
        assert report.vault_id == self.vault.vault_id
        assert (report.checked, report.foreign) == (report.objects, 0)
        return told(report.findings)


def told(findings: Iterable[ChatkeepError]) -> Told:
    """Findings as (code, what they are about)."""
    found: Told = []
    for one in findings:
        params = one.params
        about = (params["first"], params["last"]) if "first" in params else params.get("reason", params.get("seq"))
        found.append((one.code, about))
    return found


class Sweeping(MemoryProvider):
    """Storage in which something happens while somebody reads: at the pack read of number `at`, from 0."""

    def __init__(self, objects: Mapping[str, bytes], at: int, act: Callable[[MemoryProvider], None]) -> None:
        super().__init__()
        self.objects = dict(objects)
        self.reads = 0
        self.fired = 0
        self._at, self._act = at, act

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if "/p/" in name:
            if self.reads == self._at:
                self._act(self)
                self.fired += 1
            self.reads += 1
        return super().get(name, offset, length)
