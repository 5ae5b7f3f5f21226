"""What is believed of a browser's answer: every claim in it is checked, and each that is wrong is named."""

from __future__ import annotations

import dataclasses
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from chatkeep.daemon.control.ceremony.webauthn import ALGORITHMS, Assertion, Verifier
from chatkeep.daemon.control.errors import AlreadyEnrolled
from chatkeep.daemon.keys.errors import PasskeyRefused
from chatkeep.daemon.keys.passkey import Question
from chatkeep.daemon.keys.strict_json import encode_b64
from tests.support.soft_passkey import BE, BS, UP, UV, SoftPasskey

ORIGIN = "http://localhost:1"
CHALLENGE = os.urandom(32)
EVALUATION = os.urandom(32)


def verifier() -> Verifier:
    return Verifier(ORIGIN)


def asking(passkey: SoftPasskey) -> tuple[Question, ...]:
    return (Question(passkey.credential, EVALUATION), Question(os.urandom(32), EVALUATION))


def refusal_of_creation(passkey: SoftPasskey, /, **more: object) -> str:
    made = passkey.create(CHALLENGE, **more)
    with pytest.raises(PasskeyRefused) as caught:
        verifier().registered(made, CHALLENGE, [])
    return str(caught.value.params["reason"])


def refusal(answer: Assertion, passkey: SoftPasskey, by: Verifier | None = None) -> str:
    with pytest.raises(PasskeyRefused) as caught:
        (by or verifier()).answered(answer, CHALLENGE, asking(passkey))
    return str(caught.value.params["reason"])


def test_what_a_browser_is_asked() -> None:
    made, other = os.urandom(16), os.urandom(64)
    create = verifier().creation(CHALLENGE, "Family backup key", [made], 90.5)
    assert create["rp"] == {"id": "localhost", "name": "Chatkeep"}
    assert create["user"]["name"] == "Family backup key"
    assert create["authenticatorSelection"]["residentKey"] == "required"
    assert create["authenticatorSelection"]["userVerification"] == "required"
    assert create["excludeCredentials"] == [{"type": "public-key", "id": encode_b64(made)}]
    assert [each["alg"] for each in create["pubKeyCredParams"]] == list(ALGORITHMS)
    assert create["extensions"] == {"prf": {}}
    assert create["timeout"] == 90500
    request = verifier().request(CHALLENGE, [Question(made, b"1" * 32), Question(other, b"2" * 32)], 1)
    assert request["rpId"] == "localhost"
    assert request["userVerification"] == "required"
    assert [each["id"] for each in request["allowCredentials"]] == [encode_b64(made), encode_b64(other)]
    assert request["extensions"]["prf"]["evalByCredential"] == {
        encode_b64(made): {"first": encode_b64(b"1" * 32)},
        encode_b64(other): {"first": encode_b64(b"2" * 32)},
    }


def test_each_enrolment_has_a_user_of_its_own() -> None:
    ids = {verifier().creation(CHALLENGE, "k", [], 1)["user"]["id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(("flags", "synced"), [(UP | UV, False), (UP | UV | BE, True), (UP | UV | BE | BS, True)])
def test_a_new_credential(flags: int, synced: bool) -> None:
    passkey = SoftPasskey(ORIGIN, flags=flags)
    made = verifier().registered(passkey.create(CHALLENGE), CHALLENGE, [])
    assert made == (passkey.credential, synced)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"flags": UP}, "user-verification"),
        ({"flags": UV}, "user-verification"),
        ({"rp_id": "example.com"}, "rp-id"),
        ({"origin": "http://localhost:2"}, "origin"),
        ({"origin": "http://127.0.0.1:1"}, "origin"),
        ({"origin": "https://localhost:1"}, "origin"),
        ({"credential": b"short"}, "malformed"),
        ({"credential": b"x" * 1024}, "malformed"),
    ],
)
def test_creations_that_are_refused(changed: dict[str, object], reason: str) -> None:
    assert refusal_of_creation(dataclasses.replace(SoftPasskey(ORIGIN), **changed)) == reason  # type: ignore[arg-type]


def test_creations_with_another_challenge_type_or_frame_are_refused() -> None:
    passkey = SoftPasskey(ORIGIN)
    assert refusal_of_creation(passkey, challenge=encode_b64(os.urandom(32))) == "challenge"
    assert refusal_of_creation(passkey, type="webauthn.get") == "malformed"
    assert refusal_of_creation(passkey, crossOrigin=True) == "origin"


