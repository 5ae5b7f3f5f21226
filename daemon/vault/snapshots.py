"""The snapshots of a stream, newest first, and what is wrong with them (docs/format.md, section 13).

A stream is a chain: sequence numbers rise by one from 1, and each manifest names the one before by its hash. So a
reader that has a manifest knows exactly which objects must be there, and asks for them by name: no listing is needed
for that, and none can hide one. What a listing adds is where to begin, and rivals: manifests of this device off the
chain.

Not detected in version 1, which has no checkpoints: that the newest snapshots are withheld.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chatkeep.daemon.vault.copies import Findings, first_whole
from chatkeep.daemon.vault.epoch import DeviceCert
from chatkeep.daemon.vault.errors import (
    ForkDetected,
    Malformed,
    MissingObject,
    SnapshotsMissing,
    Unreadable,
)
from chatkeep.daemon.vault.labels import MAX_MANIFEST
from chatkeep.daemon.vault.manifest import VerifiedManifest, verify_manifest
from chatkeep.daemon.vault.names import ManifestName, parse, streams_prefix
from chatkeep.providers.base import Provider, ProviderError

MOST_LISTED: Final = 1 << 20
"""Most manifests looked at in one listing: two years of one a minute. Storage could go on for ever."""

Listed = dict[int, set[bytes]]
"""Hashes by sequence number, as listings showed them: hints, and nothing more."""


@dataclass(frozen=True, slots=True, order=True)
class Stream:
    """One source on one device, in one incarnation."""

    device_id: bytes
    stream_id: bytes


def list_streams(
    providers: Sequence[Provider], devices: Mapping[bytes, DeviceCert], findings: Findings
) -> list[Stream]:
    """The streams of the given devices, in order. Raises as `list_manifests` does."""
    found = [
        Stream(device_id, stream_id)
        for device_id in devices
        for stream_id in list_manifests(providers, streams_prefix(device_id), findings)
    ]
    return sorted(found)


def list_manifests(providers: Sequence[Provider], prefix: str, findings: Findings) -> dict[bytes, Listed]:
    """What all providers together list below `prefix`, by stream id.

    A provider that cannot be asked is a finding.

    Raises:
        ProviderError: none could be asked.
    """
    streams: dict[bytes, Listed] = {}
    failures: list[ProviderError] = []
    for provider in providers:
        try:
            for count, found in enumerate(provider.list(prefix)):
                if count >= MOST_LISTED:
                    findings.add(Malformed(what="listing", reason="too-many"), provider=provider.name, name=prefix)
                    break
                try:
                    name = parse(found.name)
                except Malformed:
                    continue  # no name of ours: somebody else's file
                if isinstance(name, ManifestName):
                    streams.setdefault(name.stream_id, {}).setdefault(name.seq, set()).add(name.sha256)
        except ProviderError as exc:
            findings.add(exc, provider=provider.name)
            failures.append(exc)
    if len(failures) == len(providers):
        raise failures[0]
    return streams


class SnapshotChain:
    """One stream's manifests, verified.

    Attributes:
        stream: the stream.
        findings: what was wrong, as far as `walk` went.
    """

    def __init__(self, providers: Sequence[Provider], stream: Stream, cert: DeviceCert, listed: Listed) -> None:
        self._providers: Final = providers
        self._cert: Final = cert
        self._listed: Final = listed
        self.stream: Final = stream
        self.findings: Final = Findings()

    def walk(self) -> Iterator[VerifiedManifest]:
        """Yields the manifests, newest first, each fetched when it is drawn.

        Goes on below a gap with what storage lists there, and tells the gap. Findings are complete when the iterator is
        exhausted: damaged copies (`ObjectMismatch` and the like, with the provider), `MissingObject` or `Unreadable`
        with the name of a manifest that the chain demands, `SnapshotsMissing` with the numbers, `ForkDetected`.
        """
        seq = max(self._listed, default=0)
        link: bytes | None = None  # hash of the manifest `seq`, as the one after it says
        gap_from = 0  # newest missing number; 0: no gap is open
        while seq >= 1:
            found = self._at(seq, link)
            if found is None:
                gap_from = gap_from or (seq if link is not None else 0)
                link = None
                seq = max((number for number in self._listed if number < seq), default=0)
                continue
            if gap_from:
                self._tell_gap(seq + 1, gap_from)
                gap_from = 0
            yield found
            link = found.header.prev
            seq -= 1
        if gap_from:
            self._tell_gap(1, gap_from)

    def _at(self, seq: int, link: bytes | None) -> VerifiedManifest | None:
        """The manifest of this number: the one that is linked, else one that is listed."""
        demanded = set() if link is None else {link}
        verified = {}
        for sha256 in (*demanded, *sorted(self._listed.get(seq, set()) - demanded)):
            name = ManifestName(self.stream.device_id, self.stream.stream_id, seq, sha256)
            try:
                verified[sha256] = self._read(name)
            except Unreadable as exc:
                self.findings.add(exc)
            except MissingObject as exc:
                if sha256 == link:
                    self.findings.add(exc)  # a listing that shows what was deleted since is none
        if len(verified) + len(demanded - verified.keys()) > 1:
            # Two manifests with one number: the device's state was copied or rolled back, or its key is in other hands.
            names = sorted(str(one.name) for one in verified.values())
            self.findings.add(ForkDetected(what="stream", seq=seq, names=names))
        return next(iter(verified.values()), None)

    def _read(self, name: ManifestName) -> VerifiedManifest:
        return first_whole(
            self._providers, name, MAX_MANIFEST, lambda raw: verify_manifest(raw, name, self._cert), self.findings
        )

    def _tell_gap(self, first: int, last: int) -> None:
        device, stream = self.stream.device_id.hex(), self.stream.stream_id.hex()
        self.findings.add(SnapshotsMissing(device=device, stream=stream, first=first, last=last))
