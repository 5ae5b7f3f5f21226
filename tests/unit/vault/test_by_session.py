"""A vault whose keys a session holds: as if it were unlocked here, and nothing on the session's or storage's word."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator

import pytest

from chatkeep.daemon.keys.hybrid import HybridPrivate
from chatkeep.daemon.keys.root import SigningKey
from chatkeep.daemon.vault.by_session import Held, open_by_session, prune_by_session
from chatkeep.daemon.vault.errors import (
    AuthenticationFailed,
    MissingObject,
    SessionOutdated,
    UnknownKey,
    VaultError,
    VaultLocked,
)
from chatkeep.daemon.vault.labels import SIG_CHECKPOINT
from chatkeep.daemon.vault.unlock import unlock, unlock_to_enrol, unlock_to_hand_over
from chatkeep.providers.base import ObjectStat, Unavailable
from tests.support.memory_provider import MemoryProvider
from tests.support.vaults import Epochs, made_vault, recovery


class Holder:
    """What holds the keys, in this process."""

    def __init__(self, made: Epochs) -> None:
        self.keys = list(made.keys)
        self.closed = False

    def open(self, epoch: int, key_id: bytes, sealed: bytes, bound: bytes) -> bytes:
        assert self.keys[epoch - 1].open.public.key_id == key_id
        return self.keys[epoch - 1].open.open(sealed, bound)

    def sign(self, text: bytes) -> bytes:
        return self.keys[-1].checkpoint.sign_hashed(SIG_CHECKPOINT, text)

    def close(self) -> None:
        self.closed = True


def held(made: Epochs, epoch: int | None = None) -> Held:
    """What a session says that was begun in this epoch, or the newest."""
    keys = made.keys[:epoch]
    return Held(
        made.vault_id,
        made.records[len(keys) - 1].sha256,
        b"s" * 16,
        tuple(one.open.public.key_id for one in keys),
        keys[-1].checkpoint.public.raw,
    )


@pytest.fixture
def made() -> Epochs:
    """A vault in its second epoch, with a slot and a device."""
    made = Epochs(MemoryProvider("a"))
    slot, device = made.add_slot(recovery()), made.add_device()
    made.rotate([slot], [device])
    return made


def copy_of(made: Epochs, name: str, without: str = "\0") -> MemoryProvider:
    copy = MemoryProvider(name)
    assert isinstance(made.provider, MemoryProvider)
    copy.objects.update({key: raw for key, raw in made.provider.objects.items() if not key.startswith(without)})
    return copy


def test_it_is_the_vault_that_a_secret_opens(made: Epochs) -> None:
    holder = Holder(made)
    vault = open_by_session(holder, held(made), made.provider)
    with unlock(made.provider, recovery()) as own:
        assert [one.sha256 for one in vault.records] == [one.sha256 for one in own.records]
        assert (vault.vault_id, vault.devices, vault.removed) == (own.vault_id, own.devices, own.removed)
        assert vault.findings == own.findings == ()
        assert vault.slot_id == b"s" * 16
        for number, keys in enumerate(made.keys, 1):
            public = keys.open.public
            sealed = public.seal(b"x", b"bound")
            assert vault.opener(number, public.key_id).open(sealed, b"bound") == b"x"
            assert vault.opener(number, public.key_id).public == own.opener(number, public.key_id).public
    with pytest.raises(UnknownKey):
        vault.opener(1, bytes(16))
    closed = [holder.closed]
    vault.wipe()
    assert [*closed, holder.closed] == [False, True]
    with pytest.raises(VaultLocked):
        vault.opener(2, made.keys[1].open.public.key_id)


def test_it_signs_checkpoints_and_nothing_else(made: Epochs) -> None:
    holder = Holder(made)
    with prune_by_session(holder, held(made), made.provider, pin=made.records[-1].pin) as pruner:
        assert pruner.record.sha256 == made.records[-1].sha256
        assert pruner.checkpoint.public == made.records[-1].checkpoint
        signature = pruner.checkpoint.sign_hashed(SIG_CHECKPOINT, b"text")
        made.records[-1].checkpoint.verify(signature, SIG_CHECKPOINT + hashlib.sha256(b"text").digest(), "checkpoint")
        with pytest.raises(AssertionError):
            pruner.checkpoint.sign_hashed(b"chatkeep/v1/sig/slot\0", b"text")
    assert holder.closed


def test_after_the_keys_were_changed_it_reads_nothing(made: Epochs) -> None:
    older = held(made)
    made.rotate(made.slots)
    holder = Holder(made)
    for act in (
        lambda: open_by_session(holder, older, made.provider),
        lambda: prune_by_session(holder, older, made.provider, pin=made.records[1].pin),
    ):
        with pytest.raises(SessionOutdated) as caught:
            act()
        assert caught.value.params == {"epoch": 3, "since": 2}


def test_that_they_were_changed_is_seen_at_any_provider(made: Epochs) -> None:
    older, behind = held(made), copy_of(made, "behind")
    made.rotate(made.slots)
    with pytest.raises(SessionOutdated):
        open_by_session(Holder(made), older, behind, others=[behind, made.provider])


def test_an_older_copy_is_read_and_told_and_nothing_is_signed_for_it(made: Epochs) -> None:
    older = copy_of(made, "older", without="epochs/00000002")
    vault = open_by_session(Holder(made), held(made), older, pin=made.records[1].pin)
    assert len(vault.records) == 1
    assert [(type(one), one.params["name"]) for one in vault.findings if isinstance(one, MissingObject)] == [
        (MissingObject, str(made.records[1].name))
    ]
    assert vault.opener(1, made.keys[0].open.public.key_id)
    for pin in (made.records[0].pin, made.records[1].pin):
        with pytest.raises(MissingObject):
            prune_by_session(Holder(made), held(made), older, pin=pin)


def test_another_history_under_the_same_number_is_refused(made: Epochs) -> None:
    """Whoever has an old root secret, and storage, shows a fresh second epoch: not the one that the session knows."""
    rival = copy_of(made, "rival", without="epochs/00000002")
    other = Epochs(MemoryProvider("scratch"))
    assert other.vault_id == made.vault_id  # the same first keys
    record = other.rotate()
    rival.objects[str(record.name)] = record.raw
    with pytest.raises(AuthenticationFailed) as caught:
        open_by_session(Holder(made), held(made), rival)
    assert caught.value.params["what"] == "session-keys"


def test_keys_that_are_not_the_records_are_refused(made: Epochs) -> None:
    right = held(made)
    for wrong in (
        dataclasses.replace(right, key_ids=(right.key_ids[1], right.key_ids[0])),
        dataclasses.replace(right, checkpoint=bytes(32)),
    ):
        with pytest.raises(AuthenticationFailed):
            open_by_session(Holder(made), wrong, made.provider)


def test_storage_of_another_vault_is_none_of_its_business(made: Epochs) -> None:
    stranger = MemoryProvider("stranger")
    made_vault(stranger)
    with pytest.raises(VaultError):
        open_by_session(Holder(made), held(made), stranger)


def test_one_of_several_providers_may_be_away(made: Epochs) -> None:
    class Away(MemoryProvider):
        def list(self, prefix: str) -> Iterator[ObjectStat]:
            asked.append(prefix)
            raise Unavailable(provider=self.name)

    asked: list[str] = []
    vault = open_by_session(Holder(made), held(made), made.provider, others=[Away("away")])
    assert asked
    assert vault.findings == ()


# -- handing over ------------------------------------------------------------------------------------------------------


def test_what_is_handed_over_makes_the_keys_of_every_epoch(made: Epochs) -> None:
    vault, seeds = unlock_to_hand_over(made.provider, recovery())
    with vault, seeds:
        for record, seed in zip(vault.records, seeds.open, strict=True):
            assert HybridPrivate.from_seed(seed).public == record.public
        assert SigningKey(seeds.checkpoint).public == vault.head.checkpoint
        assert vault.opener(2, vault.head.public.key_id)
        assert repr(seeds) == "<ReadingSeeds>"
    assert not any(any(seed) for seed in (*seeds.open, seeds.checkpoint))


def test_nothing_that_certifies_is_kept_or_handed_over(made: Epochs, monkeypatch: pytest.MonkeyPatch) -> None:
    from chatkeep.daemon.keys.errors import SecretWiped
    from chatkeep.daemon.vault import unlock as module

    seen = []
    real = module._unlocked

    def watched(*arguments: object) -> object:
        vault, every = real(*arguments)  # type: ignore[arg-type]
        seen.extend(every)
        return vault, every

    monkeypatch.setattr(module, "_unlocked", watched)
    vault, seeds = unlock_to_hand_over(made.provider, recovery())
    assert len(seen) == 2
    for keys in seen:
        for use in (keys.root.view, lambda keys=keys: keys.sign.sign(b""), lambda keys=keys: keys.checkpoint.sign(b"")):
            with pytest.raises(SecretWiped):
                use()
    with unlock_to_enrol(made.provider, recovery()) as enrolment:
        sign = enrolment.keys.root.subkey("sign")
    assert sign not in [*seeds.open, seeds.checkpoint]
    vault.wipe()
