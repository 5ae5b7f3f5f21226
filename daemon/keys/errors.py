"""What can be wrong with keys, key slots and what a person typed.

KeysError
  NotMine              the secret is not this slot's: the one soft error, on to the next slot
  NoSlotOpened         every slot was tried; why each did not open
  RecoveryTypo         a line of a recovery key is not as it was written down
  PassphraseRefused    nothing was typed, or not text
  SlotDamaged          the secret is right and the slot does not open, or the file contradicts itself
  SlotRefused          the slot asks for work outside the bounds, which was not begun
  TooManySlots         more slots than a vault can have
  LabelRefused         a slot's label is too long
  PasskeyRefused       what an authenticator answered must not be used
  Unsealable           sealed bytes do not open: another key, another context, or damage
  KeyRefused           a public key that gives no security, or none at all
  SignatureInvalid     a signature does not match
  TextMalformed        a signed text is not in the form
  TextVersion          a signed text of a later version
  SecretWiped          a secret is used after it was wiped
"""

from __future__ import annotations

from chatkeep.config.errors import ChatkeepError, Disposition


class KeysError(ChatkeepError):
    """Keys, slots, recovery keys, passphrases."""

    code = "keys-error"


class NotMine(KeysError):
    """The secret is not this slot's. Parameter: reason, `kind` (a slot of another kind) or `secret`."""

    code = "not-mine"
    disposition = Disposition.NEEDS_USER


class NoSlotOpened(KeysError):
    """No slot opened. Parameters: kind; wrong_secret, the number of sound slots that are another secret's;
    slots, a list of `[slot id, code, reason]`, one for each slot that was looked at; of this class itself also
    reason: absent (there is no slot of the kind), other-vault (only another vault's) or damaged (not every one is
    whole).
    """

    code = "no-slot-opened"
    disposition = Disposition.NEEDS_USER


class WrongRecoveryKey(NoSlotOpened):
    """The recovery key is well formed and none of the vault's: every slot of the kind is sound and another key's."""

    code = "wrong-recovery-key"


class WrongPassphrase(NoSlotOpened):
    """Every passphrase slot is sound and none is this passphrase's."""

    code = "wrong-passphrase"


class WrongPasskey(NoSlotOpened):
    """The passkey answered, and its secret is not that of its slot, which is sound."""

    code = "wrong-passkey"


class PasskeyRefused(KeysError):
    """What an authenticator or a browser answered is not to be used, and was not. Parameter: reason, one of
    `user-verification` (nobody was verified), `other-credential` (one that was not asked), `prf-length`, `no-prf`
    (without the extension a passkey opens nothing), `unstable` (two answers differ), `rp-id`, `challenge`, `origin`,
    `signature`, `malformed`, `crowded` (it has more slots than one; gestures, how often it answered; slots, how many).
    """

    code = "passkey-refused"
    disposition = Disposition.NEEDS_USER


class RecoveryTypo(KeysError):
    """A recovery key is not as it was written down. Parameters: line, from 1; reason, one of `length` (with digits, the
    number found), `not-a-digit` (with column, from 1), `check-digit`, `too-few-lines`, `too-many-lines`.
    Never the text.
    """

    code = "recovery-typo"
    disposition = Disposition.NEEDS_USER

    def __init__(self, line: int, reason: str, **params: object) -> None:
        super().__init__(line=line, reason=reason, **params)
        self.line = line
        self.reason = reason


class PassphraseRefused(KeysError):
    """Not a passphrase. Parameter: reason, `empty` or `encoding`."""

    code = "passphrase-refused"
    disposition = Disposition.NEEDS_USER


class SlotDamaged(KeysError):
    """The slot's secret is right and what it protects does not open. Parameters: reason, slot."""

    code = "slot-damaged"


class SlotRefused(KeysError):
    """The slot asks for a key derivation outside the bounds. None of it was run. Parameters: reason, and the value."""

    code = "slot-refused"


class TooManySlots(KeysError):
    """Storage lists more slots than a vault has. Parameters: found (at least), limit."""

    code = "too-many-slots"


class LabelRefused(KeysError):
    """A label does not fit its place. Parameter: reason, `length` (with size and limit in bytes) or `encoding`."""

    code = "label-refused"
    disposition = Disposition.NEEDS_USER


class Unsealable(KeysError):
    """Sealed bytes do not open. HPKE tells no more: another key, another context, and damage look the same."""

    code = "unsealable"


class KeyRefused(KeysError):
    """A public key that must not be used. Parameters: what; reason, `length`, `encoding` or `small-order`."""

    code = "key-refused"


class SignatureInvalid(KeysError):
    """A signature does not match. Parameter: what."""

    code = "signature-invalid"


class TextMalformed(KeysError):
    """A signed text is not in the form. Parameters: what; reason, a code; key, where one is at fault."""

    code = "text-malformed"


class TextVersion(KeysError):
    """A signed text is of a later version. Parameters: what, version."""

    code = "text-version"
    disposition = Disposition.NEEDS_USER


class SecretWiped(KeysError):
    """A secret was used after it was wiped. Parameter: what."""

    code = "secret-wiped"
