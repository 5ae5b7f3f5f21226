"""What this device's records expect at a provider, and a checkpoint that they do not know let go.

Records that were restored from a copy are older than the vault. What was pruned meanwhile is not missing.
"""

from __future__ import annotations

from typing import Final

from chatkeep.daemon.vault.demand import Demand
from chatkeep.daemon.vault.lives import Lives
from chatkeep.daemon.vault.names import CheckpointName, ManifestName, PackName, parse
from chatkeep.daemon.vault.snapshots import Stream


class LetGo:
    """What need not be there any more, by the checkpoints of one device that one provider has.

    Only the newest that counts is believed, and those before it by the hash that each names: of numbers alone an old
    root secret signs any.

    Args:
        known: the newest checkpoint that the records know of; what it and those before it condemned, they know.
    """

    def __init__(self, lives: Lives, device_id: bytes, known: int) -> None:
        self._lives: Final = lives
        self._device_id: Final = device_id
        newest = lives.checkpoint_again(device_id)
        self._newest: Final = newest.name.number if newest is not None and newest.lets_go else 0
        self._condemned: Final[set[bytes]] = set()
        one = newest if newest is not None and self._newest > known else None
        for rival in () if one is None else one.rivals:
            self._condemned.update(rival.checkpoint.condemned_packs)
        number = self._newest
        while one is not None and number > known:
            self._condemned.update(one.checkpoint.condemned_packs)
            one, number = lives.before(one), number - 1
        # Older ones go when all that they condemned is gone: then nothing here names it any more.
        self._is_gap: Final = number > known

    def has(self, text: str, stream: bytes, seq: int) -> bool:
        """Whether the object of this name need not be there. `stream`, `seq`: the snapshot that it came with."""
        name = parse(text)
        if isinstance(name, ManifestName):
            return self._demand(name.stream_id).pruned(name.seq, name.sha256)
        if isinstance(name, CheckpointName):
            return name.number < self._newest
        if not isinstance(name, PackName):
            return False
        demand = self._demand(stream)
        is_pruned = seq <= demand.through and seq not in demand.kept
        return name.sha256 in self._condemned or (self._is_gap and is_pruned)

    def _demand(self, stream: bytes) -> Demand:
        return self._lives.demand(Stream(self._device_id, stream))
