"""What is newest of each device: what the next epoch record says of it, and holds readers to.

Of a device that stays it is a lower bound: storage that shows less has lost something. Of one that is removed it is the
end: what comes later was written by whoever has its key then. So all providers together are asked, and what the record
before said is never taken back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.vault.checkpoint import newest_checkpoint
from chatkeep.daemon.vault.copies import Findings, first_whole
from chatkeep.daemon.vault.epoch import DeviceCert, DeviceEntry, EpochRecord, Head
from chatkeep.daemon.vault.errors import ForkDetected, MissingObject, Unreadable
from chatkeep.daemon.vault.labels import MAX_MANIFEST
from chatkeep.daemon.vault.manifest import VerifiedManifest, verify_manifest
from chatkeep.daemon.vault.names import ManifestName, streams_prefix
from chatkeep.daemon.vault.snapshots import list_manifests
from chatkeep.providers.base import Provider, ProviderError


def read_entries(
    providers: Sequence[Provider], records: Sequence[EpochRecord], devices: Mapping[bytes, DeviceCert]
) -> tuple[dict[bytes, DeviceEntry], tuple[ChatkeepError, ...]]:
    """The entries of these devices, and of those that the newest record lists; and what was wrong in storage.

    Raises:
        ProviderError: a provider could not be asked.
    """
    findings = Findings()
    entries = dict(records[-1].devices)
    for device_id, cert in devices.items():
        before = entries.get(device_id, DeviceEntry(cert.sha256, {}, None))
        heads = dict(before.heads)
        for stream_id, head in _heads(providers, cert, findings).items():
            if stream_id not in heads or heads[stream_id].seq < head.seq:
                heads[stream_id] = head
        newest = newest_checkpoint(providers, device_id, records, findings)
        checkpoint = before.checkpoint
        if newest is not None and (checkpoint is None or checkpoint.seq < newest.checkpoint.number):
            checkpoint = Head(newest.checkpoint.number, newest.name.sha256)
        entries[device_id] = DeviceEntry(cert.sha256, heads, checkpoint)
    for problem in findings:
        # Passed over by a reader, who takes what there is. Here it could be the one provider with the newest snapshot.
        if isinstance(problem, ProviderError):
            raise problem
    return entries, tuple(findings)


def _heads(providers: Sequence[Provider], cert: DeviceCert, findings: Findings) -> dict[bytes, Head]:
    """The newest manifest of each stream that the device signed."""
    heads: dict[bytes, Head] = {}
    for stream_id, listed in list_manifests(providers, streams_prefix(cert.device_id), findings).items():
        for seq in sorted(listed, reverse=True):
            names = [ManifestName(cert.device_id, stream_id, seq, sha256) for sha256 in sorted(listed[seq])]
            verified = [found for found in (_read(providers, name, cert, findings) for name in names) if found]
            if len(verified) > 1:
                rivals = [str(one.name) for one in verified]
                findings.add(ForkDetected(what="stream", seq=seq, names=rivals))
            if verified:
                heads[stream_id] = Head(seq, verified[0].name.sha256)
                break
    return heads


def _read(
    providers: Sequence[Provider], name: ManifestName, cert: DeviceCert, findings: Findings
) -> VerifiedManifest | None:
    try:
        return first_whole(providers, name, MAX_MANIFEST, lambda raw: verify_manifest(raw, name, cert), findings)
    except (MissingObject, Unreadable):
        return None  # told in the findings by whoever refused it
