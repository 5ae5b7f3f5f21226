"""A vault that was written once, and has to open for ever: whatever changes, these bytes do not.

Two epochs. Slots of the first: recovery key of all 7 (stays), of all 2 (removed); of the second: the passphrase below.
"""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.keys.methods import SlotMethod
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import open_label
from chatkeep.daemon.vault.errors import SlotRemoved
from chatkeep.daemon.vault.unlock import unlock_to_enrol
from tests.support.memory_provider import MemoryProvider
from tests.support.vaults import NOW, passphrase, recovery

FROZEN: dict[str, Any] = json.loads((Path(__file__).parent / "frozen_vault_1.json").read_text("utf-8"))


def frozen() -> MemoryProvider:
    provider = MemoryProvider()
    provider.objects = {name: text.encode() for name, text in FROZEN["objects"].items()}
    assert len(provider.objects) == 8
    return provider


@pytest.mark.parametrize(
    "method",
    [recovery(7), passphrase("corr\u00e9ct horse"), passphrase(unicodedata.normalize("NFD", "corr\u00e9ct horse"))],
    ids=["recovery", "passphrase", "passphrase-decomposed"],
)
def test_frozen_vault_opens(method: SlotMethod) -> None:
    with unlock_to_enrol(frozen(), method) as enrolment:
        vault = enrolment.vault
        assert vault.vault_id.hex() == FROZEN["vault"]
        assert enrolment.keys.root.view().hex() == FROZEN["root"]
        assert [device.hex() for device in vault.devices] == FROZEN["devices"]
        ((gone, closed),) = vault.removed.items()
        assert gone.hex() == FROZEN["removed"][0]
        assert [head.seq for head in closed.entry.heads.values()] == [5]
        assert vault.findings == ()
        first = vault.opener(1, vault.records[0].public.key_id)
        assert first.open(bytes.fromhex(FROZEN["sealed"]), b"frozen") == b"of the first epoch"
        labels = [
            open_label(slot, vault.opener(slot.epoch, vault.records[slot.epoch - 1].public.key_id))
            for slot in (SlotFile.parse(raw) for name, raw in frozen().objects.items() if name.startswith("slots/"))
        ]
        assert labels == [("", NOW, None)] * 3


def test_frozen_vault_stays_closed_for_a_removed_slot() -> None:
    with pytest.raises(SlotRemoved):
        unlock_to_enrol(frozen(), recovery(2))
