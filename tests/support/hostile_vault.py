"""A small vault with a bit of everything, to be attacked; and the one question asked of every attack.

The vault: three epochs, two kinds of slots, two devices that write and one that was removed, four streams, folded
layers, a checkpoint with pruned snapshots. It is written by the product's own writers and read through its public way:
unlock, reader, plan, restore, verify.

The question: is what is read of it the truth, or an error, and was the attack noticed? `ask` answers it.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Source
from chatkeep.daemon.backup.run import back_up
from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.secret import SecretBytes
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import seal_envelope
from chatkeep.daemon.keys.strict_json import encode_b64
from chatkeep.daemon.restore.apply import Choices
from chatkeep.daemon.restore.browse import read_file
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.state import State
from chatkeep.daemon.sync.upload import release, upload
from chatkeep.daemon.vault.checkpoint import Checkpoint, SnapshotId, StreamKept, sign_checkpoint
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.epoch import (
    DeviceCert,
    DeviceEntry,
    EpochRecord,
    Head,
    ListedSlot,
    create_record,
)
from chatkeep.daemon.vault.layers import FileKind
from chatkeep.daemon.vault.manifest import Manifest
from chatkeep.daemon.vault.names import CheckpointName, DeviceName, ManifestName, VaultName, parse
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.snapshots import Stream
from chatkeep.daemon.vault.stack import read_tree
from chatkeep.daemon.vault.unlock import unlock
from chatkeep.daemon.vault.unlocked import UnlockedVault
from chatkeep.daemon.verify.scrub import scrub
from tests.support.memory_provider import MemoryProvider
from tests.support.restoring import unlock_directories
from tests.support.sources import HOUR, Clock, fill
from tests.support.vaults import Epochs, passphrase, recovery

CANARY = b"PLAINTEXT-OF-THE-USER"
"""In every file; in no error, ever."""

Shot = Mapping[bytes, tuple[object, ...]]
Place = tuple[bytes, bytes, int]  # device, stream, seq


def seeds_of(credential: WriterCredential) -> tuple[bytes, bytes]:
    """The two secrets of a device: what a thief of its credential has."""
    encoded = bytes(credential.encode())
    return encoded[-96:-64], encoded[-64:-32]


def pinned(credential: WriterCredential, record: EpochRecord) -> WriterCredential:
    """The same device, pinned to another epoch."""
    seed, id_key = seeds_of(credential)
    return WriterCredential(
        record.pin,
        record.public,
        record.checkpoint,
        credential.device_id,
        SecretBytes(bytearray(seed)),
        SecretBytes(bytearray(id_key)),
    )


@dataclass
class HostileVault:
    """The vault as it was made.

    Attributes:
        epochs: keys and records, for attacks by whoever has them.
        devices: credentials by name: `ana`, `ben`, and `gone`, which was removed in epoch 2.
        truth: what every snapshot that lives holds.
        history: what every snapshot that ever was held.
        objects: what storage holds.
    """

    directory: Path
    seed: int = 1
    provider: MemoryProvider = field(default_factory=MemoryProvider)
    devices: dict[str, WriterCredential] = field(default_factory=dict)
    truth: dict[Place, Shot] = field(default_factory=dict)
    history: dict[Place, Shot] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._manifests: dict[Stream, Mapping[int, Manifest]] = {}
        self.clock = Clock()
        self.epochs = Epochs(self.provider, self.seed)
        self.vault_id = self.epochs.vault_id
        self.provider.put(
            str(VaultName(self.vault_id)), b'{"chatkeep":1,"vault":"%s"}\n' % self.vault_id.hex().encode()
        )
        self.slot = self.epochs.add_slot(recovery())
        self.second_slot = self.epochs.add_slot(passphrase())
        for name in ("ana", "ben", "gone"):
            self._enrol(name)
        for name in ("ana", "ben", "gone"):
            self._source(name)
        self.back_up("ana")
        self.back_up("gone")
        self.rotate(keep=("ana", "ben"), remove=("gone",))
        self.clock.now += HOUR
        for _ in range(2):
            self.back_up("ana")
        self.back_up("ben")
        self.clock.now += HOUR
        self.back_up("ana")
        self.back_up("ana", "media")
        self.rotate(keep=("ana", "ben"), carry=("gone",))
        self.back_up("ana")
        self.back_up("ben")
        self._prune("ana")
        self.truth, usual = read_all(self.provider)
        usual += scrub(self.provider, self.vault_id).findings
        self.usual = {key_of(problem) for problem in usual}
        self.opened = unlock(self.provider, recovery())
        self.files = sum(len(shot) for shot in self.truth.values())
        self.objects = dict(self.provider.objects)

    # -- making it

    def _enrol(self, name: str) -> None:
        device_id = hashlib.sha256(name.encode()).digest()[:16]
        credential = WriterCredential.generate(self.epochs.records[-1], device_id)
        key = credential.device_key.public
        cert = DeviceCert.create(self.epochs.keys[-1], self.vault_id, len(self.epochs.keys), device_id, key)
        self.epochs.certs[device_id] = cert
        self.provider.put(str(DeviceName(device_id)), cert.raw)
        self.devices[name] = credential

    def _source(self, name: str) -> None:
        source = self.directory / f"source-{name}"
        (source / "media").mkdir(parents=True)
        chance = random.Random(name)
        (source / "note.txt").write_bytes(CANARY + name.encode())
        (source / "media" / "photo").write_bytes(CANARY + chance.randbytes(2000))
        (source / "media" / "link").symlink_to("photo")
        os.link(source / "note.txt", source / "media" / "again")
        fill(source / "messages.db", 20)

    def back_up(self, name: str, stream: str = "chat") -> None:
        """One more snapshot of a device, of a source that changed."""
        source = self.directory / f"source-{name}"
        count = len(os.listdir(source))
        (source / f"file-{count}").write_bytes(CANARY * count)
        fill(source / "messages.db", 5, count)
        credential = self.devices[name]
        with State.open(self.directory / f"state-{name}", self.vault_id, credential.device_id) as state:
            back_up(Writer(credential, state, clock=self.clock), Source(source, name=stream, exclude=()))
            assert not upload(state.outbox, self.provider).problems
            release(state.outbox, [self.provider.name])
        self.history |= read_all(self.provider)[0]

    def rotate(self, keep: tuple[str, ...], remove: tuple[str, ...] = (), carry: tuple[str, ...] = ()) -> EpochRecord:
        """A new epoch: slots and the devices of `keep` stay; `remove` goes, with its heads; `carry` went before."""
        keys = EpochKeys(RootSecret.generate())
        record = self.successor(keys, keep, remove, carry)
        self.epochs.keys.append(keys)
        self.epochs.records.append(record)
        self.epochs.put(record)
        for name in keep:
            self.devices[name] = pinned(self.devices[name], record)
        return record

    def successor(
        self,
        keys: EpochKeys,
        keep: tuple[str, ...] = ("ana", "ben"),
        remove: tuple[str, ...] = (),
        carry: tuple[str, ...] = ("gone",),
        slots: tuple[bytes, ...] | None = None,
        after: int = -1,
    ) -> EpochRecord:
        """A record that follows the record number `after` of the list; not stored."""
        previous, epoch = self.epochs.records[after], self.epochs.records[after].epoch + 1
        listed = {}
        for slot_id in (self.slot, self.second_slot) if slots is None else slots:
            slot = SlotFile.parse(self.epochs.slots[slot_id])
            listed[slot_id] = ListedSlot(
                slot.sha256, seal_envelope(keys.root, slot.public, self.vault_id, epoch, slot_id)
            )
        carried = {self.devices[name].device_id: previous.removed[self.devices[name].device_id] for name in carry}
        return create_record(
            keys,
            self.vault_id,
            (previous, self.epochs.keys[after]),
            listed,
            {self.devices[name].device_id: self.entry(name) for name in keep},
            carried | {self.devices[name].device_id: self.entry(name) for name in remove},
        )

    def resigned(self, record: EpochRecord, key: bytes, value: bytes) -> bytes:
        """A record with another base64 value, signed again by the epoch before."""
        line = record.raw.split(b"\n")[0]
        start = line.index(key) + len(key) + 1
        end = line.index(b'"', start)
        changed = line[:start] + encode_b64(value).encode() + line[end:]
        return sign_text("epoch", self.vault_id, [changed], self.epochs.keys[record.epoch - 2].sign)

    def entry(self, name: str) -> DeviceEntry:
        """What a record says of a device: its certificate and its newest manifests."""
        device_id = self.devices[name].device_id
        heads: dict[bytes, Head] = {}
        for found in self.manifests(name):
            heads[found.stream_id] = Head(found.seq, found.sha256)
        return DeviceEntry(self.epochs.certs[device_id].sha256, heads, None)

    def manifests(self, name: str) -> list[ManifestName]:
        """A device's manifests, by stream and number."""
        found = [parse(text) for text in sorted(self.provider.objects) if text.startswith("d/")]
        return [one for one in found if isinstance(one, ManifestName) and one.device_id == self.devices[name].device_id]

    def longest(self, name: str) -> bytes:
        """A device's stream with the most manifests."""
        streams = [one.stream_id for one in self.manifests(name)]
        return max(sorted(set(streams)), key=streams.count)

    def _prune(self, name: str) -> None:
        """A checkpoint that lets a snapshot in the middle go, and the sweep after it."""
        longest = self.checkpoint_stream = self.longest(name)
        chain = [SnapshotId(one.seq, one.sha256) for one in self.manifests(name) if one.stream_id == longest]
        head, gone = chain[-1], chain[1]
        assert len(chain) >= 4
        kept = tuple(one for one in chain if one != gone)
        self.checkpoints: list[CheckpointName] = []
        prev = bytes(32)
        for number, (through, live, condemned) in enumerate(
            ((chain[0], (chain[0],), ()), (head, kept, ((longest, gone),))), start=1
        ):
            checkpoint = Checkpoint(number, prev, self.clock(), (StreamKept(longest, through, live),), condemned)
            raw = sign_checkpoint(
                checkpoint,
                self.devices[name].device_id,
                self.epochs.records[-1],
                self.epochs.keys[-1].checkpoint,
            )
            prev = hashlib.sha256(raw).digest()
            self.checkpoints.append(CheckpointName(self.devices[name].device_id, number, prev))
            self.provider.put(str(self.checkpoints[-1]), raw)
        self.pruned = ManifestName(self.devices[name].device_id, longest, gone.seq, gone.sha256)
        self.pruned_raw = self.provider.objects.pop(str(self.pruned))

    # -- reading it

    def storage(self, changes: Mapping[str, bytes | None] | None = None) -> MemoryProvider:
        """Fresh storage with all of it, but for these changes; None takes an object away."""
        provider = MemoryProvider()
        provider.objects = dict(self.objects)
        for name, body in (changes or {}).items():
            if body is None:
                del provider.objects[name]
            else:
                provider.objects[name] = body
        return provider

    def names(self, kind: type) -> list[str]:
        """Names of the stored objects of a kind."""
        return [name for name in sorted(self.objects) if isinstance(parse(name), kind)]

    def true_manifests(self, stream: Stream) -> Mapping[int, Manifest]:
        """What every snapshot of a stream says."""
        if stream not in self._manifests:
            reader = VaultReader([self.storage()], self.opened)
            known = reader.snapshots(reader.chain(stream)) if stream in reader.streams() else ()
            self._manifests[stream] = {one.header.seq: one.manifest for one in known}
        return self._manifests[stream]

    def unlocked(self) -> UnlockedVault:
        """The vault as it is."""
        return unlock(self.storage(), recovery())


