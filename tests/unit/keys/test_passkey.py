"""Passkey slots: what an authenticator is asked, how often, and what of its answers is refused."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from chatkeep.daemon.keys.errors import LabelRefused, NotMine, PasskeyRefused, SlotRefused, TextMalformed
from chatkeep.daemon.keys.methods import NewSlot, PasskeyMethod, PassphraseMethod
from chatkeep.daemon.keys.passkey import Answer, NewCredential, PasskeyParams, Question, evaluation
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import create_slot, open_label, open_slot
from chatkeep.daemon.keys.strict_json import encode_b64

KEYS = EpochKeys(RootSecret(bytearray(b"r" * 32)))
VAULT = b"v" * 16
NOW = 1_800_000_000_000_000_000
FIRST, SECOND = b"1" * 16, b"2" * 64


class Authenticators:
    """Some authenticators in front of somebody: each credential has a secret of its own. The first one asked for that
    is `at_hand` answers."""

    def __init__(self, *at_hand: bytes, synced: bool = False) -> None:
        self.at_hand = list(at_hand)
        self.synced = synced
        self.asked: list[tuple[Question, ...]] = []
        self.excluded: list[tuple[bytes, ...]] = []
        self.answer: Callable[[Question], Answer] = lambda question: Answer(question.credential, self.prf(question))

    @staticmethod
    def prf(question: Question) -> bytearray:
        salt = hashlib.sha256(b"WebAuthn PRF\0" + question.evaluation).digest()
        return bytearray(hmac.new(question.credential, salt, "sha256").digest())

    def enrol(self, exclude: Sequence[bytes]) -> NewCredential:
        self.excluded.append(tuple(exclude))
        return NewCredential(self.at_hand[0], self.synced)

    def ask(self, questions: Sequence[Question]) -> Answer:
        self.asked.append(tuple(questions))
        return self.answer(next(one for hand in self.at_hand for one in questions if one.credential == hand))


def made(credential: bytes = FIRST, *, synced: bool = False) -> SlotFile:
    method = PasskeyMethod(Authenticators(credential, synced=synced))
    return SlotFile.parse(create_slot(method, KEYS, VAULT, 1, "my key", NOW)[1])


SLOT, OTHER = made(FIRST), made(SECOND)


def changed(slot: SlotFile, **params: object) -> bytes:
    """The slot with parameters changed, signed again by the epoch's key, as whoever had that could."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in slot.raw.split(b"\n")[:2]]
    lines[0]["params"] |= params
    return sign_text("slot", VAULT, [json.dumps(line, separators=(",", ":")).encode() for line in lines], KEYS.sign)


def test_enrolment_is_one_creation_and_two_equal_answers_and_opens_without_another() -> None:
    hands = Authenticators(FIRST)
    method = PasskeyMethod(hands, exclude=[SECOND])
    slot_id, raw = create_slot(method, KEYS, VAULT, 1, "my key", NOW)
    slot = SlotFile.parse(raw)
    assert isinstance(slot.params, PasskeyParams)
    question = Question(FIRST, hashlib.sha256(b"chatkeep/v1/prf\0" + VAULT + slot_id + slot.params.salt).digest())
    assert hands.asked == [(question,), (question,)]
    assert hands.excluded == [(SECOND,)]
    assert open_slot(slot, method).open_envelope(slot.envelope, 1).view() == b"r" * 32
    assert len(hands.asked) == 2
    method.wipe()
    open_slot(slot, method)
    assert len(hands.asked) == 3


def test_unlocking_costs_one_gesture_and_tries_the_slot_whose_passkey_answered() -> None:
    hands = Authenticators(SECOND)
    method = PasskeyMethod(hands)
    tried = method.among([SLOT, OTHER])
    slot = next(tried)
    assert slot is OTHER
    open_slot(slot, method)
    assert [{one.credential for one in asked} for asked in hands.asked] == [{FIRST, SECOND}]
    assert list(tried) == []  # nobody chose the first one


def test_salts_are_fresh_and_places_part_of_the_question() -> None:
    params, again = PasskeyParams.fresh(FIRST), PasskeyParams.fresh(FIRST)
    assert params.salt != again.salt
    places = {evaluation(vault, slot, params.salt) for vault in (b"a" * 16, b"b" * 16) for slot in (b"c" * 16, VAULT)}
    assert len(places) == 4


