"""What is newest of each device: what the next epoch record says of it, and holds readers to.

Of a device that stays it is a lower bound: storage that shows less has lost something. Of one that is removed it is the
end: what comes later was written by whoever has its key then. So all providers together are asked, and what the record
before said is never taken back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.vault.checkpoint import VerifiedCheckpoint, newest_checkpoint
from chatkeep.daemon.vault.copies import Findings, first_whole
from chatkeep.daemon.vault.demand import demand_of, streams_of
from chatkeep.daemon.vault.endings import find_ending
from chatkeep.daemon.vault.epoch import DeviceCert, DeviceEntry, EpochRecord, Head
from chatkeep.daemon.vault.errors import ForkDetected, MissingObject, SnapshotsMissing, Unreadable
from chatkeep.daemon.vault.labels import MAX_MANIFEST
from chatkeep.daemon.vault.manifest import VerifiedManifest, verify_manifest
from chatkeep.daemon.vault.names import ManifestName, streams_prefix
from chatkeep.daemon.vault.snapshots import list_manifests
from chatkeep.providers.base import Provider, ProviderError


def read_entries(
    providers: Sequence[Provider],
    records: Sequence[EpochRecord],
    devices: Mapping[bytes, DeviceCert],
    ending: Collection[bytes] = (),
) -> tuple[dict[bytes, DeviceEntry], tuple[ChatkeepError, ...]]:
    """The entries of these devices, and of those that the newest record lists; and what was wrong in storage.

    Args:
        ending: of these devices nothing will count but what their heads stand on, so that is read.

    Raises:
        ProviderError: a provider could not be asked.
    """
    findings = Findings()
    entries = dict(records[-1].devices)
    for device_id, cert in devices.items():
        before = entries.get(device_id, DeviceEntry(cert.sha256, {}, None))
        newest = newest_checkpoint(providers, device_id, records, findings)
        heads = dict(before.heads)
        if device_id in ending:
            heads |= _endings(providers, cert, newest, heads, findings)
        else:
            for stream_id, head in _heads(providers, cert, findings).items():
                if stream_id not in heads or heads[stream_id].seq < head.seq:
                    heads[stream_id] = head
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


def _endings(
    providers: Sequence[Provider],
    cert: DeviceCert,
    checkpoint: VerifiedCheckpoint | None,
    said: Mapping[bytes, Head],
    findings: Findings,
) -> dict[bytes, Head]:
    """The manifest of each stream that the history of the device ends with."""
    device_id = cert.device_id
    listed = list_manifests(providers, streams_prefix(device_id), findings)
    heads: dict[bytes, Head] = {}
    for stream_id in {*streams_of(listed, checkpoint, None, removed=False), *said}:

        def previous(head: Head) -> bytes | None:
            name = ManifestName(device_id, stream_id, *astuple(head))  # noqa: B023  # used before it changes
            found = _read(providers, name, cert, findings)
            return None if found is None else found.header.prev

        shown = [Head(seq, sha256) for seq, some in listed.get(stream_id, {}).items() for sha256 in some]
        demand = demand_of(stream_id, checkpoint, None, removed=False)
        end = find_ending(shown, previous, (demand.through, demand.heads), said.get(stream_id))
        if end is None:
            continue
        heads[stream_id] = end.head
        for first, last in end.missing:
            stream = {"device": device_id.hex(), "stream": stream_id.hex()}
            findings.add(SnapshotsMissing(**stream, first=first, last=last))
        for seq, rivals in end.forks.items():
            names = [str(ManifestName(device_id, stream_id, seq, sha256)) for sha256 in rivals]
            findings.add(ForkDetected(what="stream", seq=seq, names=names))
    return heads


def _read(
    providers: Sequence[Provider], name: ManifestName, cert: DeviceCert, findings: Findings
) -> VerifiedManifest | None:
    try:
        return first_whole(providers, name, MAX_MANIFEST, lambda raw: verify_manifest(raw, name, cert), findings)
    except (MissingObject, Unreadable):
        return None  # told in the findings by whoever refused it
