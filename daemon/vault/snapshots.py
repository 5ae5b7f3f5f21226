"""The snapshots of a stream, newest first, and what is wrong with them (docs/format.md, sections 13 and 14).

A stream is a chain: sequence numbers rise by one from 1, and each manifest names the one before by its hash. So a
reader that has a manifest knows exactly which objects must be there, and asks for them by name: no listing is needed
for that, and none can hide one. What a listing adds is where to begin, and rivals: manifests of this device off the
chain. Where pruning has thinned the chain, the newest checkpoint takes its place: it names what lives.

Not detected: that snapshots are withheld which are newer than what a checkpoint or an epoch record knows of.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, TypeAlias

from chatkeep.daemon.vault.copies import Findings, first_whole, listed_names
from chatkeep.daemon.vault.demand import Demand
from chatkeep.daemon.vault.epoch import DeviceCert
from chatkeep.daemon.vault.errors import (
    ForkDetected,
    MissingObject,
    SnapshotsMissing,
    Unreadable,
)
from chatkeep.daemon.vault.labels import MAX_MANIFEST
from chatkeep.daemon.vault.manifest import VerifiedManifest, verify_manifest
from chatkeep.daemon.vault.names import MAX_SEQ, ManifestName
from chatkeep.providers.base import Provider

MOST_LISTED: Final = 1 << 20
"""Most manifests looked at in one listing: two years of one a minute. Storage could go on for ever."""

Listed = dict[int, set[bytes]]
"""Hashes by sequence number, as listings showed them: hints, and nothing more."""


@dataclass(frozen=True, slots=True, order=True)
class Stream:
    """One source on one device, in one incarnation."""

    device_id: bytes
    stream_id: bytes


def list_manifests(providers: Sequence[Provider], prefix: str, findings: Findings) -> dict[bytes, Listed]:
    """What all providers together list below `prefix`, by stream id.

    A provider that cannot be asked is a finding.

    Raises:
        ProviderError: none could be asked.
    """
    streams: dict[bytes, Listed] = {}
    for name in listed_names(providers, prefix, MOST_LISTED, findings):
        if isinstance(name, ManifestName):
            streams.setdefault(name.stream_id, {}).setdefault(name.seq, set()).add(name.sha256)
    return streams


Renew: TypeAlias = Callable[[], Demand]
"""Asks what must be there once more: meanwhile a snapshot may have been pruned."""


class SnapshotChain:
    """One stream's manifests, verified.

    Args:
        listed: what listings show of it; of a removed device nothing of that counts.
        demand: what must be there.
        renew: asked again when something is not.

    Attributes:
        stream: the stream.
        findings: what was wrong, as far as `walk` went.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        stream: Stream,
        cert: DeviceCert,
        listed: Listed,
        demand: Demand | None = None,
        renew: Renew | None = None,
    ) -> None:
        self._providers: Final = providers
        self._cert: Final = cert
        self._demand = Demand() if demand is None else demand
        self._listed: Final[Listed] = {} if self._demand.closed else listed
        self._numbers: Final = sorted(self._listed)
        self._renew = renew
        self.stream: Final = stream
        self.findings: Final = Findings()

    def walk(self) -> Iterator[VerifiedManifest]:
        """Yields the manifests that live, newest first, each fetched when it is drawn.

        Goes on below a gap with what storage lists there, and tells the gap. Findings are complete when the iterator is
        exhausted: damaged copies (`ObjectMismatch` and the like, with the provider), `MissingObject` or `Unreadable`
        with the name of a manifest that must be there, `SnapshotsMissing` with the numbers, `ForkDetected`.
        """
        last = MAX_SEQ + 1
        for found in self._unpruned():
            last = found.header.seq
            yield found
        yield from self._kept(last)

    def _unpruned(self) -> Iterator[VerifiedManifest]:
        """Above what the checkpoint settles: every number, each linked to the one before."""
        seq = self._below(MAX_SEQ + 1)
        link: bytes | None = None  # hash of the manifest `seq`, as the one after it says
        gap_from = 0  # newest missing number; 0: no gap is open
        # `through` may rise on the way, when a checkpoint turns up that is newer; what is below it is not yielded here.
        while seq > self._demand.through:
            demanded = self._demand.at(seq) | ({link} if link is not None else set())
            verified = self._at(seq, demanded)
            if not verified:
                gap_from = gap_from or (seq if demanded else 0)
                link = None
                seq = self._below(seq)
                continue
            self._tell_gap(seq + 1, gap_from)
            gap_from = 0
            found = next(iter(verified.values())) if link not in verified else verified[link]
            yield found
            link = found.header.prev
            seq -= 1
        self._tell_gap(1, gap_from)
        if link is not None and 0 < seq == self._demand.through and link not in self._demand.heads:
            # The rest stands on something else than what the checkpoint settled: the device's state was rolled back.
            self._tell_fork(seq, {link} | self._demand.heads)

    def _kept(self, last: int) -> Iterator[VerifiedManifest]:
        """Up to `through`, and below what was yielded: exactly what the checkpoint keeps, by its name."""
        gap_first = gap_last = 0
        seq = last
        while seq := self._demand.kept_below(min(seq, self._demand.through + 1)):
            verified = self._at(seq, self._demand.at(seq))
            if verified:
                self._tell_missing(gap_first, gap_last)
                gap_last = 0
                yield from verified.values()
            elif self._demand.at(seq):  # else it was pruned meanwhile
                gap_first, gap_last = seq, gap_last or seq
        self._tell_missing(gap_first, gap_last)

    def _below(self, seq: int) -> int:
        """Where to look next: the highest number below this one that is listed or demanded by itself; 0 for none."""
        place = bisect.bisect_left(self._numbers, seq)
        return max(self._numbers[place - 1] if place else 0, self._demand.below(seq))

    def _at(self, seq: int, demanded: AbstractSet[bytes]) -> dict[bytes, VerifiedManifest]:
        """The manifests of this number that live, by hash, those that are demanded first."""
        rivals = self._listed.get(seq, set()) - demanded if seq > self._demand.through else set()
        verified: dict[bytes, VerifiedManifest] = {}
        for sha256 in (*sorted(demanded), *sorted(rivals)):
            name = self._name(seq, sha256)
            try:
                verified[sha256] = self._read(name)
            except Unreadable as exc:
                self.findings.add(exc)
            except MissingObject as exc:
                # A listing that shows what was deleted since is none; nor is missing what was pruned since.
                if sha256 in demanded and not self._pruned_since(seq, sha256):
                    self.findings.add(exc)
        if seq <= self._demand.through:
            # A checkpoint has settled what lives of this number; what it does not keep is nobody's rival.
            demanded = self._demand.at(seq)
            verified = {sha256: one for sha256, one in verified.items() if sha256 in demanded}
        if len(verified.keys() | demanded) > 1:
            # Two manifests with one number: the device's state was copied or rolled back, or its key is in other hands.
            self._tell_fork(seq, verified.keys() | demanded)
        return verified

    def _read(self, name: ManifestName) -> VerifiedManifest:
        return first_whole(
            self._providers, name, MAX_MANIFEST, lambda raw: verify_manifest(raw, name, self._cert), self.findings
        )

    def _pruned_since(self, seq: int, sha256: bytes) -> bool:
        """Whether a checkpoint that is newer than the one this walk began with lets this one go.

        A checkpoint is there before anything is deleted for it. So when one question brings nothing new, no more are
        asked: a stream with a thousand snapshots missing is not to cost a thousand listings.
        """
        if self._renew is not None:
            before, self._demand = self._demand, self._renew()
            if self._demand == before:
                self._renew = None
        return self._demand.pruned(seq, sha256)

    def _tell_gap(self, first: int, last: int) -> None:
        """Numbers of the chain; those that were settled meanwhile are for `_kept` to tell."""
        self._tell_missing(max(first, self._demand.through + 1), last)

    def _tell_missing(self, first: int, last: int) -> None:
        if 0 < first <= last:
            device, stream = self.stream.device_id.hex(), self.stream.stream_id.hex()
            self.findings.add(SnapshotsMissing(device=device, stream=stream, first=first, last=last))

    def _tell_fork(self, seq: int, hashes: Iterable[bytes]) -> None:
        names = sorted(str(self._name(seq, sha256)) for sha256 in hashes)
        self.findings.add(ForkDetected(what="stream", seq=seq, names=names))

    def _name(self, seq: int, sha256: bytes) -> ManifestName:
        return ManifestName(self.stream.device_id, self.stream.stream_id, seq, sha256)
