"""Ways to come by the secret of a key slot. See docs/format.md, section 5."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Protocol, TypeAlias

from chatkeep.daemon.keys.passphrase import Argon2Params, normalise, stretch
from chatkeep.daemon.keys.recovery import RecoveryKey
from chatkeep.daemon.keys.secret import Sensitive, wipe

SlotKind: TypeAlias = Literal["recovery-64", "passphrase", "webauthn-prf"]
Params: TypeAlias = Argon2Params | None
"""What a slot says of how to come by its secret: nothing for recovery keys."""


class SlotMethod(Protocol):
    """One way to come by a slot's secret. `kind` is that of the slots it can open."""

    @property
    def kind(self) -> SlotKind:
        """The kind of slot that this method opens."""

    def fresh_params(self) -> Params:
        """The parameters of a new slot."""
        ...

    def secret(self, params: Params) -> bytearray:
        """The secret for a slot with these parameters, in a buffer for the caller to wipe."""
        ...


class RecoveryMethod(Sensitive):
    """By a recovery key, which stays the caller's to wipe."""

    __slots__ = ("_key",)
    kind: ClassVar[SlotKind] = "recovery-64"

    def __init__(self, key: RecoveryKey) -> None:
        self._key = key

    def fresh_params(self) -> Params:
        return None

    def secret(self, params: Params) -> bytearray:
        if params is not None:
            raise AssertionError("a recovery slot with parameters")
        return self._key.secret()


class PassphraseMethod(Sensitive):
    """By a passphrase.

    Args:
        ask: returns the passphrase; called once, when the first slot needs it, so nobody is asked in vain or twice.
        params: makes the parameters of new slots; tests pass weaker ones, to which the same bounds apply.
    """

    __slots__ = ("_ask", "_fresh", "_typed")
    kind: ClassVar[SlotKind] = "passphrase"

    def __init__(self, ask: Callable[[], str], params: Callable[[], Argon2Params] = Argon2Params.fresh) -> None:
        self._ask = ask
        self._fresh = params
        self._typed: bytearray | None = None

    def fresh_params(self) -> Params:
        return self._fresh()

    def secret(self, params: Params) -> bytearray:
        if params is None:
            raise AssertionError("a passphrase slot without parameters")
        params.check()  # before anybody is asked for a passphrase that will not be used
        if self._typed is None:
            self._typed = normalise(self._ask())
        return stretch(self._typed, params)

    def wipe(self) -> None:
        """Overwrites the passphrase; the next use asks for it again."""
        if self._typed is not None:
            wipe(self._typed)
            self._typed = None
