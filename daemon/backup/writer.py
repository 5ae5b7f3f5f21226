"""What every snapshot of this device needs: who it is, where its state is, what time it is."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chatkeep.config.errors import Cancelled
from chatkeep.daemon.state import State
from chatkeep.daemon.vault.blob import IdKeys
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.pack import PackWriter

# New packs of one snapshot: what does not fit is pending, so messages never queue behind a video (format section 13).
BUDGET: Final = 256 * 1024 * 1024


@dataclass(frozen=True)
class Progress:
    """How far a backup is: `done` of `expected` bytes read of the source so far, and what it works at."""

    source: str
    stage: str
    done: int
    expected: int


def _nobody(progress: Progress) -> None:
    """Nobody watches."""


def _nothing() -> None:
    """Nothing is done between two snapshots."""


@dataclass(frozen=True)
class Writer:
    """A device that can write a vault and cannot read it.

    `clock` gives wall time in ns. `cancelled` is asked often and never from two threads; once True, the snapshot at
    hand is dropped and Cancelled raised: what was committed before stands. `budget`: bytes of new packs in a
    snapshot. `between` is called after a snapshot that the budget ended, before the next one begins: the time to upload
    it, so that the outbox never holds all of a large first backup.
    """

    credential: WriterCredential
    state: State
    clock: Callable[[], int] = time.time_ns
    host: str = field(default_factory=socket.gethostname)
    report: Callable[[Progress], None] = _nobody
    cancelled: Callable[[], bool] = bool
    between: Callable[[], None] = _nothing
    budget: int = BUDGET

    @property
    def ids(self) -> IdKeys:
        """Keys of blob ids and digests."""
        return IdKeys(bytes(self.credential.id_key.view()))

    def new_pack(self, path: Path) -> PackWriter:
        """The writer of a new pack, sealed to the pinned epoch."""
        known = self.credential
        return PackWriter(path, known.public, known.vault_id, known.epoch, known.device_id)

    def check_cancelled(self) -> None:
        """Raises Cancelled when somebody asked to stop."""
        if self.cancelled():
            raise Cancelled
