"""What of a vault is to be at another provider, found without any key.

A provider is brought up by copying objects byte by byte, whoever made them. What is copied is what the vault's public
records vouch for: epochs by their chain, slots and devices by the newest epoch, manifests and checkpoints by their
signatures, packs by the hash in their names. What is lost, damaged or planted is told and stays where it is.

**Order.** Epochs and certificates; packs; manifests, each stream in the order of its numbers; checkpoints; slots; the
marker. Whoever sees a manifest finds everything it stands on. Without slots nothing can be opened, and without the
marker no device writes there: a copy that was cut short passes for no vault.

**What was let go** by a signed checkpoint, and that somebody has deleted, is not brought back. What nobody has begun to
delete is copied: prune may take it back for as long as that is so.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.daemon.keys.signed import LIMITS
from chatkeep.daemon.sync.mirror import Item
from chatkeep.daemon.vault.chain import Chain, Records, walk_from_first
from chatkeep.daemon.vault.checkpoint import VerifiedCheckpoint, verify_checkpoint
from chatkeep.daemon.vault.copies import Findings, first_whole
from chatkeep.daemon.vault.demand import Demand
from chatkeep.daemon.vault.epoch import DeviceCert, EpochPin
from chatkeep.daemon.vault.errors import (
    Malformed,
    MissingObject,
    NoVault,
    ObjectMismatch,
    SeveralVaults,
    Unreadable,
    WrongVault,
)
from chatkeep.daemon.vault.fetch import listed
from chatkeep.daemon.vault.labels import MAX_CHECKPOINT, MAX_MANIFEST, MAX_PACK
from chatkeep.daemon.vault.lives import Lives
from chatkeep.daemon.vault.manifest import verify_manifest
from chatkeep.daemon.vault.members import Members, read_members
from chatkeep.daemon.vault.names import (
    VAULTS,
    CheckpointName,
    DeviceName,
    ManifestName,
    ObjectName,
    PackName,
    SlotName,
    VaultName,
    parse,
)
from chatkeep.daemon.vault.snapshots import Stream
from chatkeep.providers.base import ObjectNotFound, Provider, ProviderError, StorageMissing

MOST_LISTED: Final = 1 << 22
"""Most objects that are looked at at one provider: 60 TB in packs of 16 MiB. Storage could list for ever."""
_MOST_VAULTS: Final = 64
_Written: TypeAlias = PackName | ManifestName | CheckpointName


@dataclass(slots=True)
class MirrorPlan:
    """What is to be at the target.

    Attributes:
        items: in the order in which they are put, also those that are there.
        there: names and sizes of what the target lists.
        let_go: objects of sources that are not copied, since a checkpoint lets them go.
        strangers: objects of sources that the vault does not vouch for; nothing was done with them.
        sources: those that were asked, and have the vault.
        findings: what is wrong with sources, and sources that could not be asked.
    """

    vault_id: bytes
    items: list[Item] = field(default_factory=list)
    there: Mapping[str, int] = field(default_factory=dict)
    let_go: int = 0
    strangers: int = 0
    sources: list[Provider] = field(default_factory=list)
    findings: list[ChatkeepError] = field(default_factory=list)

    def known(self, item: Item) -> bool | None:
        """Whether the target has this object, as its listing says; None where that says too little: the name holds no
        hash, or what is there has another size."""
        if item.name not in self.there:
            return False
        return True if _hashed(item.name) and self.there[item.name] == item.size else None

    def lacking(self) -> list[Item]:
        """What is to be copied, as far as listings say."""
        return [item for item in self.items if self.there.get(item.name) != item.size]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known before storage is asked.

    Attributes:
        vault_id: the vault; None: the only one that the sources have.
        pin: the newest epoch that somebody here has seen.
        doomed: objects of this device that somebody may have begun to delete.
        new: nothing was ever stored at the target, so its place need not be there.
        cancelled: asked between objects.
    """

    vault_id: bytes | None = None
    pin: EpochPin | None = None
    doomed: Collection[str] = ()
    new: bool = False
    cancelled: Callable[[], bool] = bool


