"""Which devices a vault has: the certificates in storage, and what the newest epoch says of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.signed import LIMITS
from chatkeep.daemon.vault.chain import Chain
from chatkeep.daemon.vault.epoch import DeviceCert, DeviceEntry
from chatkeep.daemon.vault.errors import AuthenticationFailed, Malformed, ObjectMismatch, VaultError
from chatkeep.daemon.vault.fetch import get_bounded, listed
from chatkeep.daemon.vault.names import DEVICES, DeviceName
from chatkeep.providers.base import Provider

MOST_DEVICES: Final = 1024


@dataclass(frozen=True, slots=True)
class RemovedDevice:
    """A device that was removed: of what it wrote, what the entry's heads and their predecessors are counts."""

    certificate: DeviceCert
    entry: DeviceEntry


@dataclass(slots=True)
class Devices:
    """Verified certificates by device id, and what was met in storage and does not count."""

    writing: dict[bytes, DeviceCert] = field(default_factory=dict)
    removed: dict[bytes, RemovedDevice] = field(default_factory=dict)
    findings: list[ChatkeepError] = field(default_factory=list)


def read_devices(provider: Provider, chain: Chain) -> Devices:
    """The devices of the newest epoch: those that its record lists and those whose certificates it issued; and those
    that were removed. A certificate that is absent, damaged or of no epoch that counts is a finding: the other devices'
    history is still to be read.

    Raises:
        Malformed: storage lists more devices than a vault can have.
        ProviderError: storage could not be read.
    """
    found = listed(provider, DEVICES, DeviceName, MOST_DEVICES)
    if len(found) > MOST_DEVICES:
        raise Malformed(what="devices", reason="too-many", limit=MOST_DEVICES)
    head, devices = chain.head, Devices()
    for device_id in sorted({name.device_id for name in found} | head.devices.keys() | head.removed.keys()):
        try:
            admit(provider, chain, device_id, devices)
        except VaultError as exc:
            # One of another vault in the same storage too: its name carries no hash, so it may be ours and damaged.
            devices.findings.append(exc)
    return devices


def admit(provider: Provider, chain: Chain, device_id: bytes, devices: Devices) -> None:
    """Adds a device, by its certificate at this provider, to those that write or to those that were removed.

    Raises:
        AuthenticationFailed: with reason `not-listed` when the certificate is of an epoch that is over.
        VaultError: it is absent, damaged, or of nobody.
        ProviderError: storage could not be read.
    """
    name = str(DeviceName(device_id))
    signers = {record.epoch: record.sign for record in chain.records}
    cert = DeviceCert.read(get_bounded(provider, name, LIMITS["device"]), chain.head.vault_id, signers)
    if cert.device_id != device_id:
        raise ObjectMismatch(name)
    head = chain.head
    stays, gone = head.devices.get(device_id), head.removed.get(device_id)
    if gone is not None:
        # By hash, like one that stays: keys of an epoch that is over could have signed another for the same id.
        if gone.certificate != cert.sha256:
            raise AuthenticationFailed(what="device", reason="not-listed", name=name)
        devices.removed[device_id] = RemovedDevice(cert, gone)
    elif stays.certificate == cert.sha256 if stays is not None else cert.epoch == head.epoch:
        devices.writing[device_id] = cert
    else:
        # Signed by an epoch of the vault, and left out by a later one: a removed device's certificate, played back.
        raise AuthenticationFailed(what="device", reason="not-listed", name=name)
