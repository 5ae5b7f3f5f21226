"""Which slots and devices are of the newest epoch, as all providers together have their files.

Of an epoch are those that its record lists, by the hash of their file, and those whose file it issued and signed. What
is neither and was signed by an epoch that is over was removed. A file that is neither because it is damaged may have
been either: it is *doubtful*, and whoever makes the next epoch must not decide for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.errors import KeysError
from chatkeep.daemon.keys.signed import LIMITS
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.vault.chain import Chain
from chatkeep.daemon.vault.devices import MOST_DEVICES, Devices, admit
from chatkeep.daemon.vault.epoch import DeviceCert, EpochRecord
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    Malformed,
    MissingObject,
    ObjectMismatch,
    VaultError,
    WrongVault,
)
from chatkeep.daemon.vault.fetch import get_bounded, listed
from chatkeep.daemon.vault.names import DEVICES, SLOTS, DeviceName, SlotName
from chatkeep.daemon.vault.unlock import MOST_SLOTS
from chatkeep.providers.base import Provider


@dataclass(slots=True)
class Members:
    """What is of the newest epoch, by id.

    Attributes:
        slots: verified slot files.
        removed_slots: slots that were, by a file of an epoch that is over.
        doubtful_slots: slots that may be of it, and no provider shows so: the reason, as `RotationRefused` has it.
        devices: verified certificates.
        removed_devices: certificates of devices that were removed.
        doubtful_devices: as of slots.
        findings: what was wrong in storage.
    """

    slots: dict[bytes, SlotFile] = field(default_factory=dict)
    removed_slots: set[bytes] = field(default_factory=set)
    doubtful_slots: dict[bytes, str] = field(default_factory=dict)
    devices: dict[bytes, DeviceCert] = field(default_factory=dict)
    removed_devices: dict[bytes, DeviceCert | None] = field(default_factory=dict)
    doubtful_devices: dict[bytes, str] = field(default_factory=dict)
    findings: list[ChatkeepError] = field(default_factory=list)

    @property
    def certificates(self) -> dict[bytes, DeviceCert]:
        """Those of the devices that write and of those that were removed, as far as they were found."""
        removed = {device_id: cert for device_id, cert in self.removed_devices.items() if cert is not None}
        return removed | self.devices


def read_members(providers: Sequence[Provider], records: Sequence[EpochRecord]) -> Members:
    """The members of the newest of these epochs, which are verified and begin with the first.

    Raises:
        Malformed: a provider lists more files than a vault can have.
        ProviderError: a provider could not be asked.
    """
    members = Members()
    _Slots(providers, records, members).read()
    _Devices(providers, records, members).read()
    return members


def slot_members(providers: Sequence[Provider], records: Sequence[EpochRecord]) -> Members:
    """As `read_members`, slots only."""
    members = Members()
    _Slots(providers, records, members).read()
    return members


def device_members(providers: Sequence[Provider], records: Sequence[EpochRecord]) -> Members:
    """As `read_members`, devices only."""
    members = Members()
    _Devices(providers, records, members).read()
    return members


class _Slots:
    def __init__(self, providers: Sequence[Provider], records: Sequence[EpochRecord], members: Members) -> None:
        self._providers = providers
        self._records = records
        self._head = records[-1]
        self._members = members

    def read(self) -> None:
        names: set[bytes] = set(self._head.slots)
        before = {slot_id for record in self._records for slot_id in record.slots}
        self._members.removed_slots |= before - names
        for provider in self._providers:
            found = listed(provider, SLOTS, SlotName, MOST_SLOTS)
            if len(found) > MOST_SLOTS:
                raise Malformed(what="slots", reason="too-many", limit=MOST_SLOTS)
            names.update(name.slot_id for name in found)
        for slot_id in sorted(names):
            self._read_one(slot_id)

    def _read_one(self, slot_id: bytes) -> None:
        """Sorts one slot in, by the copies of all providers: any that is whole and counts suffices."""
        members, found, problems = self._members, dict[bytes, SlotFile](), list[ChatkeepError]()
        for provider in self._providers:
            try:
                slot = self._counting(provider, slot_id)
                if slot is None:
                    members.removed_slots.add(slot_id)
                else:
                    found[slot.sha256] = slot
            except (MissingObject, WrongVault):
                continue
            except (KeysError, VaultError) as exc:
                exc.params.setdefault("name", str(SlotName(slot_id)))
                problems.append(exc)
        members.findings += problems
        if len(found) == 1:
            (members.slots[slot_id],) = found.values()
        elif found:
            members.doubtful_slots[slot_id] = "slot-twice"
        elif slot_id in self._head.slots or (problems and slot_id not in members.removed_slots):
            members.doubtful_slots[slot_id] = "slot-damaged"

    def _counting(self, provider: Provider, slot_id: bytes) -> SlotFile | None:
        """The slot if this copy of its file counts; None if an epoch that is over issued it."""
        name = str(SlotName(slot_id))
        slot = SlotFile.parse(get_bounded(provider, name, LIMITS["slot"]))
        entry = self._head.slots.get(slot_id)
        if entry is not None:
            if slot.sha256 != entry.file:
                raise ObjectMismatch(name, listed_in=str(self._head.name))
            return slot
        if slot.vault_id != self._head.vault_id:
            raise WrongVault(what="slot", name=name)
        if slot.slot_id != slot_id:
            raise ObjectMismatch(name)
        issuer = next((record for record in self._records if record.epoch == slot.epoch), None)
        # `parse` has verified the signature with the slot's own `pin`: whose that is, is the question.
        if issuer is None or slot.pin != issuer.sign:
            raise AuthenticationFailed(what="slot", reason="pin", name=name)
        return slot if issuer is self._head else None


class _Devices:
    def __init__(self, providers: Sequence[Provider], records: Sequence[EpochRecord], members: Members) -> None:
        self._providers = providers
        self._chain = Chain(list(records))
        self._members = members

    def read(self) -> None:
        head = self._chain.head
        names: set[bytes] = head.devices.keys() | head.removed.keys()
        for provider in self._providers:
            found = listed(provider, DEVICES, DeviceName, MOST_DEVICES)
            if len(found) > MOST_DEVICES:
                raise Malformed(what="devices", reason="too-many", limit=MOST_DEVICES)
            names.update(name.device_id for name in found)
        for device_id in sorted(names):
            self._read_one(device_id)

    def _read_one(self, device_id: bytes) -> None:
        members, head = self._members, self._chain.head
        writing, removed = dict[bytes, DeviceCert](), device_id in head.removed
        problems: list[ChatkeepError] = []
        if removed:
            members.removed_devices[device_id] = None
        for provider in self._providers:
            devices = Devices()
            try:
                admit(provider, self._chain, device_id, devices)
            except (MissingObject, WrongVault):
                continue
            except AuthenticationFailed as exc:
                if exc.params.get("reason") == "not-listed" and not removed and device_id not in head.devices:
                    members.removed_devices.setdefault(device_id, None)
                else:
                    problems.append(exc)
            except VaultError as exc:
                problems.append(exc)
            writing.update({cert.sha256: cert for cert in devices.writing.values()})
            members.removed_devices.update({key: gone.certificate for key, gone in devices.removed.items()})
        for problem in problems:
            problem.params.setdefault("name", str(DeviceName(device_id)))
        members.findings += problems
        if len(writing) == 1:
            (members.devices[device_id],) = writing.values()
        elif writing:
            members.doubtful_devices[device_id] = "device-twice"
        elif device_id in head.devices or (problems and device_id not in members.removed_devices):
            members.doubtful_devices[device_id] = "device-damaged"