def plan(sources: Sequence[Provider], target: Provider, asked: Asked) -> MirrorPlan:
    """What is to be copied from `sources`, taken together, to `target`.

    Raises:
        WrongVault: the target holds another vault.
        NoVault, SeveralVaults: the sources have none, or which one is meant is not known.
        MissingObject: the sources show less of the vault than was seen before.
        ForkDetected and other VaultError: the vault's records are not in order.
        ProviderError: the target cannot be asked, or none of the sources. Cancelled.
    """
    return _Planning(asked, target).made(sources)


def has_marker(target: Provider, vault_id: bytes) -> bool:
    """Whether the target has the marker of this vault. Raises WrongVault if it has another's, and ProviderError."""
    marked = {name.vault_id for name in listed(target, VAULTS, VaultName, _MOST_VAULTS)}
    if vault_id not in marked:
        try:
            target.stat(str(VaultName(vault_id)))  # a listing may be old
        except ObjectNotFound as exc:
            if marked:
                raise WrongVault(what="storage", provider=target.name) from exc
            return False
    return True


class _Planning:
    """One plan as it is made."""

    def __init__(self, asked: Asked, target: Provider) -> None:
        self._asked, self._target = asked, target
        self._findings = Findings()
        self._listed: dict[str, dict[ObjectName, int]] = {}

    def made(self, sources: Sequence[Provider]) -> MirrorPlan:
        vault_id = self._asked.vault_id or _only_vault(sources)
        marked = self._is_marked(vault_id)
        sources = self._with_vault(sources, vault_id)
        found = MirrorPlan(vault_id, sources=list(sources))
        every = [*sources, self._target] if marked else list(sources)
        chain = walk_from_first(Records(*every), vault_id)
        pin = self._asked.pin
        if pin is not None and pin.sha256 not in {record.sha256 for record in chain.records}:
            raise MissingObject(f"epochs/{pin.epoch:08d}-{pin.sha256.hex()}")
        members = read_members(every, chain.records)
        for problem in (*chain.findings, *members.findings):
            self._findings.add(problem)
        for provider in (*sources, self._target):
            self._listed[provider.name] = self._list(provider)
        data = _OfDevices(self, every, chain, members, found)
        found.items += self._records(chain, members)
        found.items += data.items(sources)
        found.items += self._ways_in(vault_id, members)
        found.there = {str(name): size for name, size in self._listed[self._target.name].items()}
        found.findings = list(self._findings)
        return found

    @property
    def findings(self) -> Findings:
        """What is wrong."""
        return self._findings

    @property
    def asked(self) -> Asked:
        """What is known."""
        return self._asked

    def has(self, provider: Provider, name: ObjectName) -> bool:
        """Whether a provider lists an object."""
        return name in self._listed.get(provider.name, ())

    def listed_at(self, providers: Sequence[Provider]) -> dict[ObjectName, int]:
        """What these list, all together, with sizes."""
        found: dict[ObjectName, int] = {}
        for provider in providers:
            found = self._listed[provider.name] | found
        return found

    def _is_marked(self, vault_id: bytes) -> bool:
        try:
            return has_marker(self._target, vault_id)
        except StorageMissing:
            if not self._asked.new:
                raise
            return False

    def _with_vault(self, sources: Sequence[Provider], vault_id: bytes) -> list[Provider]:
        good = []
        failed: ChatkeepError | None = None
        for source in sources:
            self.go_on()
            try:
                source.stat(str(VaultName(vault_id)))
            except ObjectNotFound:
                failed = failed or NoVault(reason="expected", provider=source.name)
                self._findings.add(NoVault(reason="expected", provider=source.name))
            except ProviderError as exc:
                failed = exc
                self._findings.add(exc, provider=source.name)
            else:
                good.append(source)
        if not good:
            raise failed or NoVault()
        return good

    def _list(self, provider: Provider) -> dict[ObjectName, int]:
        found: dict[ObjectName, int] = {}
        try:
            for count, one in enumerate(provider.list("")):
                if not count % 1000:
                    self.go_on()
                if count >= MOST_LISTED:
                    raise Malformed(what="listing", reason="too-many", limit=MOST_LISTED)
                try:
                    found[parse(one.name)] = one.size
                except Malformed:
                    continue
        except StorageMissing:
            if provider is not self._target or not self._asked.new:
                raise
        return found

    def go_on(self) -> None:
        """Raises Cancelled."""
        if self._asked.cancelled():
            raise Cancelled

    @staticmethod
    def _records(chain: Chain, members: Members) -> Iterator[Item]:
        for record in chain.records:
            yield _equal(str(record.name), record.raw, LIMITS["epoch"])
        for device_id, cert in sorted(members.certificates.items()):
            yield _equal(str(DeviceName(device_id)), cert.raw, LIMITS["device"])

    @staticmethod
    def _ways_in(vault_id: bytes, members: Members) -> Iterator[Item]:
        for slot_id, slot in sorted(members.slots.items()):
            yield _equal(str(SlotName(slot_id)), slot.raw, LIMITS["slot"])
        marker = b'{"chatkeep":1,"vault":"%s"}\n' % vault_id.hex().encode("ascii")
        yield _equal(str(VaultName(vault_id)), marker, len(marker))