def read_all(
    provider: MemoryProvider, opened: UnlockedVault | None = None, forged: bytes | None = None, room: Path | None = None
) -> tuple[dict[Place, Shot], list[ChatkeepError]]:
    """All that can be read: of every snapshot, kind, mode, time, size and content of every path; and what was found.

    Snapshots of the stream `forged` are restored to `room` instead, and not returned.
    """
    vault = opened or unlock(provider, recovery())
    findings = [] if opened else list(vault.findings)
    reader = VaultReader([provider], vault)
    shots: dict[Place, Shot] = {}
    for stream in reader.streams():
        try:
            chain = reader.chain(stream)
            for snapshot in reader.snapshots(chain):
                place = (stream.device_id, stream.stream_id, snapshot.header.seq)
                if stream.stream_id == forged:
                    assert room is not None
                    findings += _restore(reader, snapshot, room)
                else:
                    shots[place] = _shot(reader, snapshot, findings)
            findings += list(chain.findings)
        except ChatkeepError as exc:
            findings.append(exc)
    findings += list(reader.findings)
    return {place: shot for place, shot in shots.items() if shot}, findings


def _restore(reader: VaultReader, snapshot: Snapshot, room: Path) -> list[ChatkeepError]:
    """Restores a forged snapshot, what can be of it; nothing beside the target may come of that."""
    room.mkdir(parents=True, exist_ok=True)
    try:
        made = plan(reader, snapshot)
        report = restore(reader, snapshot, made, os.fsencode(room / "out"), Choices(salvage=True))
        found = [*made.faults, *(problem for _, problem in report.damaged)]
    except ChatkeepError as exc:
        found = [exc]
    if left := [name for name in os.listdir(room) if name != "out" and not name.startswith(".chatkeep-restore-")]:
        raise Broken(f"a restore made {left}")
    for name in os.listdir(room):
        unlock_directories(room / name)
        shutil.rmtree(room / name)
    return found


