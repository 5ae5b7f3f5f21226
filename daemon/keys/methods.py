"""Ways to come by the secret of a key slot. See docs/format.md, section 5."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Final, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from chatkeep.daemon.keys.errors import PasskeyRefused, SlotRefused
from chatkeep.daemon.keys.passkey import SECRET_SIZE, Answer, Ceremony, PasskeyParams, Question, evaluation
from chatkeep.daemon.keys.passphrase import Argon2Params, normalise, stretch
from chatkeep.daemon.keys.recovery import RecoveryKey
from chatkeep.daemon.keys.secret import SecretBytes, Sensitive, wipe

SlotKind: TypeAlias = Literal["recovery-64", "passphrase", "webauthn-prf"]
Params: TypeAlias = Argon2Params | PasskeyParams | None
"""What a slot says of how to come by its secret: nothing for recovery keys."""


MOST_QUESTIONS: Final = 64
"""Most credentials that are asked for in one gesture: Chromium takes no more of them."""
MOST_GESTURES: Final = 3
"""Most gestures of one unlocking. Only a storage that plants slots with a known credential needs a second one."""


class Place(Protocol):
    """Where a secret is needed: a slot file, or a slot that is being made."""

    @property
    def vault_id(self) -> bytes:
        """The vault."""

    @property
    def slot_id(self) -> bytes:
        """The slot."""

    @property
    def params(self) -> Params:
        """What the slot says of how to come by its secret."""


class NewSlot(NamedTuple):
    """A slot that is being made."""

    vault_id: bytes
    slot_id: bytes
    params: Params


AnyPlace = TypeVar("AnyPlace", bound=Place)


class SlotMethod(Protocol):
    """One way to come by a slot's secret. `kind` is that of the slots it can open."""

    @property
    def kind(self) -> SlotKind:
        """The kind of slot that this method opens."""

    @property
    def synced(self) -> bool | None:
        """Whether a vendor copies the secret to other machines; None where nobody does."""

    def fresh_params(self) -> Params:
        """The parameters of a new slot."""
        ...

    def among(self, slots: Sequence[AnyPlace]) -> Iterator[AnyPlace]:
        """Those of one vault's slots of this kind that are worth trying, in order. Once one opens, no more is drawn."""
        ...

    def secret(self, slot: Place) -> bytearray:
        """The secret for a slot, in a buffer for the caller to wipe."""
        ...


class RecoveryMethod(Sensitive):
    """By a recovery key, which stays the caller's to wipe."""

    __slots__ = ("_key",)
    kind: ClassVar[SlotKind] = "recovery-64"
    synced: ClassVar[bool | None] = None

    def __init__(self, key: RecoveryKey) -> None:
        self._key = key

    def fresh_params(self) -> Params:
        return None

    def among(self, slots: Sequence[AnyPlace]) -> Iterator[AnyPlace]:
        return iter(slots)

    def secret(self, slot: Place) -> bytearray:
        if slot.params is not None:
            raise AssertionError("a recovery slot with parameters")
        return self._key.secret()


class PassphraseMethod(Sensitive):
    """By a passphrase.

    Args:
        ask: returns the passphrase, as text or in UTF-8 to be overwritten; called once, when the first slot needs it,
            so nobody is asked in vain or twice.
        params: makes the parameters of new slots; tests pass weaker ones, to which the same bounds apply.
    """

    __slots__ = ("_ask", "_fresh", "_typed")
    kind: ClassVar[SlotKind] = "passphrase"
    synced: ClassVar[bool | None] = None

    def __init__(
        self, ask: Callable[[], str | bytearray], params: Callable[[], Argon2Params] = Argon2Params.fresh
    ) -> None:
        self._ask = ask
        self._fresh = params
        self._typed: bytearray | None = None

    def fresh_params(self) -> Params:
        return self._fresh()

    def among(self, slots: Sequence[AnyPlace]) -> Iterator[AnyPlace]:
        return iter(slots)

    def secret(self, slot: Place) -> bytearray:
        if not isinstance(slot.params, Argon2Params):
            raise AssertionError("a passphrase slot without its parameters")
        slot.params.check()  # before anybody is asked for a passphrase that will not be used
        if self._typed is None:
            self._typed = normalise(self._ask())
        return stretch(self._typed, slot.params)

    def wipe(self) -> None:
        """Overwrites the passphrase; the next use asks for it again."""
        if self._typed is not None:
            wipe(self._typed)
            self._typed = None


