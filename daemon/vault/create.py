"""Making a vault, and adding slots and devices to one (docs/format.md, sections 4 to 8).

**Order of writes.** Certificate, slots, epoch record, and the marker last, once all else was read back from every
provider and every slot was opened from what came back. The marker is what makes a vault. Before it nobody was given a
credential, so nothing was ever backed up into what is there, and a second init may leave that lying and begin anew;
after it the vault is whole. Were the marker first, an init that was cut short would stand in the way of the next one,
and could not be told from a vault that lost its slots.

**Proof.** A key that does not open is found on the day it is needed, unless it is opened on the day it is made: so
nothing is returned before each slot was opened from storage.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.errors import KeysError
from chatkeep.daemon.keys.methods import SlotMethod
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.signed import LIMITS
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import create_slot, open_slot
from chatkeep.daemon.vault.chain import Records, climb
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.epoch import DeviceCert, EpochRecord, create_record, vault_id_of
from chatkeep.daemon.vault.errors import EnrolmentFailed, MissingObject, VaultError, VaultExists
from chatkeep.daemon.vault.fetch import get_bounded, listed
from chatkeep.daemon.vault.labels import ID_SIZE
from chatkeep.daemon.vault.names import DEVICES, EPOCHS, SLOTS, VAULTS, DeviceName, SlotName, VaultName
from chatkeep.daemon.vault.unlocked import Enrolment
from chatkeep.providers.base import ObjectNotFound, Provider, ProviderError

_DATA: Final = "d/"
_MOST_SHOWN: Final = 64  # of what is found where a vault was to be made


class Way(NamedTuple):
    """One way in: how its secret comes, and what it is called, for those who can read."""

    method: SlotMethod
    label: str


@dataclass(frozen=True, slots=True)
class CreatedVault:
    """A new vault, whole and proven on every provider.

    Attributes:
        credential: of this device; to be saved at once, it is nowhere else.
        slots: ids of the slots, in the order of the ways in.
        leftovers: names of objects that an init which was cut short left behind; they hold no backup.
    """

    vault_id: bytes
    credential: WriterCredential
    record: EpochRecord
    slots: tuple[bytes, ...]
    leftovers: tuple[str, ...]


def create_vault(providers: Sequence[Provider], ways: Sequence[Way], now_ns: int) -> CreatedVault:
    """Makes a vault with its first device and slots, the same on all providers.

    Failed or killed at any instant, either there is no marker on any provider, and this may be called again; or the
    vault is whole wherever there is one. A vault in storage is never changed.

    Args:
        ways: the ways in, a recovery key among them: it does not break, is not forgotten, and no vendor replaces it.

    Raises:
        VaultExists: a provider has a vault, or backups without one; says what. Nothing was written.
        EnrolmentFailed: reason `no-recovery-key`, and nothing was written; or what was written did not read back.
        KeysError: a slot could not be made (a label too long, no passphrase).
        ProviderError: storage could not be read or written.
    """
    if not providers or not any(way.method.kind == "recovery-64" for way in ways):
        raise EnrolmentFailed(reason="no-provider" if not providers else "no-recovery-key")
    # All of them before anything is written to the first.
    leftovers = require_empty(providers)
    with EpochKeys(RootSecret.generate()) as keys:
        vault_id = vault_id_of(keys.sign.public)
        record = create_record(keys, vault_id)
        slots = [create_slot(way.method, keys, vault_id, record.epoch, way.label, now_ns) for way in ways]
        credential = WriterCredential.generate(record, os.urandom(ID_SIZE))
        try:
            objects = {str(SlotName(slot_id)): raw for slot_id, raw in slots}
            objects = _certificate(keys, record, credential) | objects | {str(record.name): record.raw}
            write_everywhere(providers, objects)
            for (slot_id, _), way in zip(slots, ways, strict=True):
                _prove_slot(providers[0], record, slot_id, way.method)
            marker = b'{"chatkeep":1,"vault":"%s"}\n' % vault_id.hex().encode("ascii")
            write_everywhere(providers, {str(VaultName(vault_id)): marker})
        except BaseException:
            credential.wipe()  # its device will never write
            raise
    return CreatedVault(vault_id, credential, record, tuple(slot_id for slot_id, _ in slots), tuple(leftovers))


def require_empty(providers: Sequence[Provider]) -> list[str]:
    """Names of what an init that was cut short left behind. Returns when a vault can be made there: to be asked before
    somebody writes down the key of one that will be refused.

    Raises:
        VaultExists: as `create_vault`. ProviderError: storage could not be read.
    """
    return list(dict.fromkeys(name for provider in providers for name in _left_over(provider)))


def add_slot(providers: Sequence[Provider], enrolment: Enrolment, way: Way, now_ns: int) -> bytes:
    """Adds a slot to the newest epoch, on all providers, proves it, and returns its id.

    Raises:
        EnrolmentFailed, KeysError, ProviderError: as `create_vault`. The slot is taken back; parameters `slot` and
            `left_at` (names of providers) tell where that failed, and it may count. Reason `outrun`: the keys were
            changed meanwhile, and it opens nothing.
        ForkDetected: they were changed twice.
    """
    record = enrolment.vault.head
    slot_id, raw = create_slot(way.method, enrolment.keys, record.vault_id, record.epoch, way.label, now_ns)
    try:
        write_everywhere(providers, {str(SlotName(slot_id)): raw})
        _prove_slot(providers[0], record, slot_id, way.method)
        _prove_newest(providers, record, slot_id)
    except BaseException as exc:
        left = _take_back(providers, record, str(SlotName(slot_id)))
        if left and isinstance(exc, ChatkeepError):
            exc.params |= {"slot": slot_id.hex(), "left_at": left}
        raise
    return slot_id


def add_device(providers: Sequence[Provider], enrolment: Enrolment) -> WriterCredential:
    """Adds a device to the newest epoch, on all providers, and returns its credential, which is nowhere else.

    Raises:
        EnrolmentFailed, ProviderError: as `create_vault`. Reason `outrun`: the keys were changed meanwhile, and the
            device is none of the vault's.
        ForkDetected: they were changed twice.
    """
    record = enrolment.vault.head
    credential = WriterCredential.generate(record, os.urandom(ID_SIZE))
    try:
        write_everywhere(providers, _certificate(enrolment.keys, record, credential))
        _prove_newest(providers, record)
    except BaseException:
        credential.wipe()
        _take_back(providers, record, str(DeviceName(credential.device_id)))
        raise
    return credential


def _certificate(keys: EpochKeys, record: EpochRecord, credential: WriterCredential) -> dict[str, bytes]:
    # Only a key that was made in this very process is certified: possession of somebody else's is proven by nothing.
    public = credential.device_key.public
    cert = DeviceCert.create(keys, record.vault_id, record.epoch, credential.device_id, public)
    return {str(DeviceName(cert.device_id)): cert.raw}


def _left_over(provider: Provider) -> list[str]:
    """What an init that was cut short left in storage; `VaultExists` when it is more than that.

    A listing may be old and miss a vault. Two vaults then share the storage: their names do not meet, neither is
    harmed, and unlocking asks which one is meant.
    """
    vaults = [name.vault_id.hex() for name in listed(provider, VAULTS, VaultName, _MOST_SHOWN)]
    data = _first_names(provider, [_DATA])
    parts = _first_names(provider, [DEVICES, EPOCHS, SLOTS])
    # Backups without a marker: storage lost it, or hides it. Not for us to begin anew beside them unasked.
    if vaults or data:
        raise VaultExists(provider=provider.name, vaults=vaults, parts=[*parts, *data][:_MOST_SHOWN])
    return parts


def _first_names(provider: Provider, prefixes: Iterable[str]) -> list[str]:
    names: list[str] = []
    for prefix in prefixes:
        for found in provider.list(prefix):
            if len(names) >= _MOST_SHOWN:
                return names
            names.append(found.name)
    return names


def write_everywhere(providers: Sequence[Provider], objects: Mapping[str, bytes]) -> None:
    """Puts the objects, in this order, to all providers, then reads every one back.

    Raises:
        EnrolmentFailed: one did not read back.
        ProviderError: storage could not be read or written.
    """
    for provider in providers:
        for name, raw in objects.items():
            provider.put(name, raw)
    for provider in providers:
        for name, raw in objects.items():
            # By name, not from a listing, which may be older than the put.
            if _read_back(provider, name, len(raw)) != raw:
                raise EnrolmentFailed(provider=provider.name, name=name, reason="differs")


def _read_back(provider: Provider, name: str, size: int) -> bytes:
    try:
        return get_bounded(provider, name, size)
    except MissingObject as exc:
        raise EnrolmentFailed(provider=provider.name, name=name, reason="missing") from exc
    except VaultError as exc:
        raise EnrolmentFailed(provider=provider.name, name=name, reason="differs") from exc


def _take_back(providers: Sequence[Provider], record: EpochRecord, name: str) -> list[str]:
    """Deletes a slot that nobody is told to rely on, or a device that got no credential; returns where it may still be.

    Left lying at one provider a slot would count: as a way in, when it is warned of few; as the recovery key that has
    to stay, when another is removed; and its authenticator would be refused as having a passkey already.
    """
    with contextlib.suppress(ProviderError, VaultError):
        if next(climb(Records(*providers), record.pin, []), None) is not None:
            return []  # the keys were changed: it counts for nothing, or was taken along, and its file is needed
    left = []
    for provider in providers:
        try:
            provider.delete(name)
        except ProviderError:
            if not _is_absent(provider, name):
                left.append(provider.name)
    return left


def _is_absent(provider: Provider, name: str) -> bool:
    try:
        provider.stat(name)
    except ObjectNotFound:
        return True
    except ProviderError:
        pass
    return False


def _prove_newest(providers: Sequence[Provider], record: EpochRecord, slot_id: bytes = b"") -> None:
    """What was added to an epoch counts only if nobody ended it meanwhile, or whoever did took the slot along.

    Asked after it was written: who makes the next epoch looks for what was added right before writing that.
    """
    newer = list(climb(Records(*providers), record.pin, []))
    if newer and slot_id not in newer[-1].slots:
        raise EnrolmentFailed(name=str(newer[0].name), reason="outrun")


def _prove_slot(provider: Provider, record: EpochRecord, slot_id: bytes, method: SlotMethod) -> None:
    """Opens a slot from storage, with its secret, down to keys that are those of the record.

    One provider: the others were seen to hold the same bytes.
    """
    name = str(SlotName(slot_id))
    try:
        slot = SlotFile.parse(get_bounded(provider, name, LIMITS["slot"]))
        opened = open_slot(slot, method)
        try:
            root = opened.open_envelope(slot.envelope, record.epoch)
        finally:
            opened.wipe()
        with EpochKeys(root) as keys:
            whole = slot.pin == record.sign and record.matches(keys)
    except (KeysError, VaultError) as exc:
        raise EnrolmentFailed(provider=provider.name, name=name, reason=exc.code) from exc
    if not whole:
        raise EnrolmentFailed(provider=provider.name, name=name, reason="other-keys")
