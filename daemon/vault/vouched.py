"""Which passkey slots are asked for, and in which order: what the vault signed comes first.

Whoever writes to storage can add slot files, with credential ids that he read in the true ones. Each would cost the
person a gesture, and crowd the true ones out of what a browser takes. The epoch records, which no secret is needed to
verify, tell most of them: a slot of an epoch is signed by that epoch's key.
"""

from __future__ import annotations

from collections.abc import Sequence

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.vault.chain import Chain, Records, walk_from_first
from chatkeep.daemon.vault.errors import AuthenticationFailed, VaultError


def worth_asking(
    records: Records, vault_id: bytes, slots: Sequence[SlotFile]
) -> tuple[list[SlotFile], list[ChatkeepError]]:
    """The slots that can be the vault's, and what is wrong with the others.

    Those that stay come first, then those that were removed, then those of an epoch whose record is not there: it may
    be withheld. Where the records themselves do not hold together, all of them, as they were given.
    """
    try:
        chain = walk_from_first(records, vault_id)
    except VaultError:
        return list(slots), []  # opening one tells more
    ranked: list[tuple[int, SlotFile]] = []
    planted: list[ChatkeepError] = []
    for slot in slots:
        if slot.epoch > chain.head.epoch:
            ranked.append((2, slot))
        elif chain.records[slot.epoch - 1].sign == slot.pin:
            ranked.append((0 if _stays(chain, slot) else 1, slot))
        else:
            planted.append(AuthenticationFailed(what="slot", reason="pin", slot=slot.slot_id.hex()))
    return [slot for _, slot in sorted(ranked, key=lambda one: one[0])], planted


def _stays(chain: Chain, slot: SlotFile) -> bool:
    listed = [record.slots.get(slot.slot_id) for record in chain.records[slot.epoch :]]
    return all(one is not None and one.file == slot.sha256 for one in listed)
