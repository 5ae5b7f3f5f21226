"""The next epoch: who stays, what storage cannot bring back, and that no fault leaves two of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from chatkeep.daemon.keys.methods import SlotMethod
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import create_slot
from chatkeep.daemon.vault.agree import unlock_newest
from chatkeep.daemon.vault.create import Way, add_device, add_slot, create_vault
from chatkeep.daemon.vault.epoch import EpochRecord, create_record
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    EnrolmentFailed,
    ForkDetected,
    MissingObject,
    NoVault,
    RotationRefused,
    SlotRemoved,
    VaultError,
)
from chatkeep.daemon.vault.names import EPOCHS, DeviceName, EpochName, SlotName
from chatkeep.daemon.vault.rotate import Plan, plan_rotation, rotate
from chatkeep.daemon.vault.unlock import unlock, unlock_to_enrol, unlock_to_prune
from chatkeep.daemon.vault.unlocked import Enrolment
from chatkeep.providers.base import Provider, ProviderError, Unavailable
from tests.support.faulty_provider import Fault, FaultyProvider, Verb
from tests.support.memory_provider import MemoryProvider
from tests.support.vaults import NOW, passphrase, recovery

FIRST, SECOND = recovery(7), recovery(2)


class Made:
    """A vault at two providers: recovery keys of all 7 and of all 2, and one device."""

    def __init__(self) -> None:
        self.one, self.two = MemoryProvider("one"), MemoryProvider("two")
        created = create_vault(self.both, [Way(FIRST, "first"), Way(SECOND, "second")], NOW)
        self.vault_id = created.vault_id
        self.first, self.second = created.slots
        self.credential = created.credential
        self.record = created.record

    @property
    def both(self) -> list[Provider]:
        return [self.one, self.two]

    @contextmanager
    def unlocked(self, method: SlotMethod = FIRST) -> Iterator[Enrolment]:
        with unlock_newest(self.both, self.one, method, None).enrolment as enrolment:
            yield enrolment

    def rotate(self, method: SlotMethod = FIRST, **removed: list[bytes]) -> EpochRecord:
        with self.unlocked(method) as enrolment:
            return rotate(self.both, enrolment, self.plan(enrolment, **removed))

    def plan(self, enrolment: Enrolment, slots: list[bytes] = [], devices: list[bytes] = []) -> Plan:  # noqa: B006
        return plan_rotation(self.both, enrolment.vault, slots, devices)

    def records(self) -> set[str]:
        names = [{name for name in each.objects if name.startswith(EPOCHS)} for each in (self.one, self.two)]
        assert names[0] == names[1]
        return names[0]


@pytest.fixture
def made() -> Made:
    return Made()


def test_rotation_reaches_slots_and_devices_that_stay_with_nobody_present(made: Made) -> None:
    record = made.rotate()
    assert record.epoch == 2
    assert record.prev == made.record.sha256
    assert record.public != made.record.public
    assert set(record.slots) == {made.first, made.second}
    assert set(record.devices) == {made.credential.device_id}
    assert made.records() == {str(made.record.name), str(record.name)}
    for provider in made.both:
        for method in (FIRST, SECOND):
            with unlock(provider, method) as vault:
                assert vault.head == record
                assert vault.findings == ()
                assert list(vault.devices) == [made.credential.device_id]
                sealed = made.record.public.seal(b"before", b"")
                assert vault.opener(1, made.record.public.key_id).open(sealed, b"") == b"before"


def test_removed_slot_opens_nothing_any_more(made: Made) -> None:
    record = made.rotate(slots=[made.second])
    assert set(record.slots) == {made.first}
    for provider in made.both:
        with pytest.raises(SlotRemoved) as caught:
            unlock(provider, SECOND)
        assert caught.value.params["epoch"] == 2
        with unlock(provider, FIRST) as vault:
            assert vault.head == record


def test_old_file_of_a_removed_slot_gets_no_envelope(made: Made) -> None:
    old = made.one.objects[str(SlotName(made.second))]
    made.rotate(slots=[made.second])
    for provider in (made.one, made.two):
        del provider.objects[str(SlotName(made.second))]
    made.rotate()
    for provider in (made.one, made.two):
        provider.objects[str(SlotName(made.second))] = old
    record = made.rotate()
    assert record.epoch == 4
    assert set(record.slots) == {made.first}
    with pytest.raises(SlotRemoved):
        unlock(made.one, SECOND)


def test_slot_that_an_old_root_secret_signed_later_gets_no_envelope(made: Made) -> None:
    with made.unlocked() as enrolment:
        stolen = RootSecret(bytearray(enrolment.keys.root.view()))
    made.rotate()
    with EpochKeys(stolen) as keys:
        thief, raw = create_slot(recovery(3), keys, made.vault_id, 1, "", NOW)
    made.one.objects[str(SlotName(thief))] = made.two.objects[str(SlotName(thief))] = raw
    record = made.rotate()
    assert set(record.slots) == {made.first, made.second}
    with pytest.raises(SlotRemoved):
        unlock(made.one, recovery(3))


@pytest.mark.parametrize("listed", [False, True], ids=["issued", "listed"])
def test_slot_with_another_public_key_stops_the_rotation(made: Made, listed: bool) -> None:
    if listed:
        made.rotate()
    name = str(SlotName(made.second))
    lines = made.one.objects[name].split(b"\n")
    fields = json.loads(lines[0])
    with EpochKeys(RootSecret.generate()) as attacker:
        _, theirs = create_slot(recovery(3), attacker, made.vault_id, 1, "", NOW)
        pub = json.loads(theirs.split(b"\n")[0])["pub"]
        swapped = json.dumps(fields | {"pub": pub}, separators=(",", ":")).encode()
        resigned = json.dumps(fields | {"pub": pub, "pin": attacker.sign.public.raw.hex()}, separators=(",", ":"))
        forged = sign_text("slot", made.vault_id, [resigned.encode(), lines[1]], attacker.sign)
    for raw in (b"\n".join([swapped, *lines[1:]]), forged):
        made.one.objects[name] = made.two.objects[name] = raw
        with made.unlocked() as enrolment, pytest.raises(RotationRefused) as caught:
            made.plan(enrolment)
        assert caught.value.params == {"reason": "slot-damaged", "id": made.second.hex()}
        # Named, it goes: what is broken cannot keep a stolen key in the vault.
        with made.unlocked() as enrolment:
            assert set(made.plan(enrolment, slots=[made.second]).slots) == {made.first}


def test_damaged_copy_is_told_and_nothing_is_written(made: Made) -> None:
    name = str(SlotName(made.second))
    made.two.objects[name] = made.two.objects[name][:-9] + b"damage!!\n"
    before = dict(made.one.objects), dict(made.two.objects)
    with pytest.raises(RotationRefused) as caught:
        made.rotate()
    assert caught.value.params == {"reason": "copy-damaged", "provider": "two", "name": name}
    assert (made.one.objects, made.two.objects) == before


@pytest.mark.parametrize("kept", [[], ["passphrase"]])
def test_last_recovery_key_stays(kept: list[str]) -> None:
    provider = MemoryProvider()
    ways = [Way(FIRST, ""), *[Way(passphrase(), "") for _ in kept]]
    slots = create_vault([provider], ways, NOW).slots
    method = passphrase() if kept else FIRST
    with unlock_newest([provider], provider, method, None).enrolment as enrolment:
        with pytest.raises(RotationRefused) as caught:
            plan_rotation([provider], enrolment.vault, [slots[0]])
        assert caught.value.params["reason"] == ("last-recovery-key" if kept else "own-slot")


def test_what_is_not_there_to_remove_is_told(made: Made) -> None:
    made.rotate(slots=[made.second])
    with made.unlocked() as enrolment:
        added = add_device(made.both, enrolment).device_id
        for slots, devices, reason in (
            ([bytes(16)], [], "unknown-slot"),
            ([made.second], [], "removed-slot"),
            ([made.first], [], "own-slot"),
            ([], [bytes(16)], "unknown-device"),
        ):
            with pytest.raises(RotationRefused) as caught:
                made.plan(enrolment, slots, devices)
            assert caught.value.params["reason"] == reason
    made.rotate(devices=[added])
    with made.unlocked() as enrolment:
        with pytest.raises(RotationRefused) as caught:
            made.plan(enrolment, devices=[added])
        assert caught.value.params["reason"] == "removed-device"


def test_removed_device_stays_removed_and_its_certificate_stays_known(made: Made) -> None:
    device = made.credential.device_id
    with made.unlocked() as enrolment:
        other = add_device(made.both, enrolment).device_id
    made.rotate(devices=[device])
    record = made.rotate()
    assert set(record.removed) == {device}
    assert set(record.devices) == {other}
    with unlock(made.two, SECOND) as vault:
        assert set(vault.devices) == {other}
        assert vault.removed[device].certificate.key == made.credential.device_key.public
        assert vault.findings == ()


def test_slots_of_every_epoch_stay(made: Made) -> None:
    methods: list[SlotMethod] = [FIRST, SECOND]
    for digit in (3, 4):
        made.rotate()
        with made.unlocked() as enrolment:
            add_slot(made.both, enrolment, Way(recovery(digit), ""), NOW)
        methods.append(recovery(digit))
    record = made.rotate()
    assert len(record.slots) == 4
    for method in methods:
        with unlock(made.two, method) as vault:
            assert vault.head == record


def test_what_one_provider_lacks_is_copied_before_anything_is_written(made: Made) -> None:
    made.rotate()
    lost = [str(made.record.name), str(SlotName(made.first)), str(DeviceName(made.credential.device_id))]
    for name in lost:
        del made.two.objects[name]
    made.two.verbs.clear()
    record = made.rotate(SECOND)
    puts = [name for verb, name in made.two.verbs if verb == "put"]
    assert sorted(puts[:3]) == sorted(lost)
    assert puts[3:] == [str(record.name)]
    assert made.one.objects == made.two.objects


def test_unreachable_provider_stops_it_before_anything_is_written(made: Made) -> None:
    fault = Fault("get", Unavailable(provider="two"), times=None)
    broken = FaultyProvider(made.two, fault)
    before = dict(made.one.objects)
    with unlock_to_enrol(made.one, FIRST) as enrolment, pytest.raises(RotationRefused) as caught:
        rotate([made.one, broken], enrolment, plan_rotation([made.one, made.two], enrolment.vault))
    assert fault.fired
    assert caught.value.params["reason"] == "unreachable"
    assert made.one.objects == before


def test_provider_of_another_vault_is_not_filled(made: Made) -> None:
    other = MemoryProvider("other")
    create_vault([other], [Way(recovery(5), "")], NOW)
    before = dict(other.objects)
    with pytest.raises(NoVault) as caught:
        unlock_newest([made.one, other], made.one, FIRST, None)
    assert caught.value.params == {"provider": "other", "reason": "expected"}
    assert other.objects == before


class _Killed(ProviderError):
    """The process is gone at this call."""

    code = "killed"


def attempt(made: Made, providers: list[Provider]) -> EpochRecord:
    """One run of the command that removes the second slot."""
    with unlock_newest(providers, providers[0], FIRST, None).enrolment as enrolment:
        if made.second not in plan_rotation(providers, enrolment.vault).slots:
            return enrolment.vault.head  # finished before
        return rotate(providers, enrolment, plan_rotation(providers, enrolment.vault, [made.second]))


def faults_of(verb: Verb, after: bool) -> Iterator[tuple[int, int, Made]]:
    """(provider, call, vault) for a fault at every call of a verb, each on a new vault, until none is hit any more."""
    for number in (0, 1):
        for call in range(1000):
            made = Made()
            fault = Fault(verb, _Killed(), after=after, skip=call)
            providers = made.both
            providers[number] = FaultyProvider(providers[number], fault)
            try:
                attempt(made, providers)
            except (ProviderError, VaultError):
                assert fault.fired == 1
                yield number, call, made
            else:
                if not fault.fired:
                    break
                # The other provider is passed over when the vault is unlocked; it is asked again before anything is
                # written.
                assert verb in ("list", "get")
                yield number, call, made


@pytest.mark.parametrize(
    ("verb", "after", "least"),
    [("put", False, 2), ("put", True, 2), ("get", False, 30), ("list", False, 20), ("stat", False, 4)],
)
def test_fault_at_every_call_never_makes_a_fork(
    verb: Verb, after: bool, least: int, record_property: Callable[[str, object], None]
) -> None:
    tried = cut_short = 0
    for number, call, made in faults_of(verb, after):
        tried += 1
        begun = {name for each in (made.one, made.two) for name in each.objects if name.startswith(f"{EPOCHS}00000002")}
        assert len(begun) <= 1
        # Again from the other end: whichever provider is asked first, the epoch that was begun is the one.
        again = attempt(made, made.both[::-1] if call % 2 else made.both)
        assert again.epoch == 2, (number, call)
        if begun:
            cut_short += 1
            assert {str(again.name)} == begun
        assert made.records() == {str(made.record.name), str(again.name)}
        for provider in made.both:
            with unlock(provider, FIRST) as vault:
                assert vault.head == again
            with pytest.raises(SlotRemoved):
                unlock(provider, SECOND)
    record_property("faults", tried)
    record_property("finished", cut_short)
    assert tried >= least


def test_epoch_at_one_provider_only_is_finished_by_the_next_that_adds_a_slot(made: Made) -> None:
    record = made.rotate()
    del made.one.objects[str(record.name)]
    agreed = unlock_newest(made.both, made.one, SECOND, None)
    assert agreed.finished
    assert agreed.enrolment.vault.head == record
    assert made.records() == {str(made.record.name), str(record.name)}
    assert not unlock_newest(made.both, made.one, SECOND, None).finished


def test_listing_that_stays_behind_is_told(made: Made) -> None:
    record = made.rotate()
    made.one.unlisted.add(str(record.name))
    with made.unlocked() as enrolment:
        assert enrolment.vault.head == record
        with pytest.raises(EnrolmentFailed) as caught:
            rotate(made.both, enrolment, made.plan(enrolment))
    assert caught.value.params["reason"] == "not-listed"
    assert caught.value.params["provider"] == "one"
    made.one.unlisted.clear()
    assert len(made.records()) == 3
    with unlock(made.one, SECOND) as vault:
        assert vault.head.epoch == 3


def test_storage_that_was_rolled_back_before_the_pinned_epoch_gets_no_new_one(made: Made) -> None:
    record = made.rotate()
    for provider in (made.one, made.two):
        del provider.objects[str(record.name)]
    with pytest.raises(MissingObject) as caught:
        unlock_newest(made.both, made.one, FIRST, None, record.pin)
    assert caught.value.params["name"] == str(record.name)
    with pytest.raises(MissingObject):
        unlock_to_prune(made.one, FIRST, pin=record.pin)
    with unlock(made.one, FIRST, pin=record.pin) as vault:
        assert [one.params.get("name") for one in vault.findings] == [str(record.name)]
    assert made.records() == {str(made.record.name)}
    with unlock(made.one, FIRST, pin=made.record.pin) as vault:
        assert vault.findings == ()


def test_one_provider_alone_keeps_no_removal_back(made: Made) -> None:
    record = made.rotate(slots=[made.second])
    del made.one.objects[str(record.name)]
    with unlock(made.one, SECOND) as vault:
        assert vault.head.epoch == 1  # all that it can know
    with pytest.raises(SlotRemoved):
        unlock(made.one, SECOND, others=made.both)
    with unlock(made.one, FIRST, others=made.both) as vault:
        assert vault.head == record
    fault = Fault("list", Unavailable(provider="two"), times=None)
    with unlock(made.one, FIRST, others=[made.one, FaultyProvider(made.two, fault)]) as vault:
        assert vault.head.epoch == 1
    assert fault.fired


def rival(made: Made, enrolment: Enrolment) -> EpochRecord:
    """Another epoch 2, by whoever holds the root secret of epoch 1."""
    return create_record(EpochKeys(RootSecret.generate()), made.vault_id, (made.record, enrolment.keys))


def test_rival_epoch_at_another_provider_is_a_fork(made: Made) -> None:
    with made.unlocked() as enrolment:
        other = rival(made, enrolment)
        record = made.rotate()
    del made.two.objects[str(record.name)]
    made.two.objects[str(other.name)] = other.raw
    before = dict(made.one.objects), dict(made.two.objects)
    with pytest.raises(ForkDetected) as caught:
        unlock_newest(made.both, made.one, FIRST, None)
    assert caught.value.params["names"] == sorted([str(record.name), str(other.name)])
    assert (made.one.objects, made.two.objects) == before


def test_rotation_that_was_outrun_writes_no_rival(made: Made) -> None:
    with made.unlocked() as slow:
        plan = made.plan(slow)
        quick = made.rotate()
        with pytest.raises(RotationRefused) as caught:
            rotate(made.both, slow, plan)
    assert caught.value.params == {"reason": "outrun", "name": str(quick.name)}
    assert made.records() == {str(made.record.name), str(quick.name)}


def test_planted_records_change_nothing(made: Made) -> None:
    with made.unlocked() as enrolment:
        fields = json.loads(rival(made, enrolment).raw.split(b"\n")[0])
    with EpochKeys(RootSecret.generate()) as attacker:
        planted = sign_text("epoch", made.vault_id, [json.dumps(fields).encode()], attacker.sign)
    for raw in (planted, b"{}\n"):
        made.one.objects[str(EpochName(2, hashlib.sha256(raw).digest()))] = raw
    record = made.rotate()
    with unlock(made.one, FIRST) as vault:
        assert vault.head == record
        assert {one.code for one in vault.findings} == {"authentication-failed", "malformed"}


def test_device_whose_certificate_is_damaged_is_not_dropped_in_silence(made: Made) -> None:
    name = str(DeviceName(made.credential.device_id))
    for provider in (made.one, made.two):
        provider.objects[name] = provider.objects[name].replace(b'"writer"', b'"wriier"')
    with made.unlocked() as enrolment, pytest.raises(RotationRefused) as caught:
        made.plan(enrolment)
    assert caught.value.params["reason"] == "device-damaged"


def test_slot_file_signed_by_nobody_is_not_passed_over(made: Made) -> None:
    with EpochKeys(RootSecret.generate()) as attacker:
        planted, raw = create_slot(recovery(3), attacker, made.vault_id, 1, "", NOW)
    made.one.objects[str(SlotName(planted))] = raw
    assert SlotFile.parse(raw).slot_id == planted
    with made.unlocked() as enrolment:
        with pytest.raises(RotationRefused) as caught:
            made.plan(enrolment)
        assert caught.value.params == {"reason": "slot-damaged", "id": planted.hex()}
        plan = made.plan(enrolment, slots=[planted])
        assert planted not in plan.slots
        assert isinstance(plan.findings[0], AuthenticationFailed)
