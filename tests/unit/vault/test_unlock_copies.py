"""Unlocking from several providers of which one is behind, was restored from an old copy, or is hostile."""

from __future__ import annotations

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli.telling import tell
from chatkeep.daemon.control.errors import NotOnSecurityKey
from chatkeep.daemon.keys.errors import NoSlotOpened
from chatkeep.daemon.vault.agree import unlock_newest
from chatkeep.daemon.vault.create import CreatedVault, Way, add_device, add_slot, create_vault
from chatkeep.daemon.vault.errors import Malformed, MissingObject
from chatkeep.daemon.vault.names import DeviceName, SlotName
from chatkeep.daemon.vault.rotate import plan_rotation, rotate
from chatkeep.daemon.vault.unlock import unlock
from chatkeep.providers.base import Unavailable
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.memory_provider import MemoryProvider
from tests.support.passkeys import AtHand
from tests.support.vaults import NOW, recovery

FIRST, SECOND, STRANGER = recovery(7), recovery(2), recovery(3)


class Two:
    """A vault at two providers. The first was restored from a copy from before a device joined and a slot was added."""

    def __init__(self) -> None:
        self.old, self.new = MemoryProvider("old"), MemoryProvider("new")
        self.both = [self.old, self.new]
        self.created: CreatedVault = create_vault(self.both, [Way(FIRST, "first")], NOW)
        with unlock_newest(self.both, self.old, FIRST, None).enrolment as enrolment:
            before = dict(self.old.objects)
            self.device = add_device(self.both, enrolment).device_id
            self.slot = add_slot(self.both, enrolment, Way(SECOND, "second"), NOW)
        assert self.old.objects != before
        self.old.objects = before


@pytest.fixture
def two() -> Two:
    return Two()


def codes(found: tuple[ChatkeepError, ...]) -> list[str]:
    return [one.code for one in found]


def test_device_that_one_provider_lost_is_still_read(two: Two) -> None:
    """Else what it backed up is passed over in silence, and an older snapshot is called the newest."""
    with unlock(two.old, FIRST) as vault:
        assert two.device not in vault.devices  # all that it can know
    with unlock(two.old, FIRST, others=two.both) as vault:
        assert two.device in vault.devices
        assert codes(vault.findings) == []


def test_damaged_certificate_is_made_up_for_and_told(two: Two) -> None:
    name = str(DeviceName(two.created.credential.device_id))
    two.old.objects[name] = two.old.objects[name][:-9] + b"damaged.\n"
    with unlock(two.old, FIRST, others=two.both) as vault:
        assert set(vault.devices) == {two.created.credential.device_id, two.device}
        assert len(vault.findings) == 1
        assert vault.findings[0].params["provider"] == "old"


def test_slot_that_one_provider_lost_still_opens(two: Two) -> None:
    with unlock(two.old, SECOND, others=two.both) as vault:
        assert vault.slot_id == two.slot
    with unlock_newest(two.both, two.old, SECOND, None).enrolment as enrolment:
        assert enrolment.vault.slot_id == two.slot


def test_slot_that_is_damaged_at_one_provider_still_opens(two: Two) -> None:
    name = str(SlotName(two.created.slots[0]))
    two.old.objects[name] = two.old.objects[name][:-1]
    with unlock(two.old, FIRST, others=two.both) as vault:
        assert vault.slot_id == two.created.slots[0]
        assert len(vault.findings) == 1


def test_slot_that_every_provider_lost_may_be_the_one_so_no_key_is_called_wrong(two: Two) -> None:
    """Only the newest record still knows of it."""
    with unlock_newest(two.both, two.new, FIRST, None).enrolment as enrolment:
        rotate(two.both, enrolment, plan_rotation(two.both, enrolment.vault))
    for provider in two.both:
        del provider.objects[str(SlotName(two.slot))]
    with pytest.raises(NoSlotOpened) as caught:
        unlock(two.old, SECOND, others=two.both)
    assert (caught.value.code, caught.value.params["reason"]) == (NoSlotOpened.code, "damaged")
    assert [two.slot.hex(), MissingObject.code, None] in caught.value.params["slots"]  # type: ignore[operator]
    assert unlock(two.old, FIRST, others=two.both)


@pytest.mark.parametrize("how", ["damaged", "lost", "damaged at one"])
def test_passkey_that_cannot_answer_for_a_damaged_slot_hears_of_it(two: Two, how: str) -> None:
    """Its authenticator can only say that it has none of the credentials that were asked for."""
    mine, other = (AtHand({bytes([n]) * 32: b"r" * 32}) for n in (1, 2))
    with unlock_newest(two.both, two.new, FIRST, None).enrolment as enrolment:
        slot_id, _ = (add_slot(two.both, enrolment, Way(hand.method(), ""), NOW) for hand in (mine, other))
        rotate(two.both, enrolment, plan_rotation(two.both, enrolment.vault))
    name = str(SlotName(slot_id))
    for provider in two.both[: 1 if how == "damaged at one" else 2]:
        if how == "lost":
            del provider.objects[name]
        else:
            provider.objects[name] = provider.objects[name][:-1]
    if how == "damaged at one":
        with unlock(two.old, mine.method(), others=two.both) as vault:
            assert vault.slot_id == slot_id
        mine = AtHand({})
    with pytest.raises(NotOnSecurityKey) as caught:
        unlock(two.old, mine.method(), others=two.both)
    assert caught.value.params.get("damaged_slots") == (None if how == "damaged at one" else [slot_id.hex()])
    told = tell(caught.value)
    assert (slot_id.hex()[:8] in told.text) == ("key list --labels" in told.remedy) == (how != "damaged at one")


def test_wrong_key_is_tried_on_each_slot_once(two: Two) -> None:
    with pytest.raises(NoSlotOpened) as caught:
        unlock(two.old, STRANGER, others=two.both)
    slots = caught.value.params["slots"]
    assert isinstance(slots, list)
    assert len(slots) == 2


def test_provider_with_too_many_records_keeps_nobody_out(two: Two) -> None:
    two.old.ghosts = {f"epochs/00000002-{number:064x}" for number in range(2000)}
    with unlock(two.new, FIRST, others=two.both) as vault:
        assert vault.vault_id == two.created.vault_id
        assert [(one.code, one.params.get("provider")) for one in vault.findings] == [(Malformed.code, "old")]


def test_provider_with_too_many_slots_or_devices_keeps_nobody_out(two: Two) -> None:
    two.old.ghosts = {f"{place}/{number:032x}.json" for number in range(2000) for place in ("slots", "devices")}
    with unlock(two.new, SECOND, others=two.both) as vault:
        assert set(vault.devices) == {two.created.credential.device_id, two.device}
        assert {one.params.get("provider") for one in vault.findings} == {"old"}


def test_other_provider_that_is_away_is_passed_over(two: Two) -> None:
    fault = Fault("list", Unavailable(provider="old"), times=None)
    with unlock(two.new, SECOND, others=[FaultyProvider(two.old, fault), two.new]) as vault:
        assert two.device in vault.devices
    assert fault.fired
