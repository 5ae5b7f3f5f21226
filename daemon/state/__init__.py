"""This device's own records: what was captured, what is in the outbox, what each provider has.

Lost state costs time, never data: the vault alone restores. The records hold file names in plaintext, beside the
plaintext itself; the directory is 0700 and worth nothing elsewhere.
"""

from chatkeep.daemon.state.capsules import Capsule, Capsules, FailedCapsule
from chatkeep.daemon.state.database import State
from chatkeep.daemon.state.errors import (
    OutboxLost,
    StateBusy,
    StateCopied,
    StateDamaged,
    StateError,
    StateForeign,
    StateFull,
    StateLost,
    StateMovedAside,
    StateRolledBack,
    StateUnusable,
    refusals,
)
from chatkeep.daemon.state.known import Known, KnownBlob
from chatkeep.daemon.state.lineage import Copied, Lineage, Lost
from chatkeep.daemon.state.mirrors import Left, Mirrors
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
    "Capsule",
    "Capsules",
    "Commit",
    "Copied",
    "DatabaseRow",
    "FailedCapsule",
    "FileRow",
    "Known",
    "KnownBlob",
    "Left",
    "Lineage",
    "Lost",
    "Mirrors",
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
    "StateCopied",
    "StateDamaged",
    "StateError",
    "StateForeign",
    "StateFull",
    "StateLost",
    "StateMovedAside",
    "StateRolledBack",
    "StateUnusable",
    "StreamRow",
    "refusals",
]