def _shot(reader: VaultReader, snapshot: Snapshot, findings: list[ChatkeepError]) -> Shot:
    found: dict[bytes, tuple[object, ...]] = {}
    try:
        made = plan(reader, snapshot)
        tree = read_tree(reader, snapshot)
    except ChatkeepError as exc:
        findings.append(exc)
        return {}
    findings.extend(made.faults)
    for path, file_id in made.paths.items():
        record = made.files[file_id]
        content: object = record.target
        if record.kind in (FileKind.FILE, FileKind.DATABASE):
            try:
                body = b"".join(read_file(reader, snapshot, tree, path))
                content = hashlib.sha256(body).digest()
            except ChatkeepError as exc:
                findings.append(exc)
                continue
        found[path] = (record.kind, record.mode, record.mtime, record.size, content)
    return found


class Broken(AssertionError):
    """An attack that did what it must not."""


@dataclass
class Answer:
    """What became of one attack.

    Attributes:
        refused: an error that ended all reading.
        told: codes of what was found that an honest vault does not show.
        lost: files of the truth that were not read.
    """

    refused: ChatkeepError | None
    told: list[str]
    lost: int


def ask(
    vault: HostileVault,
    provider: MemoryProvider,
    opened: UnlockedVault | None = None,
    *,
    noticed: bool = True,
    lossy: bool = False,
    forged: bytes | None = None,
) -> Answer:
    """Reads all that attacked storage holds, and compares it with the truth.

    Args:
        opened: the vault unlocked already, for attacks on what comes after that.
        noticed: something must be noticed: by the reader, or else by a scrub.
        lossy: files may be gone without a word: the attack is one that nobody can notice.
        forged: a stream of which anything may be read: who holds a device's keys makes its snapshots. It is restored.

    Raises:
        Broken: what was read is not the truth; something is gone and nobody said so; an error is not one of ours or
            carries plaintext. Any other exception goes through, and is a bug as well.
    """
    findings: list[ChatkeepError] = []
    shots: dict[Place, Shot] = {}
    refused: ChatkeepError | None = None
    try:
        shots, findings = read_all(provider, opened, forged, vault.directory / "restored")
    except ChatkeepError as exc:
        refused = exc
    for place, shot in shots.items():
        for path, entry in shot.items():
            if vault.history.get(place, {}).get(path) != entry:
                raise Broken(f"{path!r} of snapshot {place[2]} is not what was backed up")
    lost = vault.files - sum(len(shot) for shot in shots.values())
    told = [problem for problem in (*findings, refused) if problem is not None and key_of(problem) not in vault.usual]
    if lost and not told and not lossy:
        raise Broken(f"{lost} files are not there, and nobody said so")
    if noticed and not told:
        told = [one for one in scrub(provider, vault.vault_id).findings if key_of(one) not in vault.usual]
        if not told:
            raise Broken("nothing was noticed")
    for problem in told:
        check_error(problem)
    return Answer(refused, [problem.code for problem in told], lost)


