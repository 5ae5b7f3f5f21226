"""Passkeys by hand: what an authenticator answers, written from the specifications with `hmac` and `hashlib` alone."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from chatkeep.daemon.control.errors import NotOnSecurityKey
from chatkeep.daemon.keys.methods import PasskeyMethod
from chatkeep.daemon.keys.passkey import Answer, NewCredential, Question


def salt_of(evaluation: bytes) -> bytes:
    """What the PRF extension gives hmac-secret as its first salt (Web Authentication Level 3, section 10.1.4)."""
    return hashlib.sha256(b"WebAuthn PRF\0" + evaluation).digest()


def prf(cred_random: bytes, evaluation: bytes) -> bytes:
    """What a credential with this CredRandom answers (CTAP 2.2, section 12.7)."""
    return hmac.new(cred_random, salt_of(evaluation), "sha256").digest()


def evaluation_of(vault_id: bytes, slot_id: bytes, salt: bytes) -> bytes:
    """What a slot's credential is evaluated at (docs/format.md, section 5)."""
    return hashlib.sha256(b"chatkeep/v1/prf\0" + vault_id + slot_id + salt).digest()


class AtHand:
    """Somebody with these credentials at hand, each with its CredRandom. The first one that is asked for answers.

    Attributes:
        asked: the questions of every gesture.
        instead: answers in place of the true ones, by credential.
    """

    def __init__(self, credentials: Mapping[bytes, bytes], *, synced: bool = False) -> None:
        self.credentials = dict(credentials)
        self.synced = synced
        self.asked: list[tuple[Question, ...]] = []
        self.instead: dict[bytes, Answer] = {}

    def enrol(self, exclude: Sequence[bytes]) -> NewCredential:
        return NewCredential(next(one for one in self.credentials if one not in exclude), self.synced)

    def ask(self, questions: Sequence[Question]) -> Answer:
        self.asked.append(tuple(questions))
        for credential, cred_random in self.credentials.items():
            for question in questions:
                if question.credential == credential:
                    true = Answer(credential, bytearray(prf(cred_random, question.evaluation)))
                    return self.instead.get(credential, true)
        raise NotOnSecurityKey(keys=1)

    def method(self) -> PasskeyMethod:
        """Unlocks with them."""
        return PasskeyMethod(self)
