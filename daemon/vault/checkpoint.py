"""Checkpoints: which snapshots of a device live (docs/format.md, section 14).

Without one, a snapshot that was pruned and a snapshot that somebody dropped look the same: both are gone. So what is
gone by right is written down, signed by a key that no locked machine has, and everything else that is gone is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.errors import SignatureInvalid
from chatkeep.daemon.keys.holding import HashSigningKey
from chatkeep.daemon.keys.root import VerifyKey
from chatkeep.daemon.vault.checkpoint_codec import Checkpoint as Checkpoint
from chatkeep.daemon.vault.checkpoint_codec import CheckpointHead, decode, encode
from chatkeep.daemon.vault.checkpoint_codec import SnapshotId as SnapshotId
from chatkeep.daemon.vault.checkpoint_codec import StreamKept as StreamKept
from chatkeep.daemon.vault.copies import Findings, first_whole, listed_names
from chatkeep.daemon.vault.epoch import DeviceEntry, EpochRecord
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    CheckpointOutdated,
    ForkDetected,
    Malformed,
    MissingObject,
    ObjectMismatch,
    SelfCheckFailed,
    Unreadable,
    WrongVault,
)
from chatkeep.daemon.vault.labels import MAX_CHECKPOINT, SIG_CHECKPOINT, SIGNATURE_SIZE
from chatkeep.daemon.vault.names import CheckpointName, checkpoints_prefix
from chatkeep.providers.base import Provider

MOST_LISTED: Final = 1 << 16
"""Most checkpoints looked at in one listing: one a day for a hundred years and more. Storage could go on for ever."""


@dataclass(frozen=True, slots=True)
class VerifiedCheckpoint:
    """A whole checkpoint that the checkpoint key of `epoch` signed for this device. Made by `verify_checkpoint` alone.

    Whether it *counts* is the newest epoch's to say: `newest_checkpoint` asks it.

    Attributes:
        rivals: others of the same number that count as much: a fork. A snapshot lives that any of them keeps.
        lets_go: whether what it does not keep was pruned. Not so when it takes the place of the one that the newest
            record lists, which is not there: of an epoch that is over, whoever got hold of its root secret makes any.
    """

    checkpoint: Checkpoint
    epoch: int
    device_id: bytes
    name: CheckpointName
    raw: bytes = field(repr=False)
    rivals: tuple[VerifiedCheckpoint, ...] = ()
    lets_go: bool = True


def sign_checkpoint(checkpoint: Checkpoint, device_id: bytes, record: EpochRecord, key: HashSigningKey) -> bytes:
    """The object, signed by the checkpoint key of the record's epoch, and read back before it is returned.

    Raises:
        Malformed: the checkpoint breaks a rule of the format, or is longer than 64 MiB.
        SelfCheckFailed: what was signed does not read back: a fault of this machine.
    """
    if key.public != record.checkpoint:
        raise AssertionError("a checkpoint key of another epoch")
    signed = encode(checkpoint, record.vault_id, record.epoch, record.checkpoint.key_id, device_id)
    raw = signed + key.sign_hashed(SIG_CHECKPOINT, signed)
    name = CheckpointName(device_id, checkpoint.number, hashlib.sha256(raw).digest())
    try:
        found = verify_checkpoint(raw, name, record.vault_id, {record.epoch: record.checkpoint})
    except ChatkeepError as exc:
        raise SelfCheckFailed(what="checkpoint", reason=exc.code) from exc
    if found.checkpoint != checkpoint:
        raise SelfCheckFailed(what="checkpoint", reason="body")
    return raw


def verify_checkpoint(
    raw: bytes, name: CheckpointName, vault_id: bytes, keys: Mapping[int, VerifyKey]
) -> VerifiedCheckpoint:
    """Checks, without any secret, that `raw` is the object of this name and that the vault signed it for this device.

    `keys` are the checkpoint keys of the vault's verified epochs, by number.

    Raises:
        ObjectMismatch: its bytes hash to something else: damaged, cut short, or another object.
        Malformed, UnsupportedVersion: not a checkpoint of this version, or not the one its name says.
        WrongVault: of another vault.
        AuthenticationFailed: of no epoch of the vault, or not signed by it.
    """
    text = str(name)
    if hashlib.sha256(raw).digest() != name.sha256:
        raise ObjectMismatch(text)
    try:
        head = CheckpointHead.parse(raw)
        if head.vault_id != vault_id:
            raise WrongVault(what="checkpoint", found=head.vault_id.hex())
        if (head.device_id, head.number) != (name.device_id, name.number):
            raise Malformed(what="checkpoint", reason="name")
        _check_signature(raw, keys.get(head.epoch), head)
        # The lists come last: only what the vault's own key signed is taken apart.
        return VerifiedCheckpoint(decode(raw), head.epoch, head.device_id, name, raw)
    except ChatkeepError as exc:
        exc.params.setdefault("name", text)
        raise


def newest_checkpoint(
    providers: Sequence[Provider],
    device_id: bytes,
    records: Sequence[EpochRecord],
    findings: Findings,
    known: VerifiedCheckpoint | None = None,
) -> VerifiedCheckpoint | None:
    """The newest checkpoint of a device that counts, out of all providers together; None when there is none.

    The one that the newest record lists is asked for by its name, listed by storage or not: only older ones being there
    is a finding (`MissingObject`, `Unreadable`). So are copies that do not verify, checkpoints of epochs that are over
    and that no record lists (`CheckpointOutdated`), and two that count as much (`ForkDetected`): what is returned then
    has the others in `rivals`. One that is older than the listed one lets nothing go.

    Args:
        records: the vault's verified epoch records, 1 to the newest.
        known: one that was verified before, so that it is not fetched again.

    Raises:
        ProviderError: no provider could be asked.
    """
    listed = _listed(providers, device_id, findings)
    own = entry_of(records[-1], device_id)
    demanded = None
    if own is not None and own.checkpoint is not None:
        demanded = CheckpointName(device_id, own.checkpoint.seq, own.checkpoint.sha256)
        listed.setdefault(demanded.number, set()).add(demanded.sha256)
    keys = {record.epoch: record.checkpoint for record in records}

    def read(name: CheckpointName) -> VerifiedCheckpoint | None:
        if known is not None and known.name == name:
            return replace(known, rivals=(), lets_go=True)

        def check(raw: bytes) -> VerifiedCheckpoint:
            return verify_checkpoint(raw, name, records[-1].vault_id, keys)

        try:
            return first_whole(providers, name, MAX_CHECKPOINT, check, findings)
        except Unreadable as exc:
            findings.add(exc)
        except MissingObject as exc:
            if name == demanded:
                findings.add(exc)  # a listing that shows what was deleted since is none
        return None

    for number in sorted(listed, reverse=True):
        names = [CheckpointName(device_id, number, sha256) for sha256 in sorted(listed[number])]
        verified = [found for found in map(read, names) if found is not None]
        counting = [one for one in verified if _counts(one, records)]
        if counting:
            if len(counting) > 1:
                # A cloned machine, both of them pruned: neither may condemn what the other keeps.
                rivals = [str(one.name) for one in counting]
                findings.add(ForkDetected(what="checkpoint", number=number, names=rivals))
            lets_go = demanded is None or number >= demanded.number
            return replace(counting[0], rivals=tuple(counting[1:]), lets_go=lets_go)
        for one in verified:
            findings.add(CheckpointOutdated(name=str(one.name)))
    return None


def entry_of(record: EpochRecord, device_id: bytes) -> DeviceEntry | None:
    """What a record says of a device, staying or removed; None for one that it does not name."""
    return record.devices.get(device_id) or record.removed.get(device_id)


def _counts(one: VerifiedCheckpoint, records: Sequence[EpochRecord]) -> bool:
    """Of the newest epoch; or not after what the record that ended its epoch lists: an old key condemns nothing. And of
    a removed device not after what its entry lists: nothing of it does."""
    removed = records[-1].removed.get(one.device_id)
    if removed is not None and not _until(one, removed):
        return False
    if one.epoch == records[-1].epoch:
        return True
    return _until(one, entry_of(next(record for record in records if record.epoch == one.epoch + 1), one.device_id))


def _until(one: VerifiedCheckpoint, entry: DeviceEntry | None) -> bool:
    last = None if entry is None else entry.checkpoint
    if last is None:
        return False
    return one.name.number < last.seq or (one.name.number, one.name.sha256) == (last.seq, last.sha256)


def _check_signature(raw: bytes, key: VerifyKey | None, head: CheckpointHead) -> None:
    if key is None or key.key_id != head.key_id:
        raise AuthenticationFailed(what="checkpoint", reason="epoch", epoch=head.epoch)
    signed = hashlib.sha256(memoryview(raw)[:-SIGNATURE_SIZE]).digest()
    try:
        key.verify(raw[-SIGNATURE_SIZE:], SIG_CHECKPOINT + signed, "checkpoint")
    except SignatureInvalid as exc:
        raise AuthenticationFailed(what="checkpoint", reason=exc.code) from exc


def _listed(providers: Sequence[Provider], device_id: bytes, findings: Findings) -> dict[int, set[bytes]]:
    listed: dict[int, set[bytes]] = {}
    for name in listed_names(providers, checkpoints_prefix(device_id), MOST_LISTED, findings):
        if isinstance(name, CheckpointName) and name.device_id == device_id:
            listed.setdefault(name.number, set()).add(name.sha256)
    return listed
