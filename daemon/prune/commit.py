"""Carrying a plan out: the checkpoint is signed, lies in the outbox, and exists, in this order.

One transaction makes it exist, condemns, and takes what is condemned out of everything that the next snapshot could
refer to. This process holds the device's state all the while. So no snapshot is ever made that needs what is condemned,
and no lock between devices is needed: each deletes its own objects only.
"""

from __future__ import annotations

import hashlib

from chatkeep.daemon.keys.holding import HashSigningKey
from chatkeep.daemon.prune.plan import Plan
from chatkeep.daemon.state import State, refusals
from chatkeep.daemon.state.pruning import CheckpointRow, PruneCommit
from chatkeep.daemon.vault.checkpoint import sign_checkpoint
from chatkeep.daemon.vault.epoch import EpochRecord
from chatkeep.daemon.vault.names import CheckpointName
from chatkeep.providers.durable import fsync_directory, write_durably


def carry_out(
    plan: Plan, state: State, device_id: bytes, record: EpochRecord, key: HashSigningKey
) -> CheckpointRow | None:
    """Makes the plan's checkpoint exist; None when it has none. The upload follows from the outbox.

    Raises what signing, the outbox and the state raise; then nothing happened.
    """
    if plan.checkpoint is None:
        return None
    raw = sign_checkpoint(plan.checkpoint, device_id, record, key)
    sha256 = hashlib.sha256(raw).digest()
    number = plan.checkpoint.number
    row = CheckpointRow(number, str(CheckpointName(device_id, number, sha256)), sha256, plan.checkpoint.time)
    outbox = state.outbox.directory
    with refusals(outbox):
        write_durably(outbox / sha256.hex(), raw)
        # Before the row: a power cut must not leave a row whose file never got its name.
        fsync_directory(outbox)
    waste = plan.waste
    state.pruning.commit(PruneCommit(row, len(raw), waste.rows, waste.revived, waste.packs, waste.begun, raw))
    return row
