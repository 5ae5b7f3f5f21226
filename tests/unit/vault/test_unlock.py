"""Unlocking a vault of one epoch: the right secret opens it, anything else is told precisely."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from chatkeep.daemon.keys.errors import (
    KeysError,
    NoSlotOpened,
    PassphraseRefused,
    SecretWiped,
    TooManySlots,
    WrongPassphrase,
    WrongRecoveryKey,
)
from chatkeep.daemon.keys.methods import PassphraseMethod
from chatkeep.daemon.vault import unlock as unlock_module
from chatkeep.daemon.vault.create import Way, create_vault
from chatkeep.daemon.vault.errors import (
    MissingObject,
    NoVault,
    ObjectMismatch,
    SeveralVaults,
    UnknownKey,
    VaultError,
    VaultLocked,
)
from chatkeep.daemon.vault.unlock import unlock, unlock_to_enrol, unlock_to_prune
from chatkeep.providers.base import Unavailable
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.flips import flips
from tests.support.memory_provider import MemoryProvider
from tests.support.vaults import NOW, made_vault, passphrase, recovery


def stored() -> MemoryProvider:
    provider = MemoryProvider()
    made_vault(provider)
    return provider


def only(provider: MemoryProvider, prefix: str) -> str:
    (name,) = (name for name in provider.objects if name.startswith(prefix))
    return name


def test_right_key_reads() -> None:
    provider = MemoryProvider()
    created = made_vault(provider)
    with unlock(provider, recovery()) as vault:
        assert vault.vault_id == created.vault_id
        assert vault.head == created.record
        assert vault.records == (created.record,)
        assert list(vault.devices) == [created.credential.device_id]
        assert vault.devices[created.credential.device_id].key == created.credential.device_key.public
        assert (vault.removed, vault.findings) == ({}, ())
        sealed = created.credential.public.seal(b"a pack key", b"info")
        assert vault.opener(1, created.credential.public.key_id).open(sealed, b"info") == b"a pack key"


def test_unknown_keys_are_told() -> None:
    provider = MemoryProvider()
    created = made_vault(provider)
    vault = unlock(provider, recovery())
    for epoch, key_id in ((2, created.record.public.key_id), (1, bytes(16)), (0, created.record.public.key_id)):
        with pytest.raises(UnknownKey):
            vault.opener(epoch, key_id)


def test_locked_again_reads_nothing() -> None:
    provider = MemoryProvider()
    key_id = made_vault(provider).record.public.key_id
    with unlock(provider, recovery()) as vault:
        private = vault.opener(1, key_id)
    sealed = private.public.seal(b"x", b"")
    with pytest.raises(SecretWiped):
        private.open(sealed, b"")
    with pytest.raises(VaultLocked):
        vault.opener(1, key_id)


def test_reader_holds_nothing_that_signs() -> None:
    provider = stored()
    enrolment = unlock_to_enrol(provider, recovery())
    assert enrolment.keys.sign.sign(b"")
    vault = unlock(provider, recovery())
    assert not hasattr(vault, "keys")
    assert not any("sign" in name or "root" in name for name in vars(vault))


def test_reading_wipes_what_only_enrolment_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = unlock_module._unlock

    def watched(*arguments: object) -> object:
        vault, every = real(*arguments)  # type: ignore[arg-type]
        seen.extend(every)
        return vault, every

    monkeypatch.setattr(unlock_module, "_unlock", watched)
    unlock(stored(), recovery())
    (keys,) = seen
    for use in (lambda: keys.root.view(), lambda: keys.sign.sign(b""), lambda: keys.checkpoint.sign(b"")):
        with pytest.raises(SecretWiped):
            use()


def test_enrolment_wipes_everything() -> None:
    with unlock_to_enrol(stored(), recovery()) as enrolment:
        pass
    with pytest.raises(SecretWiped):
        enrolment.keys.root.view()
    with pytest.raises(SecretWiped):
        enrolment.keys.sign.sign(b"")
    with pytest.raises(VaultLocked):
        enrolment.vault.opener(1, bytes(16))


def test_pruning_reads_and_signs_checkpoints_and_certifies_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = unlock_module._unlock

    def watched(*arguments: object) -> object:
        vault, every = real(*arguments)  # type: ignore[arg-type]
        seen.extend(every)
        return vault, every

    monkeypatch.setattr(unlock_module, "_unlock", watched)
    with unlock_to_prune(stored(), recovery()) as pruner:
        (keys,) = seen
        for use in (lambda: keys.root.view(), lambda: keys.sign.sign(b"")):
            with pytest.raises(SecretWiped):
                use()
        assert pruner.record is pruner.vault.head
        pruner.record.checkpoint.verify(
            pruner.checkpoint.sign_hashed(b"label", b"text"), b"label" + sha256(b"text").digest(), "checkpoint"
        )
        key_id = pruner.record.public.key_id
        sealed = pruner.record.public.seal(b"x", b"")
        assert pruner.vault.opener(1, key_id).open(sealed, b"") == b"x"
    with pytest.raises(SecretWiped):
        pruner.checkpoint.sign_hashed(b"", b"")
    with pytest.raises(VaultLocked):
        pruner.vault.opener(1, key_id)


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
def test_unlocked_vaults_do_not_travel(take: Callable[[object], object]) -> None:
    provider = stored()
    for secret in (
        unlock(provider, recovery()),
        unlock_to_enrol(provider, recovery()),
        unlock_to_prune(provider, recovery()),
    ):
        assert repr(secret) == f"<{type(secret).__name__}>"
        with pytest.raises(TypeError):
            take(secret)


def test_well_formed_recovery_key_of_nobody_is_told_as_wrong() -> None:
    with pytest.raises(WrongRecoveryKey) as caught:
        unlock(stored(), recovery(8))
    assert caught.value.params["wrong_secret"] == 1
    slots: Any = caught.value.params["slots"]
    assert [row[1:] for row in slots] == [["not-mine", "secret"]]


def test_passphrase_opens_and_a_wrong_one_does_not() -> None:
    provider = MemoryProvider()
    create_vault([provider], [Way(recovery(), ""), Way(passphrase(), "")], NOW)
    assert unlock(provider, passphrase()).findings == ()
    with pytest.raises(WrongPassphrase):
        unlock(provider, passphrase("wrong horse"))


def test_nothing_of_the_kind_is_not_a_wrong_secret() -> None:
    with pytest.raises(NoSlotOpened) as caught:
        unlock(stored(), passphrase())
    assert type(caught.value) is NoSlotOpened
    assert caught.value.params["slots"] == []


def test_refused_passphrase_is_the_persons_and_not_the_slots() -> None:
    provider = MemoryProvider()
    create_vault([provider], [Way(recovery(), ""), Way(passphrase(), "")], NOW)
    with pytest.raises(PassphraseRefused):
        unlock(provider, PassphraseMethod(lambda: ""))


def test_damage_anywhere_is_told_and_nothing_opens() -> None:
    provider = stored()
    for prefix in ("slots/", "epochs/"):
        name = only(provider, prefix)
        whole = provider.objects[name]
        tried = 0
        # Each position of the smaller object, every seventh of the slot, which test_slots damages everywhere.
        for position, changed in flips(whole):
            if position % 7 and prefix == "slots/":
                continue
            provider.objects[name] = changed
            with pytest.raises((KeysError, VaultError)) as caught:
                unlock(provider, recovery())
            # A person whose key is right must not be told that it is wrong.
            assert not isinstance(caught.value, WrongRecoveryKey)
            tried += 1
        assert tried > 250
        provider.objects[name] = whole
    assert unlock(provider, recovery()).findings == ()


def test_damaged_certificate_is_a_finding() -> None:
    provider = stored()
    name = only(provider, "devices/")
    whole = provider.objects[name]
    for _, changed in [*flips(whole), (0, whole[:-1]), (0, whole + b"x"), (0, b"")]:
        provider.objects[name] = changed
        vault = unlock(provider, recovery())
        assert vault.devices == {}
        assert len(vault.findings) == 1


def test_sound_slot_opens_beside_damaged_ones() -> None:
    provider = MemoryProvider()
    create_vault([provider], [Way(recovery(), "one"), Way(recovery(3), "two")], NOW)
    opened = []
    for name in [name for name in provider.objects if name.startswith("slots/")]:
        whole = provider.objects[name]
        provider.objects[name] = whole.replace(b"recovery", b"recoverx")
        for digit in (7, 3):
            with contextlib.suppress(NoSlotOpened):
                vault = unlock(provider, recovery(digit))
                assert [finding.code for finding in vault.findings] == ["text-malformed"]
                opened.append(digit)
        provider.objects[name] = whole
    assert sorted(opened) == [3, 7]


def test_damaged_slot_may_be_the_one_so_the_key_is_not_called_wrong() -> None:
    provider = MemoryProvider()
    create_vault([provider], [Way(recovery(), "one"), Way(recovery(3), "two")], NOW)
    name = next(name for name in provider.objects if name.startswith("slots/"))
    provider.objects[name] = b""
    with pytest.raises(NoSlotOpened) as caught:
        unlock(provider, recovery(5))
    assert type(caught.value) is NoSlotOpened
    assert caught.value.params["wrong_secret"] == 1


@pytest.mark.parametrize("prefix", ["slots/", "epochs/"])
def test_absent_parts_are_told(prefix: str) -> None:
    provider = stored()
    del provider.objects[only(provider, prefix)]
    expected: type[Exception] = MissingObject if prefix == "epochs/" else NoSlotOpened
    with pytest.raises(expected):
        unlock(provider, recovery())


def test_nothing_there_is_no_vault() -> None:
    with pytest.raises(NoVault):
        unlock(MemoryProvider(), recovery())


def test_marker_is_needed_for_nothing() -> None:
    provider = stored()
    del provider.objects[only(provider, "vault/")]
    assert unlock(provider, recovery()).findings == ()


def test_stray_marker_is_passed_over() -> None:
    provider = stored()
    provider.put("vault/" + "00" * 16, b"")
    assert unlock(provider, recovery()).findings == ()


def test_of_several_vaults_one_has_to_be_named() -> None:
    provider = stored()
    first = unlock(provider, recovery()).vault_id
    other = MemoryProvider()
    second = made_vault(other).vault_id
    provider.objects |= other.objects
    with pytest.raises(SeveralVaults) as caught:
        unlock(provider, recovery())
    assert caught.value.params["vaults"] == sorted([first.hex(), second.hex()])
    for vault_id in (first, second):
        vault = unlock(provider, recovery(), vault_id)
        assert vault.vault_id == vault_id
        assert len(vault.devices) == 1
        # The other vault's certificate could be one of this vault, damaged: it is shown.
        assert [finding.code for finding in vault.findings] == ["wrong-vault"]


def test_named_vault_that_is_not_there() -> None:
    with pytest.raises(NoSlotOpened) as caught:
        unlock(stored(), recovery(), bytes(16))
    assert caught.value.params["slots"] == []


def test_slot_under_another_name_is_refused() -> None:
    provider = stored()
    name = only(provider, "slots/")
    provider.objects["slots/" + "00" * 16 + ".json"] = provider.objects.pop(name)
    with pytest.raises(NoSlotOpened) as caught:
        unlock(provider, recovery())
    assert caught.value.params["slots"] == [["00" * 16, "object-mismatch", None]]


def test_certificate_under_another_name_is_refused() -> None:
    provider = stored()
    provider.objects["devices/" + "00" * 16 + ".json"] = provider.objects.pop(only(provider, "devices/"))
    vault = unlock(provider, recovery())
    assert vault.devices == {}
    assert isinstance(vault.findings[0], ObjectMismatch)


def test_names_of_others_are_passed_over() -> None:
    provider = stored()
    for name in ("slots/readme.txt", "epochs/notes", "devices/x.json", "vault/x", "epochs/00000000-" + "0" * 64):
        provider.put(name, b"somebody's")
    assert unlock(provider, recovery()).findings == ()


def test_ten_thousand_slots_are_refused_before_any_is_fetched() -> None:
    provider = stored()
    for number in range(10_000):
        provider.objects[f"slots/{number:032x}.json"] = b""
    provider.verbs.clear()
    with pytest.raises(TooManySlots):
        unlock(provider, recovery())
    assert not [verb for verb in provider.verbs if verb[0] == "get"]


def test_many_passphrase_slots_are_refused_before_anybody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = MemoryProvider()
    create_vault([provider], [Way(recovery(), ""), Way(passphrase(), ""), Way(passphrase(), "")], NOW)
    monkeypatch.setattr(unlock_module, "MOST_STRETCHES", 1)

    def never() -> str:
        raise AssertionError("asked")

    with pytest.raises(TooManySlots):
        unlock(provider, PassphraseMethod(never))


def test_endless_objects_are_read_to_their_bound_only() -> None:
    provider = stored()
    name = "slots/" + "00" * 16 + ".json"
    provider.objects[name] = b"x" * (1 << 22)
    asked: list[int | None] = []
    real = provider.get

    def get(name: str, offset: int = 0, length: int | None = None) -> bytes:
        asked.append(length)
        return real(name, offset, length)

    provider.get = get  # type: ignore[method-assign]
    assert [finding.code for finding in unlock(provider, recovery()).findings] == ["malformed"]
    assert all(length is not None and length <= 256 * 1024 + 1 for length in asked)


def test_failing_storage_is_told_as_such() -> None:
    for verb, about in (("list", "slots/"), ("get", "slots/"), ("get", "epochs/"), ("get", "devices/")):
        fault = Fault(verb, Unavailable(), about=about)  # type: ignore[arg-type]
        with pytest.raises(Unavailable):
            unlock(FaultyProvider(stored(), fault), recovery())
        assert fault.fired == 1


def test_slot_of_another_vault_does_not_open_this_one() -> None:
    # Same recovery key, another vault's slot: relabelled it is another secret's, as it is it is another vault's.
    provider, other = stored(), stored()
    vault_id = unlock(provider, recovery()).vault_id
    del provider.objects[only(provider, "slots/")]
    foreign = only(other, "slots/")
    provider.objects[foreign] = other.objects[foreign]
    with pytest.raises(NoSlotOpened):
        unlock(provider, recovery(), vault_id)
    with pytest.raises(MissingObject):
        unlock(provider, recovery())
