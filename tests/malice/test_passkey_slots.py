"""Slots of passkeys that storage plants, changes or brings back: who is asked, how often, and what is said."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli.telling import tell
from chatkeep.daemon.control.errors import NotOnSecurityKey
from chatkeep.daemon.keys.errors import NoSlotOpened, PasskeyRefused, TooManySlots
from chatkeep.daemon.keys.methods import MOST_GESTURES, MOST_QUESTIONS
from chatkeep.daemon.keys.root import EpochKeys, RootSecret, SigningKey
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.keys.slots import create_slot
from chatkeep.daemon.keys.strict_json import encode_b64
from chatkeep.daemon.vault.errors import SlotRemoved
from chatkeep.daemon.vault.names import SlotName
from chatkeep.daemon.vault.unlock import MOST_SLOTS, unlock
from tests.malice.conftest import Attempts
from tests.support.hostile_vault import check_error
from tests.support.memory_provider import MemoryProvider
from tests.support.passkeys import AtHand
from tests.support.vaults import NOW, Epochs, recovery

MINE, LOST = b"my passkey, whole", b"a passkey that was removed"
RANDOM = b"\x33" * 32
STRANGER = EpochKeys(RootSecret(bytearray(b"s" * 32)))


class Held(NamedTuple):
    """A vault of two epochs: a recovery key and a passkey stay, a second passkey was removed."""

    epochs: Epochs
    provider: MemoryProvider
    mine: bytes  # slot ids
    removed: bytes

    def planted(self, credential: bytes, epoch: int = 2, keys: EpochKeys = STRANGER) -> bytes:
        """Puts a slot into storage that names a credential, as a stranger can, who has not its secret."""
        method = AtHand({credential: os.urandom(32)}).method()
        slot_id, raw = create_slot(method, keys, self.epochs.vault_id, epoch, "", NOW)
        self.provider.objects[str(SlotName(slot_id))] = raw
        return slot_id

    def changed(self, key: SigningKey, *changes: tuple[bytes, bytes]) -> None:
        """Puts the passkey's slot under an id of its own with its first line changed, signed by this key."""
        first, second, *_ = self.epochs.slots[self.mine].split(b"\n")
        slot_id = os.urandom(16)
        text = first.replace(self.mine.hex().encode(), slot_id.hex().encode())
        if key is not self.epochs.keys[0].sign:
            text = text.replace(self.epochs.keys[0].sign.public.raw.hex().encode(), key.public.raw.hex().encode())
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        raw = sign_text("slot", self.epochs.vault_id, [text, second], key)
        self.provider.objects[str(SlotName(slot_id))] = raw


@pytest.fixture
def held() -> Held:
    provider = MemoryProvider()
    epochs = Epochs(provider)
    stays = epochs.add_slot(recovery())
    mine, removed = (epochs.add_slot(AtHand({one: RANDOM}).method()) for one in (MINE, LOST))
    epochs.rotate([stays, mine])
    return Held(epochs, provider, mine, removed)


def asked_of(hands: AtHand) -> list[set[bytes]]:
    """Which credentials each gesture was for."""
    return [{one.credential for one in questions} for questions in hands.asked]


def codes(problems: Any) -> list[str]:
    found = list(problems)
    for problem in found:
        check_error(problem)
    return [problem.code for problem in found]


def signers(held: Held) -> list[SigningKey]:
    """A stranger, and whoever had the root secret of the first epoch."""
    return [STRANGER.sign, held.epochs.keys[0].sign]


