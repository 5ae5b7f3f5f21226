"""Making a vault: whole or not at all, proven from storage, and never in place of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from chatkeep.daemon.keys.errors import LabelRefused, NotMine, SecretWiped
from chatkeep.daemon.keys.methods import AnyPlace
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import create_slot, open_label
from chatkeep.daemon.vault import create as create_module
from chatkeep.daemon.vault.create import Way, add_device, add_slot, create_vault
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.errors import EnrolmentFailed, VaultExists, VaultLocked
from chatkeep.daemon.vault.names import SlotName
from chatkeep.daemon.vault.unlock import unlock, unlock_to_enrol
from chatkeep.providers.base import PermissionRefused, Provider, QuotaExceeded, Unavailable
from tests.support.faulty_provider import Fault, FaultyProvider, Verb
from tests.support.memory_provider import MemoryProvider
from tests.support.passkeys import AtHand
from tests.support.vaults import NOW, Epochs, made_vault, passphrase, recovery

PAPER = Way(recovery(), "paper")


class Tampering(MemoryProvider):
    """Answers every get of one kind of object with something else."""

    def __init__(self, prefix: str, answer: Callable[[bytes], bytes]) -> None:
        super().__init__("tampering")
        self.fired = 0
        self._prefix = prefix
        self._answer = answer

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        body = super().get(name, offset, length)
        if name.startswith(self._prefix):
            self.fired += 1
            return self._answer(body)
        return body


def kinds(provider: MemoryProvider) -> list[str]:
    return [name.split("/")[0] for name in provider.objects]


def test_vault_is_written_marker_last() -> None:
    provider = MemoryProvider()
    created = create_vault([provider], [PAPER, Way(passphrase(), "head")], NOW)
    assert kinds(provider) == ["devices", "slots", "slots", "epochs", "vault"]
    marker = provider.objects["vault/" + created.vault_id.hex()]
    assert marker == b'{"chatkeep":1,"vault":"%s"}\n' % created.vault_id.hex().encode()
    # Nothing was believed before it was read back, and the marker came after that.
    verbs = [verb for verb, name in provider.verbs if verb in ("put", "get")]
    assert verbs == ["put"] * 4 + ["get"] * 4 + ["get"] * 2 + ["put", "get"]
    assert created.leftovers == ()


def test_credential_is_the_certified_devices() -> None:
    provider = MemoryProvider()
    created = made_vault(provider)
    credential = WriterCredential.decode(created.credential.encode())
    vault = unlock(provider, recovery())
    assert credential.vault_id == vault.vault_id == created.vault_id
    assert credential.pin == vault.head.pin
    assert credential.public == vault.head.public
    assert credential.checkpoint == vault.head.checkpoint
    assert vault.devices[credential.device_id].key == credential.device_key.public


def test_labels_and_ids_come_back() -> None:
    provider = MemoryProvider()
    created = create_vault([provider], [PAPER, Way(recovery(2), "safe")], NOW)
    private = unlock(provider, recovery()).opener(1, created.record.public.key_id)
    labels = [
        open_label(SlotFile.parse(provider.objects[str(SlotName(slot_id))]), private) for slot_id in created.slots
    ]
    assert labels == [("paper", NOW, None), ("safe", NOW, None)]


def test_all_providers_hold_the_same() -> None:
    one, two = MemoryProvider("one"), MemoryProvider("two")
    created = create_vault([one, two], [PAPER], NOW)
    assert one.objects == two.objects
    assert unlock(two, recovery()).vault_id == created.vault_id


def test_no_two_vaults_are_alike() -> None:
    one, two = MemoryProvider(), MemoryProvider()
    assert made_vault(one).vault_id != made_vault(two).vault_id
    assert not one.objects.keys() & two.objects.keys()


def test_recovery_key_is_needed() -> None:
    provider = MemoryProvider()
    for ways in ([], [Way(passphrase(), "")]):
        with pytest.raises(EnrolmentFailed) as caught:
            create_vault([provider], ways, NOW)
        assert caught.value.params["reason"] == "no-recovery-key"
    with pytest.raises(EnrolmentFailed):
        create_vault([], [PAPER], NOW)
    assert provider.objects == {}


def test_existing_vault_is_left_alone() -> None:
    empty, taken = MemoryProvider("empty"), MemoryProvider("taken")
    first = made_vault(taken)
    before = dict(taken.objects)
    with pytest.raises(VaultExists) as caught:
        create_vault([empty, taken], [PAPER], NOW)
    assert caught.value.params["provider"] == "taken"
    assert caught.value.params["vaults"] == [first.vault_id.hex()]
    assert (taken.objects, empty.objects) == (before, {})


def test_backups_without_a_marker_are_a_vault() -> None:
    provider = MemoryProvider()
    name = f"d/{'0' * 32}/p/{'0' * 64}"
    provider.put(name, b"a pack")
    with pytest.raises(VaultExists) as caught:
        made_vault(provider)
    assert caught.value.params == {"provider": "memory", "vaults": [], "parts": [name]}
    assert list(provider.objects) == [name]


def test_what_is_found_is_shown_up_to_a_bound() -> None:
    provider = MemoryProvider()
    for number in range(1000):
        provider.put(f"d/{number:032x}/p/{'0' * 64}", b"")
    with pytest.raises(VaultExists) as caught:
        made_vault(provider)
    assert len(caught.value.params["parts"]) == 64  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("reached", range(8))
def test_cut_short_anywhere_there_is_no_vault_or_a_whole_one(reached: int, after: bool) -> None:
    # Two providers: certificate, slot and record on each, then two markers.
    one, two = MemoryProvider("one"), MemoryProvider("two")
    puts = 0

    class Cut(FaultyProvider):
        def put(self, name: str, body: bytes) -> None:
            nonlocal puts
            puts += 1
            last = puts == reached + 1
            if after or not last:
                super().put(name, body)
            if last:
                raise Unavailable

    with pytest.raises(Unavailable):
        create_vault([Cut(one), Cut(two)], [PAPER], NOW)
    assert puts == reached + 1
    marked = [provider for provider in (one, two) if "vault" in kinds(provider)]
    for provider in marked:
        assert len(unlock(provider, recovery()).devices) == 1
    if marked:
        with pytest.raises(VaultExists):
            create_vault([one, two], [Way(recovery(2), "")], NOW)
        return
    # No vault: the second init works, says what it found, and what was left behind does not get in the way.
    left = {*one.objects, *two.objects}
    again = create_vault([one, two], [Way(recovery(2), "")], NOW)
    assert sorted(again.leftovers) == sorted(left)
    assert one.objects.keys() >= left & one.objects.keys()
    for provider in (one, two):
        vault = unlock(provider, recovery(2))
        assert vault.vault_id == again.vault_id
        assert list(vault.devices) == [again.credential.device_id]
        assert {finding.code for finding in vault.findings} <= {"wrong-vault"}


def test_credential_of_a_failed_init_is_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = WriterCredential.generate

    def watched(*arguments: object) -> WriterCredential:
        seen.append(real(*arguments))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(WriterCredential, "generate", watched)
    fault = Fault("put", QuotaExceeded(), about="vault/")
    with pytest.raises(QuotaExceeded):
        create_vault([FaultyProvider(MemoryProvider(), fault)], [PAPER], NOW)
    assert fault.fired == 1
    with pytest.raises(SecretWiped):
        seen[0].encode()


@pytest.mark.parametrize("prefix", ["devices/", "slots/", "epochs/", "vault/"])
@pytest.mark.parametrize(
    "answer", [lambda body: body[:-1], lambda body: b"x" + body[1:], lambda body: body[:0], lambda body: body + b"\n"]
)
def test_what_does_not_read_back_is_not_enrolled(prefix: str, answer: Callable[[bytes], bytes]) -> None:
    whole, provider = MemoryProvider("whole"), Tampering(prefix, answer)
    with pytest.raises(EnrolmentFailed) as caught:
        create_vault([whole, provider], [PAPER], NOW)
    assert provider.fired
    assert caught.value.params["reason"] == "differs"
    assert caught.value.params["provider"] == "tampering"
    if prefix != "vault/":
        assert "vault" not in kinds(whole) + kinds(provider)


def test_what_is_gone_at_once_is_not_enrolled() -> None:
    class Losing(MemoryProvider):
        def put(self, name: str, body: bytes) -> None:
            if not name.startswith("slots/"):
                super().put(name, body)

    provider = Losing()
    with pytest.raises(EnrolmentFailed) as caught:
        made_vault(provider)
    assert caught.value.params["reason"] == "missing"
    assert kinds(provider) == ["devices", "epochs"]


def test_old_listing_does_not_get_in_the_way() -> None:
    class Late(MemoryProvider):
        def put(self, name: str, body: bytes) -> None:
            super().put(name, body)
            self.unlisted.add(name)

    provider = Late()
    made_vault(provider)
    provider.unlisted.clear()
    assert unlock(provider, recovery()).findings == ()


def test_slot_of_other_keys_is_not_enrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    # A writer that wraps the wrong root secret makes slots that open, to nothing.
    stray = EpochKeys(RootSecret.generate())
    fired = []

    def faulty(method, keys, vault_id, epoch, text, now_ns):  # type: ignore[no-untyped-def]
        fired.append(True)
        return create_slot(method, stray, vault_id, epoch, text, now_ns)

    monkeypatch.setattr(create_module, "create_slot", faulty)
    provider = MemoryProvider()
    with pytest.raises(EnrolmentFailed) as caught:
        made_vault(provider)
    assert fired
    assert caught.value.params["reason"] == "other-keys"
    assert "vault" not in kinds(provider)


def test_slot_that_does_not_open_again_is_not_enrolled() -> None:
    # A method that answers differently the second time, such as another authenticator touched.
    class Fickle:
        kind = recovery().kind
        synced = None

        def __init__(self) -> None:
            self.digits = [b"7", b"8"]

        def fresh_params(self) -> None:
            return None

        def among(self, slots: Sequence[AnyPlace]) -> Iterator[AnyPlace]:
            return iter(slots)

        def secret(self, slot: object) -> bytearray:
            return bytearray(self.digits.pop(0) * 56)

    provider = MemoryProvider()
    with pytest.raises(EnrolmentFailed) as caught:
        create_vault([provider], [Way(Fickle(), "")], NOW)
    assert caught.value.params["reason"] == NotMine.code
    assert "vault" not in kinds(provider)


def test_label_that_does_not_fit_is_told_before_anything_is_written() -> None:
    provider = MemoryProvider()
    with pytest.raises(LabelRefused):
        create_vault([provider], [Way(recovery(), "n" * 200)], NOW)
    assert provider.objects == {}


def test_slot_is_added_to_the_newest_epoch() -> None:
    one = MemoryProvider("one")
    epochs = Epochs(one)
    epochs.rotate([epochs.add_slot(recovery())])
    two = MemoryProvider("two")
    two.objects = dict(one.objects)
    with unlock_to_enrol(one, recovery()) as enrolment:
        slot_id = add_slot([one, two], enrolment, Way(passphrase(), "head"), NOW)
    assert one.objects == two.objects
    assert SlotFile.parse(two.objects[str(SlotName(slot_id))]).epoch == 2
    assert unlock(two, passphrase()).records == tuple(epochs.records)


def test_slot_that_does_not_read_back_is_told() -> None:
    provider = Tampering("slots/", lambda body: body)
    made_vault(provider)
    with unlock_to_enrol(provider, recovery()) as enrolment:
        provider._answer = lambda body: body[:-1]
        with pytest.raises(EnrolmentFailed):
            add_slot([provider], enrolment, Way(recovery(2), ""), NOW)
    # What storage made of it is gone: it would be a way in that nobody can tell, and in the way of new keys.
    assert len([name for name in provider.objects if name.startswith("slots/")]) == 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("verb", ["put", "get"])
def test_slot_that_is_not_everywhere_is_nowhere(verb: Verb, after: bool) -> None:
    """Nobody is told to rely on it, so it is not to count: not as the recovery key that stays, not as a passkey that
    its authenticator has already."""
    one, two = MemoryProvider("one"), MemoryProvider("two")
    create_vault([one, two], [PAPER], NOW)
    fault = Fault(verb, Unavailable(provider="two"), after=after, about="slots/")
    both: list[Provider] = [one, FaultyProvider(two, fault)]
    before = dict(one.objects)
    hand = AtHand({b"c" * 32: b"r" * 32})
    with unlock_to_enrol(one, recovery()) as enrolment:
        with pytest.raises(Unavailable) as caught:
            add_slot(both, enrolment, Way(hand.method(), ""), NOW)
        assert fault.fired == 1
        assert one.objects == two.objects == before
        assert "left_at" not in caught.value.params
        add_slot(both, enrolment, Way(hand.method(), ""), NOW)
    assert unlock(two, hand.method()).vault_id


def test_slot_that_cannot_be_taken_back_is_told() -> None:
    one, two = MemoryProvider("one"), MemoryProvider("two")
    create_vault([one, two], [PAPER], NOW)
    full = Fault("put", QuotaExceeded(provider="two"), about="slots/")
    kept = Fault("delete", PermissionRefused(provider="one"), about="slots/")
    with unlock_to_enrol(one, recovery()) as enrolment, pytest.raises(QuotaExceeded) as caught:
        add_slot([FaultyProvider(one, kept), FaultyProvider(two, full)], enrolment, Way(recovery(2), ""), NOW)
    assert (full.fired, kept.fired) == (1, 1)
    (left,) = one.objects.keys() - two.objects.keys()
    assert caught.value.params["left_at"] == ["one"]
    assert left == f"slots/{caught.value.params['slot']}.json"


def test_device_is_added() -> None:
    provider = MemoryProvider()
    first = made_vault(provider).credential
    with unlock_to_enrol(provider, recovery()) as enrolment:
        second = add_device([provider], enrolment)
    vault = unlock(provider, recovery())
    assert vault.devices.keys() == {first.device_id, second.device_id}
    assert vault.devices[second.device_id].key == second.device_key.public
    assert first.id_key.view() != second.id_key.view()


def test_device_that_is_not_everywhere_is_nowhere() -> None:
    """Its credential is gone: it would be listed for ever as one that writes."""
    one, two = MemoryProvider("one"), MemoryProvider("two")
    create_vault([one, two], [PAPER], NOW)
    before, fault = dict(one.objects), Fault("put", PermissionRefused(provider="two"), about="devices/")
    with unlock_to_enrol(one, recovery()) as enrolment, pytest.raises(PermissionRefused):
        add_device([one, FaultyProvider(two, fault)], enrolment)
    assert fault.fired == 1
    assert one.objects == two.objects == before


def test_locked_again_adds_nothing() -> None:
    provider = MemoryProvider()
    made_vault(provider)
    with unlock_to_enrol(provider, recovery()) as enrolment:
        pass
    before = dict(provider.objects)
    with pytest.raises((SecretWiped, VaultLocked)):
        add_slot([provider], enrolment, Way(recovery(2), ""), NOW)
    with pytest.raises((SecretWiped, VaultLocked)):
        add_device([provider], enrolment)
    assert provider.objects == before