class _OfDevices:
    """What the devices wrote."""

    def __init__(
        self, planning: _Planning, every: Sequence[Provider], chain: Chain, members: Members, found: MirrorPlan
    ) -> None:
        self._planning, self._every, self._found = planning, every, found
        self._vault_id, self._certs = found.vault_id, members.certificates
        self._keys = {record.epoch: record.checkpoint for record in chain.records}
        self._lives = Lives(every, chain.records, members.removed_devices, planning.findings)
        self._removed = set(members.removed_devices)
        self._demands: dict[Stream, Demand] = {}

    def items(self, sources: Sequence[Provider]) -> list[Item]:
        """In order, of all devices together."""
        by_device: dict[bytes, dict[_Written, int]] = defaultdict(dict)
        for name, size in self._planning.listed_at(sources).items():
            if isinstance(name, PackName | ManifestName | CheckpointName):
                by_device[name.device_id][name] = size
        self._found.strangers = sum(len(by_device[device_id]) for device_id in by_device.keys() - self._certs.keys())
        packs: list[Item] = []
        manifests: list[Item] = []
        checkpoints: list[Item] = []
        for device_id, cert in sorted(self._certs.items()):
            signed = self._checkpoints(device_id)
            let_go = self._let_go(device_id, signed, by_device[device_id])
            # By name: manifests of a stream, and checkpoints, are in the order of their numbers then.
            for name, size in sorted(by_device[device_id].items(), key=lambda pair: str(pair[0])):
                if name in let_go or (isinstance(name, ManifestName) and not self._counts(name)):
                    self._found.let_go += 1
                elif isinstance(name, PackName):
                    packs.append(_hash_item(name, size))
                elif isinstance(name, ManifestName):
                    manifests.append(_manifest_item(name, size, cert))
                elif name in signed:
                    checkpoints.append(self._checkpoint_item(name, size))
        return [*packs, *manifests, *checkpoints]

    def _checkpoints(self, device_id: bytes) -> dict[CheckpointName, VerifiedCheckpoint]:
        """Those of a device that verify; what does not is a finding, and stays where it is."""
        found = {}
        for name in self._planning.listed_at([*self._every, *self._found.sources]):
            if isinstance(name, CheckpointName) and name.device_id == device_id:
                self._planning.go_on()
                try:
                    found[name] = first_whole(
                        self._every,
                        name,
                        MAX_CHECKPOINT,
                        lambda raw: verify_checkpoint(raw, name, self._vault_id, self._keys),  # noqa: B023  # used before
                        self._planning.findings,
                    )
                except MissingObject:
                    continue  # deleted since it was listed
                except Unreadable as exc:
                    self._planning.findings.add(exc)
        return found

    def _let_go(
        self,
        device_id: bytes,
        signed: Mapping[CheckpointName, VerifiedCheckpoint],
        listed: Collection[_Written],
    ) -> set[ObjectName]:
        """What checkpoints condemned and somebody has begun to delete, or may have."""
        gone: set[ObjectName] = {parse(name) for name in self._planning.asked.doomed}
        named: set[ObjectName] = set()
        for name, one in signed.items():
            manifests = {
                ManifestName(device_id, stream, *snapshot) for stream, snapshot in one.checkpoint.condemned_manifests
            }
            named |= manifests
            dead: set[ObjectName] = {each for each in manifests if self._is_pruned(each)}
            if len(dead) < len(manifests):
                gone |= self._begun(name, dead)  # some were taken back: what they stand on lives
                continue
            packs = {PackName(device_id, sha256) for sha256 in one.checkpoint.condemned_packs}
            gone |= self._begun(name, dead | packs)
        # The checkpoint that condemned them goes when it has been carried out: then they are only left over somewhere.
        left_over = {
            one for one in listed if isinstance(one, ManifestName) and one not in named and self._is_pruned(one)
        }
        return gone | left_over

    def _begun(self, checkpoint: CheckpointName, condemned: AbstractSet[ObjectName]) -> AbstractSet[ObjectName]:
        """All of them, if a provider that has the checkpoint lacks one of them: then nothing is taken back any more."""
        for provider in self._every:
            if self._planning.has(provider, checkpoint) and any(
                not self._planning.has(provider, name) for name in condemned
            ):
                return condemned
        return frozenset()

    def _demand(self, name: ManifestName) -> Demand:
        stream = Stream(name.device_id, name.stream_id)
        if stream not in self._demands:
            self._demands[stream] = self._lives.demand(stream)
        return self._demands[stream]

    def _is_pruned(self, name: ManifestName) -> bool:
        return self._demand(name).pruned(name.seq, name.sha256)

    def _counts(self, name: ManifestName) -> bool:
        """Of a removed device nothing does that is above what the newest epoch record says of it."""
        demand = self._demand(name)
        if name.device_id not in self._removed:
            return True
        kept = name.sha256 in demand.kept.get(name.seq, frozenset())
        return kept or (demand.top is not None and name.seq <= demand.top.seq)

    def _checkpoint_item(self, name: CheckpointName, size: int) -> Item:
        def check(raw: bytes) -> None:
            verify_checkpoint(raw, name, self._vault_id, self._keys)

        return Item(str(name), size, MAX_CHECKPOINT, check)


