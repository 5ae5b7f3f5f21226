"""What this device has in the vault: its snapshots that live, read and verified, and those it may take back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from chatkeep.daemon.state.pruning import CheckpointRow, Pruning, Role
from chatkeep.daemon.vault.checkpoint import VerifiedCheckpoint, entry_of, newest_checkpoint
from chatkeep.daemon.vault.checkpoint_codec import CheckpointHead
from chatkeep.daemon.vault.copies import Findings, first_whole
from chatkeep.daemon.vault.epoch import DeviceEntry
from chatkeep.daemon.vault.errors import Malformed, MissingObject, Unreadable, VaultError
from chatkeep.daemon.vault.fetch import get_bounded
from chatkeep.daemon.vault.labels import MAX_CHECKPOINT, MAX_MANIFEST
from chatkeep.daemon.vault.manifest import NewPack, VerifiedManifest, verify_manifest
from chatkeep.daemon.vault.names import CheckpointName, ManifestName, parse
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.unlocked import UnlockedVault
from chatkeep.providers.base import Provider, ProviderError

Step = Callable[[str, int, int | None], None]  # what is worked at, done so far, and all there is if that is known


@dataclass(frozen=True, slots=True)
class Facts:
    """A snapshot in what prune needs of it: few bytes, since there may be hundreds of thousands.

    Attributes:
        packs: that it introduced.
        size: of its manifest.
        condemned: an earlier checkpoint let it go, and nobody has begun to delete it.
    """

    name: ManifestName
    source: str
    time: int
    clock: int
    complete: bool
    layers: int
    packs: tuple[NewPack, ...]
    size: int
    condemned: bool = False


class OwnVault:
    """The vault as this device sees its own part of it, unlocked.

    Attributes:
        findings: what storage has and should not, or lacks, of this device's snapshots.
        checkpoint: its newest one that counts.
        entry: what the newest epoch record says of it.
        demanded: the checkpoint that this names.
    """

    def __init__(self, providers: Sequence[Provider], unlocked: UnlockedVault, device_id: bytes) -> None:
        self.device_id: Final = device_id
        self.unlocked: Final = unlocked
        self.reader: Final = VaultReader(providers, unlocked)
        self.findings: Final = Findings()
        self._providers: Final = providers
        self._cert: Final = unlocked.devices[device_id]
        self.checkpoint: Final[VerifiedCheckpoint | None] = newest_checkpoint(
            providers, device_id, unlocked.records, self.findings
        )
        self.entry: Final[DeviceEntry | None] = entry_of(unlocked.head, device_id)
        last = None if self.entry is None else self.entry.checkpoint
        self.demanded: Final = None if last is None else CheckpointName(device_id, last.seq, last.sha256)

    def streams(self, step: Step) -> dict[bytes, list[Facts]]:
        """The living snapshots of each stream, oldest first. Raises as reading does."""
        found: dict[bytes, list[Facts]] = {}
        for stream in self.reader.streams():
            if stream.device_id != self.device_id:
                continue
            chain = self.reader.chain(stream)
            facts: list[Facts] = []
            for verified in chain.walk():
                facts.append(self._facts(verified))
                if len(facts) > 1 and facts[-1].time > facts[-2].time:
                    chain.findings.add(Malformed(what="manifest", reason="time", name=str(verified.name)))
                step("reading snapshots", sum(map(len, found.values())) + len(facts), None)
            for problem in (*chain.findings, *self.reader.findings):
                self.findings.add(problem)
            found[stream.stream_id] = facts[::-1]
        return found

    def condemned(self, pruning: Pruning) -> Iterator[Facts]:
        """Snapshots that were condemned, that no provider has begun to delete, and that can be taken back: one that was
        given up for lost cannot, nor need it be whole. Raises as opening does."""
        begun = pruning.begun()
        for row in pruning.condemned():
            if row.role is Role.MANIFEST and row.number > begun:
                name = parse(row.name)
                assert isinstance(name, ManifestName), "condemned as a manifest, and none"
                findings = Findings()
                try:
                    verified = self._read(name, findings)
                except (MissingObject, Unreadable):
                    continue
                for problem in findings:
                    self.findings.add(problem)
                yield self._facts(verified, condemned=True)

    def open(self, name: ManifestName) -> Snapshot:
        """One snapshot by its name. Raises as reading does."""
        return self.reader.open(self._read(name, self.findings))

    def epoch_of(self, row: CheckpointRow) -> int | None:
        """The epoch that a checkpoint of this device was signed in; None when no provider has it."""
        for provider in self._providers:
            try:
                raw = get_bounded(provider, row.name, MAX_CHECKPOINT)
            except (VaultError, ProviderError):
                continue
            if hashlib.sha256(raw).digest() == row.sha256:
                return CheckpointHead.parse(raw).epoch
        return None

    def _read(self, name: ManifestName, findings: Findings) -> VerifiedManifest:
        return first_whole(
            self._providers, name, MAX_MANIFEST, lambda raw: verify_manifest(raw, name, self._cert), findings
        )

    def _facts(self, verified: VerifiedManifest, *, condemned: bool = False) -> Facts:
        said = self.reader.open(verified).manifest
        return Facts(
            verified.name,
            said.source_name,
            said.time,
            said.clock,
            said.complete,
            len(said.stack),
            said.packs,
            len(verified.raw),
            condemned,
        )