class PasskeyMethod(Sensitive):
    """By a passkey, asked for in a ceremony. What it answered is kept until `wipe`: one slot costs one gesture.

    Args:
        ceremony: asks the person.
        exclude: ids of credentials whose authenticator is not to get another one of this vault.
    """

    __slots__ = ("_ceremony", "_exclude", "_held", "_made", "_synced")
    kind: ClassVar[SlotKind] = "webauthn-prf"

    def __init__(self, ceremony: Ceremony, exclude: Sequence[bytes] = ()) -> None:
        self._ceremony = ceremony
        self._exclude = tuple(exclude)
        self._held: dict[Question, SecretBytes] = {}
        self._made: set[bytes] = set()
        self._synced: bool | None = None

    @property
    def synced(self) -> bool | None:
        """That of the credential that was made here; None before."""
        return self._synced

    def fresh_params(self) -> Params:
        made = self._ceremony.enrol(self._exclude)
        self._synced = made.synced
        self._made.add(made.credential)
        return PasskeyParams.fresh(made.credential)

    def among(self, slots: Sequence[AnyPlace]) -> Iterator[AnyPlace]:
        """All of them are asked for in one gesture; the one whose passkey answers comes first, and alone unless that
        passkey has another slot. Those that must not be asked for come before it: each is refused where it is tried.

        Raises `PasskeyRefused` (`crowded`) when it has more slots than a person is to be bothered for.
        """
        asked = [slot for slot in slots if _may_be_asked(slot)]
        yield from (slot for slot in slots if not _may_be_asked(slot))
        yield from (slot for slot in asked if _question(slot) in self._held)
        left = [slot for slot in asked if _question(slot) not in self._held]
        gestures = 0
        while left:
            if gestures == MOST_GESTURES:
                raise PasskeyRefused(reason="crowded", gestures=gestures, slots=gestures + len(left))
            # One slot of a credential at a time: an authenticator evaluates a credential at one place per gesture.
            first: dict[bytes, AnyPlace] = {}
            for slot in left:
                if len(first) < MOST_QUESTIONS:
                    first.setdefault(_question(slot).credential, slot)
            answer = self._ask([_question(slot) for slot in first.values()])
            gestures += 1
            chosen = first[answer.credential]
            yield chosen
            # Nobody chose the others. A second slot of the same passkey was planted, or is what it was removed from.
            left = [slot for slot in left if _question(slot).credential == answer.credential and slot is not chosen]

    def secret(self, slot: Place) -> bytearray:
        question = _question(slot)
        if question not in self._held:
            self._ask([question])
            if question.credential in self._made:
                self._confirm(question)
        return bytearray(self._held[question].view())

    def wipe(self) -> None:
        """Overwrites what was answered; the next use asks again."""
        for held in self._held.values():
            held.wipe()
        self._held.clear()

    def _confirm(self, question: Question) -> None:
        """A second gesture gives the same. An authenticator that does not keep its promise is found now."""
        before = self._held.pop(question)
        self._made.discard(question.credential)
        try:
            self._ask([question])
            if not hmac.compare_digest(before.view(), self._held[question].view()):
                self.wipe()
                raise PasskeyRefused(reason="unstable")
        finally:
            before.wipe()

    def _ask(self, questions: Sequence[Question]) -> Answer:
        answer = self._ceremony.ask(questions)
        found = next((one for one in questions if one.credential == answer.credential), None)
        if found is None or len(answer.secret) != SECRET_SIZE:
            wipe(answer.secret)
            raise PasskeyRefused(reason="other-credential" if found is None else "prf-length")
        self._held[found] = SecretBytes(answer.secret)
        return answer


def _question(slot: Place) -> Question:
    if not isinstance(slot.params, PasskeyParams):
        raise AssertionError("a passkey slot without its parameters")
    slot.params.check()
    return Question(slot.params.credential, evaluation(slot.vault_id, slot.slot_id, slot.params.salt))


def _may_be_asked(slot: Place) -> bool:
    try:
        _question(slot)
    except SlotRefused:
        return False
    return True
