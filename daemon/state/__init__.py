"""This device's own records: what was captured, what is in the outbox, what each provider has.

Lost state costs time, never data: the vault alone restores. The records hold file names in plaintext, beside the
plaintext itself; the directory is 0700 and worth nothing elsewhere.
"""

from chatkeep.daemon.state.database import State
from chatkeep.daemon.state.errors import (
    OutboxLost,
    StateBusy,
    StateDamaged,
    StateError,
    StateForeign,
    StateFull,
    StateUnusable,
    refusals,
)
from chatkeep.daemon.state.outbox import Outbox
from chatkeep.daemon.state.rows import (
    BackupNote,
    Commit,
    DatabaseRow,
    FileRow,
    ObjectRow,
    PartialRow,
    Queued,
    RedoRow,
    RunRow,
    SnapshotRow,
    SnapshotStatistics,
    StackRow,
    StreamRow,
)

__all__ = [
    "BackupNote",
    "Commit",
    "DatabaseRow",
    "FileRow",
    "ObjectRow",
    "Outbox",
    "OutboxLost",
    "PartialRow",
    "Queued",
    "RedoRow",
    "RunRow",
    "SnapshotRow",
    "SnapshotStatistics",
    "StackRow",
    "State",
    "StateBusy",
    "StateDamaged",
    "StateError",
    "StateForeign",
    "StateFull",
    "StateUnusable",
    "StreamRow",
    "refusals",
]