def _hash_item(name: PackName, size: int) -> Item:
    def check(raw: bytes) -> None:
        if hashlib.sha256(raw).digest() != name.sha256:
            raise ObjectMismatch(str(name))

    return Item(str(name), size, MAX_PACK, check, together=True)


def _manifest_item(name: ManifestName, size: int, cert: DeviceCert) -> Item:
    def check(raw: bytes) -> None:
        verify_manifest(raw, name, cert)

    return Item(str(name), size, MAX_MANIFEST, check)


def _equal(name: str, raw: bytes, limit: int) -> Item:
    def check(found: bytes) -> None:
        if found != raw:
            raise ObjectMismatch(name)

    return Item(name, len(raw), limit, check)


def _hashed(name: str) -> bool:
    return isinstance(parse(name), PackName | ManifestName | CheckpointName)


def _only_vault(sources: Sequence[Provider]) -> bytes:
    found: set[bytes] = set()
    failed: ProviderError | None = None
    for source in sources:
        try:
            found |= {name.vault_id for name in listed(source, VAULTS, VaultName, _MOST_VAULTS)}
        except ProviderError as exc:
            failed = exc
    if len(found) > 1:
        raise SeveralVaults(vaults=sorted(vault.hex() for vault in found))
    if not found:
        raise failed or NoVault()
    return found.pop()
