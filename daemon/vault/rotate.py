"""The next epoch of a vault: new keys, and only those slots and devices that stay (docs/format.md, section 4).

Nobody has to be present: each slot that stays is reached through its public key. That key is taken from nowhere but a
slot file whose hash the newest record lists, or that the newest epoch itself signed. A file that storage changed, or
brought back from before a removal, gets no envelope: otherwise it would be storage who says who reads.

What this cannot do: what was sealed before stays readable to whoever held a removed key and kept it, and whoever holds
the old root secret and can also write to storage can show a rival epoch to a machine that never saw this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.errors import TextMalformed
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import seal_envelope
from chatkeep.daemon.vault.agree import agree, fill_up, prove, unreachable
from chatkeep.daemon.vault.create import write_everywhere
from chatkeep.daemon.vault.epoch import DeviceEntry, EpochRecord, ListedSlot, create_record
from chatkeep.daemon.vault.errors import RotationRefused
from chatkeep.daemon.vault.heads import read_entries
from chatkeep.daemon.vault.members import Members, read_members
from chatkeep.daemon.vault.names import DeviceName, SlotName
from chatkeep.daemon.vault.unlocked import Enrolment, UnlockedVault
from chatkeep.providers.base import Provider, ProviderError

_RECOVERY: Final = "recovery-64"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the next epoch will be, to be shown before it is made.

    Attributes:
        slots, removed_slots: those that stay and those that go. One that goes may be known by its id alone: its file
            is damaged.
        devices, removed_devices: entries of the devices that stay, and of all that are removed, from earlier on too.
        going: ids of the devices that go now.
        findings: what was wrong in storage and does not count.
    """

    slots: Mapping[bytes, SlotFile]
    removed_slots: Mapping[bytes, SlotFile | None]
    devices: Mapping[bytes, DeviceEntry]
    removed_devices: Mapping[bytes, DeviceEntry]
    going: frozenset[bytes]
    members: Members
    findings: tuple[ChatkeepError, ...]


def plan_rotation(
    providers: Sequence[Provider],
    vault: UnlockedVault,
    remove_slots: Iterable[bytes] = (),
    remove_devices: Iterable[bytes] = (),
) -> Plan:
    """What the epoch after the newest of `vault` will be. Reads from every provider; writes nothing.

    Raises:
        RotationRefused: it cannot be made so; says why.
    """
    gone_slots, gone_devices = frozenset(remove_slots), frozenset(remove_devices)
    try:
        members = read_members(providers, vault.records)
        _check_ids(members, vault, gone_slots, gone_devices)
        entries, findings = read_entries(providers, vault.records, members.devices, gone_devices)
    except ProviderError as exc:
        raise unreachable(exc) from exc
    slots = {slot_id: slot for slot_id, slot in members.slots.items() if slot_id not in gone_slots}
    if not any(slot.kind == _RECOVERY for slot in slots.values()):
        raise RotationRefused(reason="last-recovery-key")
    return Plan(
        slots=slots,
        removed_slots={slot_id: members.slots.get(slot_id) for slot_id in sorted(gone_slots)},
        devices={device_id: entry for device_id, entry in entries.items() if device_id not in gone_devices},
        removed_devices={
            **vault.head.removed,
            **{device_id: entries[device_id] for device_id in gone_devices if device_id in entries},
        },
        going=gone_devices,
        members=members,
        findings=(*members.findings, *findings),
    )


def rotate(providers: Sequence[Provider], enrolment: Enrolment, plan: Plan) -> EpochRecord:
    """Makes the next epoch as planned, at every provider, and proves it by walking to it at each.

    Killed or failed at any instant, either no provider has it, or some do: `unlock_newest` then finishes that very one.

    Args:
        enrolment: at the newest epoch of all providers (`unlock_newest`), the one that was planned from.

    Raises:
        RotationRefused: nothing was written of the new epoch.
        ForkDetected: another next epoch is there.
        EnrolmentFailed: it is written, and did not read back or cannot be reached by a walk.
        ProviderError: a provider failed while it was written.
    """
    vault = enrolment.vault
    # What the new record builds on must be wherever it is: a provider on its own has to open with what it has.
    fill_up(providers, {str(record.name): record.raw for record in vault.records} | _files(plan))
    with EpochKeys(RootSecret.generate()) as keys:
        record = _record(enrolment, keys, plan)
    newest, _ = agree(providers, vault.records)
    if newest.sha256 != vault.head.sha256:
        raise RotationRefused(reason="outrun", name=str(newest.name))
    _check_added(providers, vault, plan)
    write_everywhere(providers, {str(record.name): record.raw})
    prove(providers, record, vault.records[0])
    return record


def _record(enrolment: Enrolment, keys: EpochKeys, plan: Plan) -> EpochRecord:
    head = enrolment.vault.head
    epoch = head.epoch + 1
    slots = {
        slot_id: ListedSlot(slot.sha256, seal_envelope(keys.root, slot.public, head.vault_id, epoch, slot_id))
        for slot_id, slot in plan.slots.items()
    }
    try:
        return create_record(keys, head.vault_id, (head, enrolment.keys), slots, plan.devices, plan.removed_devices)
    except TextMalformed as exc:
        raise RotationRefused(reason="too-long") from exc


def _files(plan: Plan) -> dict[str, bytes]:
    members = plan.members
    files = {str(SlotName(slot_id)): slot.raw for slot_id, slot in plan.slots.items()}
    return files | {str(DeviceName(device_id)): cert.raw for device_id, cert in members.certificates.items()}


def _check_added(providers: Sequence[Provider], vault: UnlockedVault, plan: Plan) -> None:
    """Somebody may have added a way in or a device since it was planned, while a person was asked, and was told that it
    counts: the new epoch would leave it out."""
    try:
        now = read_members(providers, vault.records)
    except ProviderError as exc:
        raise unreachable(exc) from exc
    slots = (now.slots.keys() | now.doubtful_slots.keys()) - plan.slots.keys() - plan.removed_slots.keys()
    devices = (now.devices.keys() | now.doubtful_devices.keys()) - plan.devices.keys() - plan.going
    if slots or devices:
        raise RotationRefused(reason="added", id=min(slots or devices).hex())


def _check_ids(
    members: Members, vault: UnlockedVault, gone_slots: frozenset[bytes], gone_devices: frozenset[bytes]
) -> None:
    """Every id that goes is there to go, and nothing that may count is passed over because it is damaged."""
    for slot_id in sorted(gone_slots - members.slots.keys() - members.doubtful_slots.keys()):
        reason = "removed-slot" if slot_id in members.removed_slots else "unknown-slot"
        raise RotationRefused(reason=reason, id=slot_id.hex())
    for device_id in sorted(gone_devices - members.devices.keys() - members.doubtful_devices.keys()):
        reason = "removed-device" if device_id in members.removed_devices else "unknown-device"
        raise RotationRefused(reason=reason, id=device_id.hex())
    if vault.slot_id in gone_slots:
        # It would be taken on trust that another way in is in anybody's hands.
        raise RotationRefused(reason="own-slot", id=vault.slot_id.hex())
    for slot_id in sorted(members.doubtful_slots.keys() - gone_slots):
        raise RotationRefused(reason=members.doubtful_slots[slot_id], id=slot_id.hex())
    for device_id in sorted(members.doubtful_devices.keys() - gone_devices):
        raise RotationRefused(reason=members.doubtful_devices[device_id], id=device_id.hex())
