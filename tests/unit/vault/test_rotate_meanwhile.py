"""Two at once: somebody adds a way in or a device while somebody else changes the keys.

What was added to an epoch that is over counts for nothing: whoever wrote the key down has to hear of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from chatkeep.daemon.vault import create
from chatkeep.daemon.vault.agree import unlock_newest
from chatkeep.daemon.vault.create import Way, add_device, add_slot, create_vault
from chatkeep.daemon.vault.errors import EnrolmentFailed, RotationRefused, SlotRemoved
from chatkeep.daemon.vault.names import EPOCHS
from chatkeep.daemon.vault.rotate import plan_rotation, rotate
from chatkeep.daemon.vault.unlock import unlock
from chatkeep.daemon.vault.unlocked import Enrolment
from chatkeep.providers.base import Provider
from tests.support.memory_provider import MemoryProvider
from tests.support.vaults import NOW, recovery

FIRST, LATE = recovery(7), recovery(5)


class Both:
    """A vault at two providers, unlocked by two people at once."""

    def __init__(self) -> None:
        self.providers = [MemoryProvider("one"), MemoryProvider("two")]
        created = create_vault(self.providers, [Way(FIRST, "first")], NOW)
        self.device = created.credential.device_id

    def unlocked(self) -> Enrolment:
        return unlock_newest(self.providers, self.providers[0], FIRST, None).enrolment

    def epochs(self) -> int:
        return sum(name.startswith(EPOCHS) for name in self.providers[0].objects)


@pytest.fixture
def both() -> Both:
    return Both()


def test_way_in_that_was_added_while_somebody_was_asked_is_not_dropped(both: Both) -> None:
    with both.unlocked() as slow, both.unlocked() as quick:
        plan = plan_rotation(both.providers, slow.vault)
        late = add_slot(both.providers, quick, Way(LATE, "late"), NOW)
        with pytest.raises(RotationRefused) as caught:
            rotate(both.providers, slow, plan)
        assert caught.value.params == {"reason": "added", "id": late.hex()}
        assert both.epochs() == 1
        rotate(both.providers, slow, plan_rotation(both.providers, slow.vault))
    with unlock(both.providers[1], LATE) as vault:
        assert vault.head.epoch == 2


def test_device_that_joined_while_somebody_was_asked_is_not_dropped(both: Both) -> None:
    with both.unlocked() as slow, both.unlocked() as quick:
        plan = plan_rotation(both.providers, slow.vault)
        joined = add_device(both.providers, quick)
        with pytest.raises(RotationRefused) as caught:
            rotate(both.providers, slow, plan)
        assert caught.value.params == {"reason": "added", "id": joined.device_id.hex()}
        record = rotate(both.providers, slow, plan_rotation(both.providers, slow.vault))
    assert set(record.devices) == {both.device, joined.device_id}


def test_what_was_there_when_it_was_planned_and_is_not_any_more_is_put_back(both: Both) -> None:
    """A provider that lost a slot file meanwhile does not stop it: the plan has the file."""
    with both.unlocked() as slow:
        plan = plan_rotation(both.providers, slow.vault)
        (slot,) = plan.slots
        del both.providers[0].objects[f"slots/{slot.hex()}.json"]
        assert set(rotate(both.providers, slow, plan).slots) == {slot}


def test_way_in_of_an_epoch_that_is_over_is_not_called_good(both: Both) -> None:
    with both.unlocked() as slow:
        with both.unlocked() as quick:
            record = rotate(both.providers, quick, plan_rotation(both.providers, quick.vault))
        with pytest.raises(EnrolmentFailed) as caught:
            add_slot(both.providers, slow, Way(LATE, "late"), NOW)
        assert caught.value.params["reason"] == "outrun"
        assert caught.value.params["name"] == str(record.name)
    with pytest.raises(SlotRemoved):
        unlock(both.providers[0], LATE)


def test_way_in_that_the_next_epoch_took_along_is_called_good(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen by whoever changes the keys between its being written and its being proven."""
    read_back = create.write_everywhere

    def then_rotated(providers: Sequence[Provider], objects: Mapping[str, bytes]) -> None:
        read_back(providers, objects)
        monkeypatch.undo()
        with both.unlocked() as quick:
            rotate(both.providers, quick, plan_rotation(both.providers, quick.vault))

    monkeypatch.setattr(create, "write_everywhere", then_rotated)
    with both.unlocked() as slow:
        add_slot(both.providers, slow, Way(LATE, "late"), NOW)
    with unlock(both.providers[1], LATE) as vault:
        assert vault.head.epoch == 2


def test_device_of_an_epoch_that_is_over_gets_no_credential(both: Both) -> None:
    with both.unlocked() as slow:
        with both.unlocked() as quick:
            rotate(both.providers, quick, plan_rotation(both.providers, quick.vault))
        with pytest.raises(EnrolmentFailed) as caught:
            add_device(both.providers, slow)
        assert caught.value.params["reason"] == "outrun"