def test_foreign_relying_parties_are_never_asked_for(held: Held, attempts: Attempts) -> None:
    names = [
        "bank.example",
        "localhost.bank.example",
        "Localhost",
        "localhost.",
        "127.0.0.1",
        "[::1]",
        "local",
        "x" * 253,
    ]
    count = 0
    for name in attempts.all(names):
        for key in signers(held):
            held.changed(key, (b'"localhost"', json.dumps(name).encode()))
            count += 1
    hands = AtHand({MINE: RANDOM})
    opened = unlock(held.provider, hands.method())
    assert asked_of(hands) == [{MINE, LOST}]
    assert sorted(codes(opened.findings)) == ["authentication-failed"] * (count // 2) + ["slot-refused"] * (count // 2)
    for name in (str(SlotName(held.mine)), str(SlotName(held.removed))):
        del held.provider.objects[name]
    with pytest.raises(NoSlotOpened) as caught:
        unlock(held.provider, hands.method())
    assert caught.value.params["reason"] == "damaged"
    assert len(hands.asked) == 1  # by the first unlock


def test_many_slots_with_my_credential_cost_no_gesture_more(held: Held, attempts: Attempts) -> None:
    for _ in attempts.all(range(MOST_SLOTS - 3)):
        held.planted(MINE)
    hands = AtHand({MINE: RANDOM})
    opened = unlock(held.provider, hands.method())
    assert asked_of(hands) == [{MINE, LOST}]
    assert codes(opened.findings) == ["authentication-failed"] * (MOST_SLOTS - 3)


def test_of_an_epoch_that_nobody_has_they_come_after_the_true_one(held: Held, attempts: Attempts) -> None:
    for _ in attempts.all(range(100)):
        held.planted(MINE, epoch=99)
    hands = AtHand({MINE: RANDOM})
    unlock(held.provider, hands.method())
    assert asked_of(hands) == [{MINE, LOST}]


def test_where_the_true_one_is_gone_nobody_is_asked_for_ever(held: Held, attempts: Attempts) -> None:
    for _ in attempts.all(range(100)):
        held.planted(MINE, epoch=99)
    del held.provider.objects[str(SlotName(held.mine))]
    hands = AtHand({MINE: RANDOM})
    with pytest.raises(PasskeyRefused) as caught:
        unlock(held.provider, hands.method())
    facts: dict[str, object] = {"reason": "crowded", "gestures": MOST_GESTURES, "slots": 100}
    assert caught.value.params == facts | {"damaged_slots": [held.mine.hex()]}
    assert len(hands.asked) == MOST_GESTURES
    assert "put them there" in tell(caught.value).remedy


def test_strange_credentials_do_not_crowd_mine_out_of_what_a_browser_takes(held: Held, attempts: Attempts) -> None:
    """Of the longest that there can be."""
    for number in attempts.all(range(MOST_SLOTS - 3)):
        held.planted(number.to_bytes(2) + bytes(1021), epoch=99)
    hands = AtHand({MINE: RANDOM})
    unlock(held.provider, hands.method())
    ((first, *_),) = (questions for questions in hands.asked)
    assert first.credential in {MINE, LOST}
    assert len(hands.asked[0]) == MOST_QUESTIONS
    assert {MINE, LOST} < asked_of(hands)[0]


def test_ten_thousand_slots_ask_nobody(held: Held, attempts: Attempts) -> None:
    raw = held.epochs.slots[held.mine]
    for number in attempts.all(range(10_000)):
        held.provider.objects[str(SlotName(number.to_bytes(16)))] = raw
    hands = AtHand({MINE: RANDOM})
    with pytest.raises(TooManySlots):
        unlock(held.provider, hands.method())
    assert hands.asked == []


def test_slots_of_another_vault_are_not_asked_for(held: Held, attempts: Attempts) -> None:
    """Of the same person, on the same security key; as they are, and with this vault's id on them."""
    other = Epochs(MemoryProvider(), seed=9)
    for credential in attempts.all([MINE, LOST, b"the other vault's"]):
        slot_id, raw = create_slot(AtHand({credential: RANDOM}).method(), other.keys[0], other.vault_id, 1, "", NOW)
        held.provider.objects[str(SlotName(slot_id))] = raw
        first, second, *_ = raw.split(b"\n")
        moved = first.replace(other.vault_id.hex().encode(), held.epochs.vault_id.hex().encode())
        for number, epoch in enumerate((b"1", b"2")):
            name = os.urandom(16)
            text = moved.replace(slot_id.hex().encode(), name.hex().encode()).replace(b'"epoch":1', b'"epoch":' + epoch)
            signed = sign_text("slot", held.epochs.vault_id, [text, second], other.keys[0].sign)
            held.provider.objects[str(SlotName(name))] = signed
            assert number < 2
    hands = AtHand({MINE: RANDOM, b"the other vault's": RANDOM})
    opened = unlock(held.provider, hands.method(), held.epochs.vault_id)
    assert asked_of(hands) == [{MINE, LOST}]
    assert codes(opened.findings) == ["authentication-failed"] * 6
    only = AtHand({b"the other vault's": RANDOM})
    with pytest.raises(NotOnSecurityKey):
        unlock(held.provider, only.method(), held.epochs.vault_id)
    assert asked_of(only) == [{MINE, LOST}]


def twice(held: Held) -> Iterator[tuple[bytes, bytes]]:
    """A parameter that stands there twice: which of the two counts would be the parser's choice."""
    first = held.epochs.slots[held.mine].split(b"\n")[0]
    cred = b'"cred":"%s"' % encode_b64(MINE).encode()
    assert cred in first
    yield b'"rp_id":"localhost"', b'"rp_id":"localhost","rp_id":"bank.example"'
    yield b'"rp_id":"localhost"', b'"rp_id":"bank.example","rp_id":"localhost"'
    yield cred, cred + b"," + cred
    yield b'"params":{', b'"params":{},"params":{'


def test_parameters_twice_ask_nobody(held: Held, attempts: Attempts) -> None:
    for change in attempts.all(twice(held)):
        for key in signers(held):
            held.changed(key, change)
    for name in (held.mine, held.removed):
        del held.provider.objects[str(SlotName(name))]
    hands = AtHand({MINE: RANDOM})
    with pytest.raises(NoSlotOpened) as caught:
        unlock(held.provider, hands.method())
    rows: Any = caught.value.params["slots"]
    assert [code for _, code, _ in rows] == ["text-malformed"] * 8 + ["missing-object"]  # which the record lists
    assert hands.asked == []


def nothing(_: Held) -> None:
    """It is all that is there."""


def crowd(held: Held) -> None:
    """Among others with its credential."""
    for number in range(30):
        held.planted(LOST, epoch=2 + 97 * (number % 2))


@pytest.mark.parametrize("beside", [nothing, crowd])
def test_a_removed_passkey_that_is_brought_back_is_told_as_removed(
    held: Held, attempts: Attempts, beside: Callable[[Held], None]
) -> None:
    for act in attempts.all([beside]):
        act(held)
    hands = AtHand({LOST: RANDOM})
    with pytest.raises(SlotRemoved) as caught:
        unlock(held.provider, hands.method())
    assert caught.value.params["slot"] == held.removed.hex()
    assert "was removed" in tell(caught.value).text
    assert len(hands.asked) == 1


def test_every_bit_of_what_is_asked_for(held: Held, attempts: Attempts) -> None:
    """Changed by whoever had the key that signed it: it opens nothing, and no error is one of Python's."""
    first = json.loads(held.epochs.slots[held.mine].split(b"\n")[0])
    params = first["params"]
    for key in attempts.some([(name, at) for name in ("cred", "salt") for at in range(len(params[name]))], 20):
        name, at = key
        letter = "A" if params[name][at] != "A" else "B"
        value = params[name][:at] + letter + params[name][at + 1 :]
        provider = MemoryProvider()
        provider.objects = dict(held.provider.objects)
        changed = Held(held.epochs, provider, held.mine, held.removed)
        changed.changed(held.epochs.keys[0].sign, (params[name].encode(), value.encode()))
        for slot in (held.mine, held.removed):
            del provider.objects[str(SlotName(slot))]
        with pytest.raises(ChatkeepError) as caught:
            unlock(provider, AtHand({MINE: RANDOM}).method())
        check_error(caught.value)
        assert caught.value.code in {"wrong-passkey", "not-on-security-key", "no-slot-opened"}, key