def test_answers_that_differ_are_not_enrolled() -> None:
    hands = Authenticators(FIRST)
    secrets = [bytearray(b"a" * 32), bytearray(b"b" * 32)]
    hands.answer = lambda question: Answer(question.credential, secrets[len(hands.asked) - 1])
    with pytest.raises(PasskeyRefused) as caught:
        create_slot(PasskeyMethod(hands), KEYS, VAULT, 1, "", NOW)
    assert caught.value.params["reason"] == "unstable"
    assert len(hands.asked) == 2
    assert secrets == [bytearray(32), bytearray(32)]


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_secret_of_another_length_is_refused(size: int) -> None:
    hands = Authenticators(FIRST)
    hands.answer = lambda question: Answer(question.credential, bytearray(size))
    with pytest.raises(PasskeyRefused) as caught:
        list(PasskeyMethod(hands).among([SLOT]))
    assert caught.value.params["reason"] == "prf-length"


def test_answer_of_a_credential_that_was_not_asked_is_refused() -> None:
    hands = Authenticators(FIRST)
    given = bytearray(b"x" * 32)
    hands.answer = lambda _question: Answer(SECOND, given)
    with pytest.raises(PasskeyRefused) as caught:
        list(PasskeyMethod(hands).among([SLOT]))
    assert caught.value.params["reason"] == "other-credential"
    assert given == bytearray(32)


def test_foreign_relying_party_is_refused_before_anybody_is_asked() -> None:
    hands = Authenticators(FIRST)
    method = PasskeyMethod(hands)
    slot = SlotFile.parse(changed(SLOT, rp_id="bank.example"))
    assert list(method.among([slot])) == [slot]  # tried, so that it is told
    with pytest.raises(SlotRefused) as caught:
        open_slot(slot, method)
    assert caught.value.params == {"reason": "rp-id", "value": "bank.example"}
    assert hands.asked == []


def test_second_slot_of_the_same_passkey_costs_a_second_gesture() -> None:
    """A planted slot with a known credential must not keep the true one from being tried."""
    hands = Authenticators(FIRST)
    method = PasskeyMethod(hands)
    planted = SlotFile.parse(changed(SLOT, salt=encode_b64(bytes(32))))
    opened, refused = 0, 0
    for slot in method.among([planted, OTHER, SLOT]):
        try:
            open_slot(slot, method)
            opened += 1
        except NotMine:
            refused += 1
    assert (opened, refused) == (1, 1)
    assert [len(asked) for asked in hands.asked] == [2, 1]


def test_label_says_whether_it_is_synced() -> None:
    assert open_label(SLOT, KEYS.open) == ("my key", NOW, False)
    assert open_label(made(synced=True), KEYS.open) == ("my key", NOW, True)


def test_label_that_does_not_fit_is_told_before_a_passkey_is_made() -> None:
    hands = Authenticators(FIRST)
    with pytest.raises(LabelRefused):
        create_slot(PasskeyMethod(hands), KEYS, VAULT, 1, "n" * 116, NOW)
    assert hands.excluded == []


def test_other_methods_do_not_open_it() -> None:
    with pytest.raises(NotMine):
        open_slot(SLOT, PassphraseMethod(lambda: "never asked"))


@pytest.mark.parametrize(
    "params",
    [
        {"cred": encode_b64(bytes(15))},
        {"cred": encode_b64(bytes(1024))},
        {"cred": "=" * 22},
        {"cred": 7},
        {"salt": encode_b64(bytes(31))},
        {"rp_id": ""},
        {"rp_id": "x" * 254},
        {"rp_id": "local\u00e9"},
        {"rp_id": None},
        {"more": 1},
    ],
)
def test_parameters_that_no_writer_makes_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(TextMalformed) as caught:
        SlotFile.parse(changed(SLOT, **params))
    assert str(caught.value.params["key"]) == f"params.{next(iter(params))}"


def test_longest_and_shortest_credential_are_taken() -> None:
    for size in (16, 1023):
        params = made(bytes(size)).params
        assert isinstance(params, PasskeyParams)
        assert params.credential == bytes(size)


def test_nothing_is_shown() -> None:
    method = PasskeyMethod(Authenticators(FIRST))
    method.secret(NewSlot(VAULT, b"s" * 16, PasskeyParams.fresh(FIRST)))
    assert repr(method) == "<PasskeyMethod>"
    assert "secret" not in repr(Answer(FIRST, bytearray(b"\x01" * 32)))
