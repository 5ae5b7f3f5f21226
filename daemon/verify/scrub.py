"""Scrubbing one provider without any key: every object is what its name or a signature says.

Proves that storage returns what was sealed, and that every snapshot is there which the newest checkpoint and epoch
record know of. Does not prove that it can be unsealed (`deep` does), nor that nothing is missing that only a sealed
manifest names. What a checkpoint condemned may be there or not.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.daemon.keys.errors import KeysError
from chatkeep.daemon.keys.signed import LIMITS
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.vault.chain import Anchor, Chain, Records, walk
from chatkeep.daemon.vault.checkpoint import verify_checkpoint
from chatkeep.daemon.vault.copies import Findings
from chatkeep.daemon.vault.devices import Devices, read_devices
from chatkeep.daemon.vault.epoch import DeviceCert, EpochPin
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    Malformed,
    MissingObject,
    ObjectMismatch,
    VaultError,
    WrongVault,
)
from chatkeep.daemon.vault.fetch import get_bounded
from chatkeep.daemon.vault.labels import MAX_CHECKPOINT, MAX_MANIFEST, MAX_PACK, PACK_FOOTER, PACK_MAGIC
from chatkeep.daemon.vault.lives import Lives
from chatkeep.daemon.vault.manifest import verify_manifest
from chatkeep.daemon.vault.names import (
    CheckpointName,
    DeviceName,
    EpochName,
    ManifestName,
    ObjectName,
    PackName,
    SlotName,
    VaultName,
    parse,
)
from chatkeep.daemon.vault.pack_layout import Footer
from chatkeep.daemon.vault.snapshots import Listed, SnapshotChain
from chatkeep.providers.base import ObjectDamaged, ObjectNotFound, Provider

Named = TypeVar("Named", VaultName, EpochName, SlotName, DeviceName, PackName, ManifestName, CheckpointName)

_PIECE: Final = 8 << 20
MOST_LISTED: Final = 1 << 22
"""Most objects of one scrub: 60 TB in packs of 16 MiB. Storage could list for ever."""
_ABOUT_ONE: Final = (VaultError, KeysError, ObjectNotFound, ObjectDamaged)
"""What is wrong with one object. Any other provider error is about the storage, and ends the scrub."""


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """What a scrub looked at.

    Attributes:
        vault_id: of the vault that was scrubbed; None when storage holds none that certifies itself.
        objects, content: objects and bytes that were listed and are a vault's.
        checked, read: objects and bytes that were fetched and checked.
        skipped: packs that the sample left out.
        foreign: names that are no vault's; they were not touched.
        findings: what is wrong, each with the object's name.
        lives: which snapshots live, as this provider shows it; None without a vault.
    """

    vault_id: bytes | None
    objects: int
    content: int
    checked: int
    read: int
    skipped: int
    foreign: int
    findings: tuple[ChatkeepError, ...]
    lives: Lives | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class _Listing:
    """What storage lists, sorted out."""

    names: dict[ObjectName, int] = field(default_factory=dict)
    foreign: int = 0
    endless: bool = False

    def of(self, kind: type[Named]) -> list[Named]:
        return sorted((name for name in self.names if isinstance(name, kind)), key=str)


def _silent(done: int, total: int) -> None:
    """Nobody watches."""


def scrub(
    provider: Provider,
    vault_id: bytes | None = None,
    *,
    pin: EpochPin | None = None,
    fraction: float = 1.0,
    chance: random.Random | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] = bool,
) -> ScrubReport:
    """Check every object at a provider; of packs a random share of `fraction` (0 to 1).

    Args:
        vault_id: which vault; None: the one whose marker is there, if it is one.
        pin: the newest epoch that somebody here has seen: storage that shows less was rolled back.
        progress: told bytes read and bytes to read.

    Raises:
        ProviderError: storage could not be asked. Cancelled.
    """
    listing = _list(provider)
    packs = listing.of(PackName)
    chosen = [name for name in packs if fraction >= 1 or (chance or random.Random()).random() < fraction]
    work = _Scrub(provider, listing, progress or _silent, cancelled)
    work.expect(chosen)
    if listing.endless:
        work.findings.add(Malformed(what="listing", reason="too-many", limit=MOST_LISTED))
    known = work.vault(vault_id, pin)
    work.slots(known)
    work.manifests(known)
    work.checkpoints(known)
    for name in chosen:
        work.pack(name, known)
    return ScrubReport(
        vault_id=None if known is None else known.vault_id,
        objects=len(listing.names),
        content=sum(listing.names.values()),
        checked=work.checked,
        read=work.read,
        skipped=len(packs) - len(chosen),
        foreign=listing.foreign,
        findings=tuple(work.findings),
        lives=None if known is None else known.lives,
    )


def _list(provider: Provider) -> _Listing:
    listing = _Listing()
    for count, found in enumerate(provider.list("")):
        if count >= MOST_LISTED:
            listing.endless = True
            break
        try:
            listing.names[parse(found.name)] = found.size
        except Malformed:
            listing.foreign += 1
    return listing


@dataclass(frozen=True, slots=True)
class _Known:
    """The vault as its public records certify it."""

    vault_id: bytes
    chain: Chain
    devices: Devices
    lives: Lives

    def certificate(self, device_id: bytes) -> DeviceCert | None:
        removed = self.devices.removed.get(device_id)
        return self.devices.writing.get(device_id) or (None if removed is None else removed.certificate)


class _Scrub:
    """One scrub as it goes on."""

    def __init__(
        self,
        provider: Provider,
        listing: _Listing,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._provider, self._listing = provider, listing
        self._progress, self._cancelled = progress, cancelled
        self._expected = 0
        self._condemned: set[PackName] = set()
        self.findings = Findings()
        self.checked = self.read = 0

    def expect(self, packs: list[PackName]) -> None:
        """The packs that will be read; everything else is."""
        names = self._listing.names
        others = sum(size for name, size in names.items() if not isinstance(name, PackName))
        self._expected = others + sum(names[name] for name in packs)

    def vault(self, vault_id: bytes | None, pin: EpochPin | None) -> _Known | None:
        """The epochs and devices, verified from the vault id on, which certifies the first epoch's key."""
        if vault_id is None:
            markers = [name.vault_id for name in self._listing.of(VaultName)]
            if len(markers) != 1:
                self.findings.add(Malformed(what="vault", reason="markers", count=len(markers)))
                return None
            vault_id = markers[0]
        records = Records(self._provider)
        for name in records.numbered(1):
            with self._about(name):
                claim = records.claim(name)
                if claim.vault_id != vault_id:
                    continue  # another vault's, or of an init that was cut short
                chain = walk(records, Anchor(vault_id, 1, claim.sign))
                devices = read_devices(self._provider, chain)
                for problem in (*chain.findings, *devices.findings):
                    self.findings.add(problem)
                self._marker(VaultName(vault_id))
                self._count(*self._listing.of(VaultName), *self._listing.of(EpochName), *self._listing.of(DeviceName))
                if pin is not None and pin.sha256 not in {record.sha256 for record in chain.records}:
                    self.findings.add(MissingObject(str(EpochName(pin.epoch, pin.sha256))))
                lives = Lives([self._provider], chain.records, devices.removed, self.findings)
                return _Known(vault_id, chain, devices, lives)
        self.findings.add(MissingObject(f"epochs/{1:08d}"))
        return None

    def _marker(self, name: VaultName) -> None:
        """Nothing rests on its content, but a storage that changed it may have changed more."""
        if name in self._listing.names:
            with self._about(name):
                expected = b'{"chatkeep":1,"vault":"%s"}\n' % name.vault_id.hex().encode("ascii")
                if get_bounded(self._provider, str(name), len(expected)) != expected:
                    raise ObjectMismatch(str(name))

    def slots(self, known: _Known | None) -> None:
        """Slot files are whole and issued by an epoch of the vault. Which secret opens one, no scrub can tell."""
        pins = {record.sign.raw for record in known.chain.records} if known is not None else set()
        for name in self._listing.of(SlotName):
            with self._about(name):
                self._count(name)
                slot = SlotFile.parse(get_bounded(self._provider, str(name), LIMITS["slot"]))
                if slot.slot_id != name.slot_id:
                    raise ObjectMismatch(str(name))
                if known is not None and (slot.vault_id != known.vault_id or slot.pin.raw not in pins):
                    raise AuthenticationFailed(what="slot", reason="pin")
                listed = None if known is None else known.chain.head.slots.get(slot.slot_id)
                if listed is not None and listed.file != slot.sha256:
                    # Signed, and yet another one: who got hold of an old root secret can make such a file.
                    raise ObjectMismatch(str(name))

    def manifests(self, known: _Known | None) -> None:
        """Manifests are whole and signed by a device of the vault, and every snapshot is there that must be."""
        listed: dict[bytes, dict[bytes, Listed]] = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
        for name in self._listing.of(ManifestName):
            listed[name.device_id][name.stream_id][name.seq].add(name.sha256)
        certified = set() if known is None else known.devices.writing.keys() | known.devices.removed.keys()
        for device_id in sorted(listed.keys() | certified):
            cert = None if known is None else known.certificate(device_id)
            if known is None or cert is None:
                self.findings.add(AuthenticationFailed(what="device", reason="unknown", device=device_id.hex()))
            else:
                self._streams(known, cert, listed[device_id])

    def _streams(self, known: _Known, cert: DeviceCert, listed: dict[bytes, Listed]) -> None:
        read: set[ManifestName] = set()
        told: set[object] = set()
        for stream in known.lives.streams(cert.device_id, listed):
            renew = functools.partial(known.lives.demand_again, stream)
            own = listed.get(stream.stream_id, {})
            chain = SnapshotChain([self._provider], stream, cert, own, known.lives.demand(stream), renew)
            for verified in chain.walk():
                read.add(verified.name)
                self._count(verified.name)
            for problem in chain.findings:
                self.findings.add(problem)
                told.add(problem.params.get("name"))
        for name in self._listing.of(ManifestName):
            if name.device_id == cert.device_id and name not in read and str(name) not in told:
                self._loose(name, cert)

    def _loose(self, name: ManifestName, cert: DeviceCert) -> None:
        """One that lives no more, or never counted. It may be gone by now; if it is there, it is whole."""
        with self._about(name), contextlib.suppress(MissingObject):
            self._count(name)
            verify_manifest(get_bounded(self._provider, str(name), MAX_MANIFEST), name, cert)

    def checkpoints(self, known: _Known | None) -> None:
        """Older checkpoints are whole and signed by an epoch of the vault; the newest was looked at for the streams."""
        keys = {} if known is None else {record.epoch: record.checkpoint for record in known.chain.records}
        for name in self._listing.of(CheckpointName):
            self._count(name)
            if known is None or known.certificate(name.device_id) is None:
                continue  # of whom it is was told
            newest = known.lives.checkpoint(name.device_id)
            if newest is None or name.number > newest.name.number or name == newest.name:
                continue  # looked at
            with self._about(name), contextlib.suppress(MissingObject):
                raw = get_bounded(self._provider, str(name), MAX_CHECKPOINT)
                found = verify_checkpoint(raw, name, known.vault_id, keys).checkpoint
                self._condemned |= {PackName(name.device_id, sha256) for sha256 in found.condemned_packs}

    def pack(self, name: PackName, known: _Known | None) -> None:
        """A pack hashes to its name, and its footer is of this vault and of the device that owns the name."""
        with self._about(name):
            try:
                self._pack(name, None if known is None else known.vault_id)
            except ObjectNotFound:
                if known is None or not self._is_condemned(name, known):
                    raise

    def _is_condemned(self, name: PackName, known: _Known) -> bool:
        """Whether a pack that is gone since it was listed was to go."""
        if name in self._condemned:
            return True
        newest = known.lives.checkpoint_again(name.device_id)
        return newest is not None and name.sha256 in newest.checkpoint.condemned_packs

    def _pack(self, name: PackName, vault_id: bytes | None) -> None:
        self._count(name)
        digest, size, end = hashlib.sha256(), 0, b""
        for piece in self._pieces(str(name)):
            if not size and piece[: len(PACK_MAGIC)] != PACK_MAGIC:
                raise ObjectMismatch(str(name))
            digest.update(piece)
            size += len(piece)
            end = (end + piece)[-PACK_FOOTER:]
        if digest.digest() != name.sha256:
            raise ObjectMismatch(str(name))
        public = Footer.parse(end).public
        if vault_id is not None and public.vault_id != vault_id:
            raise WrongVault(what="pack", found=public.vault_id.hex())
        if public.device_id != name.device_id:
            raise Malformed(what="pack", reason="device")

    def _pieces(self, name: str) -> Iterator[bytes]:
        offset = 0
        while True:
            self._ask()
            piece = self._provider.get(name, offset, _PIECE)
            yield piece
            offset += len(piece)
            if len(piece) < _PIECE:
                return
            if offset > MAX_PACK:  # storage could go on for ever
                raise Malformed(what="pack", reason="too-long")

    def _count(self, *names: ObjectName) -> None:
        self._ask()
        for name in names:
            self.checked += 1
            self.read += self._listing.names.get(name, 0)
        self._progress(self.read, self._expected)

    def _ask(self) -> None:
        if self._cancelled():
            raise Cancelled

    @contextlib.contextmanager
    def _about(self, name: ObjectName) -> Iterator[None]:
        try:
            yield
        except _ABOUT_ONE as exc:
            self.findings.add(exc, name=str(name))