def test_a_creation_under_another_id_or_that_is_no_creation_is_refused() -> None:
    made = SoftPasskey(ORIGIN).create(CHALLENGE)
    for wrong in (
        dataclasses.replace(made, credential=os.urandom(32)),
        dataclasses.replace(made, attestation=made.attestation[:100]),
        dataclasses.replace(made, attestation=b""),
        dataclasses.replace(made, client=b"{}"),
        dataclasses.replace(made, client=b"\xff"),
    ):
        with pytest.raises(PasskeyRefused) as caught:
            verifier().registered(wrong, CHALLENGE, [])
        assert caught.value.params["reason"] == "malformed"


def test_a_creation_of_what_was_excluded() -> None:
    passkey = SoftPasskey(ORIGIN)
    with pytest.raises(AlreadyEnrolled):
        verifier().registered(passkey.create(CHALLENGE), CHALLENGE, [passkey.credential])


def test_an_answer() -> None:
    passkey = SoftPasskey(ORIGIN)
    verifier().answered(passkey.get(CHALLENGE, EVALUATION), CHALLENGE, asking(passkey))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"flags": UP}, "user-verification"),
        ({"flags": UV}, "user-verification"),
        ({"flags": 0}, "user-verification"),
        ({"rp_id": "example.com"}, "rp-id"),
        ({"origin": "http://localhost:2"}, "origin"),
        ({"origin": "null"}, "origin"),
    ],
)
def test_answers_that_are_refused(changed: dict[str, object], reason: str) -> None:
    passkey = dataclasses.replace(SoftPasskey(ORIGIN), **changed)  # type: ignore[arg-type]
    assert refusal(passkey.get(CHALLENGE, EVALUATION), passkey) == reason


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_secret_of_another_length_is_refused(size: int) -> None:
    passkey = SoftPasskey(ORIGIN)
    answer = dataclasses.replace(passkey.get(CHALLENGE, EVALUATION), secret=bytearray(size))
    assert refusal(answer, passkey) == "prf-length"


def test_an_answer_of_a_credential_that_was_not_asked_is_refused() -> None:
    passkey = SoftPasskey(ORIGIN)
    assert refusal(SoftPasskey(ORIGIN).get(CHALLENGE, EVALUATION), passkey) == "other-credential"


def test_an_answer_to_another_challenge_or_of_another_type_is_refused() -> None:
    passkey = SoftPasskey(ORIGIN)
    assert refusal(passkey.get(os.urandom(32), EVALUATION), passkey) == "challenge"
    assert refusal(passkey.get(CHALLENGE, EVALUATION, type="webauthn.create"), passkey) == "malformed"
    assert refusal(passkey.get(CHALLENGE, EVALUATION, crossOrigin=True), passkey) == "origin"
    answer = passkey.get(CHALLENGE, EVALUATION)
    assert refusal(dataclasses.replace(answer, authenticator=answer.authenticator[:36]), passkey) == "malformed"
    assert refusal(dataclasses.replace(answer, client=b"[]"), passkey) == "malformed"


class TestAfterEnrolment:
    """Its public key is at hand then, so every answer is checked with it."""

    def enrolled(self) -> tuple[SoftPasskey, Verifier]:
        passkey, by = SoftPasskey(ORIGIN), verifier()
        by.registered(passkey.create(CHALLENGE), CHALLENGE, [])
        return passkey, by

    def test_its_answer(self) -> None:
        passkey, by = self.enrolled()
        by.answered(passkey.get(CHALLENGE, EVALUATION), CHALLENGE, asking(passkey))

    def test_a_signature_of_another_key(self) -> None:
        passkey, by = self.enrolled()
        forged = dataclasses.replace(passkey, key=ec.generate_private_key(ec.SECP256R1()))
        assert refusal(forged.get(CHALLENGE, EVALUATION), passkey, by) == "signature"

    def test_a_signature_over_something_else(self) -> None:
        passkey, by = self.enrolled()
        answer = passkey.get(CHALLENGE, EVALUATION)
        other = passkey.get(CHALLENGE, EVALUATION, more=1)
        assert refusal(dataclasses.replace(answer, signature=other.signature), passkey, by) == "signature"
        assert refusal(dataclasses.replace(answer, signature=b""), passkey, by) == "signature"

    def test_another_credential_that_was_asked(self) -> None:
        passkey, by = self.enrolled()
        other = SoftPasskey(ORIGIN)
        answer = other.get(CHALLENGE, EVALUATION)
        with pytest.raises(PasskeyRefused) as caught:
            by.answered(answer, CHALLENGE, (*asking(passkey), *asking(other)))
        assert caught.value.params["reason"] == "other-credential"

    def test_without_it_a_signature_proves_nothing(self) -> None:
        # What `webauthn` says of unlocking: nobody's key is at hand, and the slot's own check decides.
        passkey = SoftPasskey(ORIGIN)
        answer = dataclasses.replace(passkey.get(CHALLENGE, EVALUATION), signature=b"anything")
        verifier().answered(answer, CHALLENGE, asking(passkey))
