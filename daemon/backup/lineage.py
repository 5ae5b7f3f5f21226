"""Before a backup: is what these records say still the newest of this device, at every provider?

A state directory that was restored from an image, or copied to another machine, would continue a chain that has gone on
without it: two snapshots with one number, which readers take for an attack. So the device looks at its own manifests
first. It has no key to read them; that it signed them itself is proof enough. What storage made up is never a reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from chatkeep.daemon.state import State
from chatkeep.daemon.vault.checkpoint import verify_checkpoint
from chatkeep.daemon.vault.copies import Findings, first_whole
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.epoch import DeviceCert
from chatkeep.daemon.vault.errors import Malformed, MissingObject, Unreadable, VaultError
from chatkeep.daemon.vault.labels import MAX_CHECKPOINT, MAX_MANIFEST
from chatkeep.daemon.vault.manifest import verify_manifest
from chatkeep.daemon.vault.names import CheckpointName, ManifestName, checkpoints_prefix, parse, streams_prefix
from chatkeep.daemon.vault.snapshots import Listed, list_manifests
from chatkeep.providers.base import Provider

MOST_TRIED: Final = 64
"""Names tried for each stream: storage could list any number that are not of this device."""


@dataclass
class Lineage:
    """What was found.

    Attributes:
        ahead: active streams that went on without these records, or have another manifest where these have one.
        strangers: streams of this device that these records know nothing of.
        checkpoint: the highest number of a checkpoint that these records know nothing of, and that is this device's.
        rumoured: the highest number listed, whoever made it.
        findings: what storage shows under this device's names and the device did not sign.
    """

    ahead: set[bytes] = field(default_factory=set)
    strangers: set[bytes] = field(default_factory=set)
    checkpoint: int = 0
    rumoured: int = 0
    findings: Findings = field(default_factory=Findings)

    def join(self, other: Lineage) -> None:
        """What was found at another provider too."""
        self.ahead |= other.ahead
        self.strangers |= other.strangers
        self.checkpoint = max(self.checkpoint, other.checkpoint)
        self.rumoured = max(self.rumoured, other.rumoured)
        for finding in other.findings:
            self.findings.add(finding)


def inspect(provider: Provider, credential: WriterCredential, state: State) -> Lineage:
    """Compare a provider with the records. Raises ProviderError when it cannot be asked."""
    found = Lineage()
    view = _View(provider, credential, found.findings)
    heads, active, seen = state.lineage.heads(), state.lineage.active(), state.lineage.seen()
    for stream, listed in list_manifests([provider], streams_prefix(credential.device_id), found.findings).items():
        if stream not in heads:
            if stream not in seen and view.is_own(stream, _newest(listed)):
                found.strangers.add(stream)
        elif stream in active and view.is_own(stream, _rivals(listed, heads[stream], active[stream][1])):
            found.ahead.add(stream)
    _checkpoints(provider, credential, state.lineage.last_checkpoint(), found)
    return found


def _newest(listed: Listed) -> Iterable[tuple[int, bytes]]:
    return ((seq, sha256) for seq in sorted(listed, reverse=True) for sha256 in sorted(listed[seq]))


def _rivals(listed: Listed, own: Mapping[int, str], head: int) -> Iterable[tuple[int, bytes]]:
    """What is not these records': first what follows their newest, then what stands beside one of theirs."""
    for seq in sorted(seq for seq in listed if seq > head):
        yield from ((seq, sha256) for sha256 in sorted(listed[seq]))
    for seq in sorted(listed.keys() & own.keys(), reverse=True):
        yield from ((seq, sha256) for sha256 in sorted(listed[seq]) if not own[seq].endswith(sha256.hex()))


class _View:
    """What one provider shows under this device's names."""

    def __init__(self, provider: Provider, credential: WriterCredential, findings: Findings) -> None:
        self._provider = provider
        self._findings = findings
        known = credential
        # Whose name is meant is known here: no certificate is needed to know one's own key.
        self._self = DeviceCert(known.vault_id, known.device_id, known.epoch, known.device_key.public, b"", b"")

    def is_own(self, stream: bytes, candidates: Iterable[tuple[int, bytes]]) -> bool:
        """Whether this device signed one of the manifests."""
        tried = 0
        for seq, sha256 in itertools.islice(candidates, MOST_TRIED):
            tried += 1
            name = ManifestName(self._self.device_id, stream, seq, sha256)
            try:
                first_whole(
                    [self._provider],
                    name,
                    MAX_MANIFEST,
                    lambda raw: verify_manifest(raw, name, self._self),  # noqa: B023  # used before it changes
                    self._findings,
                )
            except (MissingObject, Unreadable):
                continue  # refused copies are in the findings; what is only listed was deleted since
            return True
        if tried == MOST_TRIED:
            prefix = streams_prefix(self._self.device_id) + stream.hex()
            self._findings.add(Malformed(what="listing", reason="too-many", name=prefix), provider=self._provider.name)
        return False


def _checkpoints(provider: Provider, credential: WriterCredential, last: int, found: Lineage) -> None:
    prefix = checkpoints_prefix(credential.device_id)
    listed: list[CheckpointName] = []
    for shown in provider.list(prefix):
        try:
            name = parse(shown.name)
        except Malformed:
            continue
        if isinstance(name, CheckpointName) and name.number > last:
            listed.append(name)
    found.rumoured = max((name.number for name in listed), default=0)
    keys = {credential.epoch: credential.checkpoint}
    for name in sorted(listed, key=lambda one: one.number, reverse=True)[:MOST_TRIED]:
        try:
            first_whole(
                [provider],
                name,
                MAX_CHECKPOINT,
                lambda raw: verify_checkpoint(raw, name, credential.vault_id, keys),  # noqa: B023  # used before
                Findings(),  # of an epoch that is over, it cannot be told from what somebody made up
            )
        except VaultError:
            continue
        found.checkpoint = name.number
        return
