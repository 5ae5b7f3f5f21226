"""Which devices a vault has: the certificates in storage, and what the newest epoch says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.signed import LIMITS
from chatkeep.daemon.vault.chain import Chain
from chatkeep.daemon.vault.epoch import DeviceCert, DeviceEntry
from chatkeep.daemon.vault.errors import AuthenticationFailed, Malformed, MissingObject, ObjectMismatch, VaultError
from chatkeep.daemon.vault.fetch import get_bounded, listed
from chatkeep.daemon.vault.names import DEVICES, DeviceName
from chatkeep.providers.base import Provider, ProviderError

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


def read_devices(provider: Provider, chain: Chain, others: Sequence[Provider] = ()) -> Devices:
    """The devices of the newest epoch: those that its record lists and those whose certificates it issued; and those
    that were removed. A certificate that is absent, damaged or of no epoch that counts is a finding: the other devices'
    history is still to be read.

    Args:
        others: where certificates are asked for too. One provider alone could have lost one, and the newest snapshots
            of a device would be passed over in silence. One that cannot be asked is passed over.

    Raises:
        Malformed: `provider` lists more devices than a vault can have.
        ProviderError: `provider` could not be read.
    """
    head, devices = chain.head, Devices()
    ids = _listed(provider) | head.devices.keys() | head.removed.keys()
    there = [provider]
    for other in others:
        if other is provider:
            continue
        try:
            ids |= _listed(other)
            there.append(other)
        except ProviderError:
            continue
        except VaultError as exc:
            exc.params.setdefault("provider", other.name)
            devices.findings.append(exc)
    for device_id in sorted(ids):
        _admit_once(there, chain, device_id, devices)
    return devices


def _listed(provider: Provider) -> set[bytes]:
    found = listed(provider, DEVICES, DeviceName, MOST_DEVICES)
    if len(found) > MOST_DEVICES:
        raise Malformed(what="devices", reason="too-many", limit=MOST_DEVICES)
    return {name.device_id for name in found}


def _admit_once(providers: Sequence[Provider], chain: Chain, device_id: bytes, devices: Devices) -> None:
    """Adds a device by the first copy of its certificate that counts; the others' are findings."""
    problems: dict[tuple[str, object], VaultError] = {}
    admitted = False
    for provider in providers:
        try:
            admit(provider, chain, device_id, devices)
            admitted = True
            break
        except VaultError as exc:
            # One of another vault in the same storage too: its name carries no hash, so it may be ours and damaged.
            exc.params.setdefault("provider", provider.name)
            problems.setdefault((exc.code, exc.params.get("reason")), exc)
        except ProviderError:
            if provider is providers[0]:
                raise
    seen = [one for one in problems.values() if not isinstance(one, MissingObject)]
    # A provider that has none may be behind: that none of them has it is told.
    devices.findings += seen if admitted or seen else problems.values()


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
