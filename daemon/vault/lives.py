"""Which snapshots live: the newest checkpoint of each device, asked for when it is needed, and again on a doubt."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Sequence
from typing import Final

from chatkeep.daemon.vault.checkpoint import VerifiedCheckpoint, entry_of, newest_checkpoint, verify_checkpoint
from chatkeep.daemon.vault.copies import Findings, first_whole
from chatkeep.daemon.vault.demand import Demand, demand_of, streams_of
from chatkeep.daemon.vault.epoch import EpochRecord
from chatkeep.daemon.vault.errors import MissingObject, Unreadable
from chatkeep.daemon.vault.labels import MAX_CHECKPOINT
from chatkeep.daemon.vault.names import CheckpointName
from chatkeep.daemon.vault.snapshots import Stream
from chatkeep.providers.base import Provider, ProviderError


class Lives:
    """What the newest epoch record and the checkpoints of one vault say. Threads may share it.

    Args:
        providers: where checkpoints are, in the order they are asked.
        records: the verified epoch records, 1 to the newest.
        removed: the devices that were removed.
        findings: where what is wrong with checkpoints goes.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        records: Sequence[EpochRecord],
        removed: Container[bytes],
        findings: Findings,
    ) -> None:
        self._providers: Final = providers
        self._records: Final = records
        self._removed: Final = removed
        self._findings: Final = findings
        self._newest: Final[dict[bytes, VerifiedCheckpoint | None]] = {}
        self._lock: Final = threading.Lock()

    def checkpoint(self, device_id: bytes) -> VerifiedCheckpoint | None:
        """The device's newest, as it was first asked for or last asked for again. Raises as `newest_checkpoint`."""
        with self._lock:
            if device_id not in self._newest:
                self._newest[device_id] = self._ask(device_id)
            return self._newest[device_id]

    def streams(self, device_id: bytes, listed: Iterable[bytes]) -> list[Stream]:
        """The streams of a device that count: those that storage lists and those that must be there."""
        entry, removed = entry_of(self._records[-1], device_id), device_id in self._removed
        found = streams_of(listed, self.checkpoint(device_id), entry, removed=removed)
        return [Stream(device_id, stream_id) for stream_id in found]

    def demand(self, stream: Stream) -> Demand:
        """What must be there of a stream. Raises as `newest_checkpoint`."""
        device_id = stream.device_id
        entry, removed = entry_of(self._records[-1], device_id), device_id in self._removed
        return demand_of(stream.stream_id, self.checkpoint(device_id), entry, removed=removed)

    def demand_again(self, stream: Stream) -> Demand:
        """The same, with a checkpoint that may have come meanwhile. Raises only if none was ever asked for."""
        self.checkpoint_again(stream.device_id)
        return self.demand(stream)

    def checkpoint_again(self, device_id: bytes) -> VerifiedCheckpoint | None:
        """The device's newest, asked for once more. Storage that cannot be asked brings nothing new."""
        try:
            fresh = self._ask(device_id)
        except ProviderError:
            fresh = None
        with self._lock:
            before = self._newest.get(device_id)
            # Never back: storage that hides the newest now has shown it before.
            if fresh is not None and (before is None or fresh.name.number >= before.name.number):
                self._newest[device_id] = before = fresh
            return before

    def before(self, later: VerifiedCheckpoint) -> VerifiedCheckpoint | None:
        """The checkpoint before this one, by the hash that it names; None when there is none or nobody has it whole."""
        keys = {record.epoch: record.checkpoint for record in self._records}
        name = CheckpointName(later.device_id, later.name.number - 1, later.checkpoint.prev)
        if name.number < 1:
            return None

        def check(raw: bytes) -> VerifiedCheckpoint:
            return verify_checkpoint(raw, name, self._records[-1].vault_id, keys)

        try:
            # Its own findings: it may be gone by right, and whoever lists it looks at it anyway.
            return first_whole(self._providers, name, MAX_CHECKPOINT, check, Findings())
        except (MissingObject, Unreadable):
            return None

    def _ask(self, device_id: bytes) -> VerifiedCheckpoint | None:
        known = self._newest.get(device_id)
        return newest_checkpoint(self._providers, device_id, self._records, self._findings, known)
