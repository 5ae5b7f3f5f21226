"""What nobody needs any more: manifests and packs of this device's own, known from its rows and signed manifests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from chatkeep.daemon.prune.own import Facts, OwnVault
from chatkeep.daemon.state.pruning import CondemnedRow, Pruning, Role
from chatkeep.daemon.vault.checkpoint import SnapshotId
from chatkeep.daemon.vault.names import CheckpointName, ManifestName, PackName, parse


@dataclass(frozen=True, slots=True)
class Lives:
    """What stays: manifests, and packs that these, or the next snapshot, need. `providers`: all that are configured."""

    manifests: Collection[ManifestName]
    packs: Collection[bytes]
    providers: Sequence[str]


@dataclass(slots=True)
class Waste:
    """What a checkpoint of this number condemns.

    Attributes:
        prev: hash of the checkpoint before.
        rows: what is condemned, older checkpoints included.
        revived: names that were condemned, that nobody has begun to delete, and that live again.
        begun: some of it was begun to be deleted under an older checkpoint, so it cannot be taken back.
        living: bytes of the packs that live.
    """

    number: int
    prev: bytes
    rows: list[CondemnedRow] = field(default_factory=list)
    revived: list[str] = field(default_factory=list)
    begun: bool = False
    living: int = 0

    @property
    def changes(self) -> bool:
        """Whether there is anything to say."""
        return bool(self.revived) or any(row.role is not Role.CHECKPOINT for row in self.rows)

    @property
    def size(self) -> int:
        """Bytes that will be freed."""
        return sum(row.size for row in self.rows)

    @property
    def manifests(self) -> list[tuple[bytes, SnapshotId]]:
        """As a checkpoint names them."""
        names = [parse(row.name) for row in self.rows if row.role is Role.MANIFEST]
        return [(name.stream_id, SnapshotId(name.seq, name.sha256)) for name in names if isinstance(name, ManifestName)]

    @property
    def packs(self) -> list[bytes]:
        """As a checkpoint names them."""
        names = [parse(row.name) for row in self.rows if row.role is Role.PACK]
        return [name.sha256 for name in names if isinstance(name, PackName)]


def find_waste(own: OwnVault, pruning: Pruning, snapshots: Sequence[Facts], lives: Lives) -> Waste:
    """What is to be condemned, and taken back. `snapshots`: all that live, and those that may be taken back."""
    made = {row.number: row for row in pruning.checkpoints()}
    newest = own.checkpoint
    # Above what the epoch record names too, also when that is lost: lower ones let nothing go.
    known = [one for one in (None if newest is None else newest.name, own.demanded) if one is not None]
    last = max([*made, *(name.number for name in known), 0])
    prev = made[last].sha256 if last in made else max(known, key=_number).sha256 if known else bytes(32)
    waste = Waste(last + 1, prev)
    before = {row.name: row for row in pruning.condemned()}
    again = _unusable(own, pruning, {row.number for row in before.values()}, lives.providers)
    packs = _packs(pruning, snapshots)
    begun = pruning.begun()

    def judge(name: str, role: Role, size: int, *, stays: bool) -> None:
        row = before.pop(name, None)
        if stays:
            # What a snapshot that lives needs was never condemned, or by a checkpoint that nobody has acted on.
            assert row is None or row.number > begun, "what is needed is being deleted"
            waste.revived += [] if row is None else [name]
            waste.living += size if role is Role.PACK else 0
        elif row is None or row.number in again:
            waste.rows.append(CondemnedRow(name, waste.number, role, size))
            waste.begun |= row is not None and row.number <= begun

    for facts in snapshots:
        judge(str(facts.name), Role.MANIFEST, facts.size, stays=facts.name in lives.manifests)
    for sha256, (size, waits) in packs.items():
        judge(str(PackName(own.device_id, sha256)), Role.PACK, size, stays=waits or sha256 in lives.packs)
    for row in list(before.values()):  # of no snapshot that could be taken back
        if row.role is not Role.CHECKPOINT:
            name = parse(row.name)
            needed = isinstance(name, PackName) and name.sha256 in lives.packs
            judge(row.name, row.role, row.size, stays=needed)
    _forgotten(own, made, lives, waste)
    _older_checkpoints(own, pruning, waste)
    return waste


def let_go_by_name(waste: Waste, pruning: Pruning, manifests: Collection[str]) -> None:
    """Manifests that no storage has whole go too: what is left of them, and every provider's duty to have them."""
    known = {row.name for row in (*waste.rows, *pruning.condemned())}
    waste.rows += [CondemnedRow(name, waste.number, Role.MANIFEST, 0) for name in manifests if name not in known]


def _number(name: CheckpointName) -> int:
    return name.number


def _packs(pruning: Pruning, snapshots: Sequence[Facts]) -> Mapping[bytes, tuple[int, bool]]:
    """Size of every pack of this device that is known, and whether the outbox still has it."""
    found = {pack.sha256: (pack.size, False) for facts in snapshots for pack in facts.packs}
    found |= {sha256: (size, waits) for sha256, size, waits in pruning.objects().values()}
    return found


def _unusable(own: OwnVault, pruning: Pruning, numbers: Collection[int], providers: Sequence[str]) -> set[int]:
    """Checkpoints that will never be acted on everywhere: lost before every provider had them, or signed in an epoch
    that is over, whose key no locked device has. What they condemned is condemned anew."""
    made = {row.number: row for row in pruning.checkpoints()}
    return {
        number
        for number in numbers
        if number not in made
        or pruning.is_given_up(made[number].name, providers)
        or own.epoch_of(made[number]) != own.unlocked.head.epoch
    }


def _forgotten(own: OwnVault, made: Collection[int], lives: Lives, waste: Waste) -> None:
    """After the records were lost: what the newest checkpoint in storage condemned may still be there."""
    if own.checkpoint is None or own.checkpoint.name.number in made:
        return
    said = own.checkpoint.checkpoint
    manifests = [ManifestName(own.device_id, stream, *one) for stream, one in said.condemned_manifests]
    packs = [PackName(own.device_id, sha256) for sha256 in said.condemned_packs]
    rows = [(str(name), Role.MANIFEST) for name in manifests if name not in lives.manifests]
    rows += [(str(name), Role.PACK) for name in packs if name.sha256 not in lives.packs]
    known = {row.name for row in waste.rows}
    waste.rows += [CondemnedRow(name, waste.number, role, 0) for name, role in rows if name not in known]
    waste.begun = True


def _older_checkpoints(own: OwnVault, pruning: Pruning, waste: Waste) -> None:
    """Every checkpoint before this one is to go with it."""
    names = {row.name for row in pruning.checkpoints()}
    names |= set() if own.checkpoint is None else {str(one.name) for one in (own.checkpoint, *own.checkpoint.rivals)}
    condemned = {row.name for row in pruning.condemned()}
    waste.rows += [CondemnedRow(name, waste.number, Role.CHECKPOINT, 0) for name in sorted(names - condemned)]