def ask_to_unlock(vault: HostileVault, provider: MemoryProvider) -> Answer:
    """As `ask`, of unlocking alone: the keys, records and devices are the vault's own, or it was refused."""
    try:
        opened = unlock(provider, recovery())
    except ChatkeepError as exc:
        check_error(exc)
        return Answer(exc, [exc.code], vault.files)
    own = vault.epochs
    # The newest can be withheld, and what is left is a vault as it was (told below, since something shows it).
    if [record.sha256 for record in opened.records] != [own.sha256 for own in own.records[: len(opened.records)]]:
        raise Broken("another history")
    for record in opened.records:
        if opened.opener(record.epoch, record.public.key_id).public != record.public:
            raise Broken("another key")
    known = {device_id: cert.sha256 for device_id, cert in own.certs.items()}
    certs = {device_id: cert.sha256 for device_id, cert in opened.devices.items()}
    certs |= {device_id: gone.certificate.sha256 for device_id, gone in opened.removed.items()}
    if not certs.items() <= known.items() or opened.removed.keys() & opened.devices.keys():
        raise Broken("another device")
    told = [problem for problem in opened.findings if key_of(problem) not in vault.usual]
    for problem in told:
        check_error(problem)
    if not told:  # a slot that was not the one to be opened, say
        told = [one for one in scrub(provider, vault.vault_id).findings if key_of(one) not in vault.usual]
    if not told:
        raise Broken("nothing was noticed")
    return Answer(None, [problem.code for problem in told], 0)


