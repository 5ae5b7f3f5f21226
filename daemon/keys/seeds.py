"""What reads a vault and says what lives in it, as bytes that can be handed to the process that keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

from chatkeep.daemon.keys.root import EpochKeys
from chatkeep.daemon.keys.secret import Sensitive, wipe

SEED_SIZE: Final = 32


class ReadingSeeds(Sensitive):
    """Seeds of the `open` keys of every epoch, and of the newest one's `checkpoint` key. Owns its buffers.

    Nothing in it certifies: what would make a slot, a device or the next epoch cannot be computed from it.

    Attributes:
        open: 32 bytes for each epoch, from 1 on.
        checkpoint: 32 bytes.
    """

    __slots__ = ("checkpoint", "open")

    def __init__(self, open_seeds: Sequence[bytearray], checkpoint: bytearray) -> None:
        self.open: Final = tuple(open_seeds)
        self.checkpoint: Final = checkpoint

    @classmethod
    def of(cls, every: Sequence[EpochKeys]) -> Self:
        """Of the keys of every epoch, 1 to the newest, while their root secrets are there."""
        return cls([keys.root.subkey("open") for keys in every], every[-1].root.subkey("checkpoint"))

    def wipe(self) -> None:
        """Overwrites every seed. Twice is once."""
        for seed in (*self.open, self.checkpoint):
            wipe(seed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.wipe()