def ask_for_manifests(
    vault: HostileVault, provider: MemoryProvider, stream: Stream, *, noticed: bool = True, lossy: bool = False
) -> Answer:
    """As `ask`, of the manifests of one stream, which name all else by its hash: many times quicker."""
    reader = VaultReader([provider], vault.opened)
    found: dict[int, Manifest] = {}
    refused: ChatkeepError | None = None
    told: list[ChatkeepError] = []
    try:
        chain = reader.chain(stream)
        for snapshot in reader.snapshots(chain):
            found[snapshot.header.seq] = snapshot.manifest
        told += [*chain.findings, *reader.findings]
    except ChatkeepError as exc:
        refused = exc
        told.append(exc)
    true = vault.true_manifests(stream)
    for seq, manifest in found.items():
        if true.get(seq) != manifest:
            raise Broken(f"snapshot {seq} is not what was backed up")
    lost = len(true.keys() - found.keys())
    if not told and ((lost and not lossy) or noticed):
        told = [one for one in scrub(provider, vault.vault_id).findings if key_of(one) not in vault.usual]
        if not told or lost:
            raise Broken("nothing was noticed")
    for problem in told:
        check_error(problem)
    return Answer(refused, [problem.code for problem in told], lost)


def key_of(problem: ChatkeepError) -> str:
    """Tells one finding from another."""
    return problem.code + repr(sorted(problem.params.items(), key=str))


def check_error(problem: BaseException) -> None:
    """One of ours, with a code, of bounded length, without plaintext."""
    said = repr(getattr(problem, "params", {})) + str(problem)
    if not isinstance(problem, ChatkeepError) or CANARY.decode() in said or len(said) > 100_000:
        raise Broken(f"an error that must not be: {type(problem).__name__} {said[:500]}")
