"""Passkeys: what a slot says of one, what an authenticator is asked, and who asks it (docs/format.md, section 5).

The secret is the output of the PRF extension (Web Authentication Level 3, section 10.1.4), which a security key gives
through hmac-secret (CTAP 2.2, section 12.7): the same credential gives the same 32 bytes in a browser and on the
command line. How it is asked is none of this module's business: a `Ceremony` does that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from chatkeep.daemon.keys.errors import SlotRefused
from chatkeep.daemon.keys.secret import label, random_secret

RP_ID: Final = "localhost"
"""The one relying party. A slot comes from storage, and an authenticator would answer for any name that it gives."""
SECRET_SIZE: Final = 32
SALT_SIZE: Final = 32
CREDENTIAL_SIZE: Final = (16, 1023)
"""Bytes of a credential id: Web Authentication Level 3, section 4 (at least 16, at most 1023)."""


@dataclass(frozen=True, slots=True)
class PasskeyParams:
    """What a passkey slot says: the relying party, the credential's id, and the slot's salt."""

    rp_id: str
    credential: bytes
    salt: bytes

    @classmethod
    def fresh(cls, credential: bytes) -> PasskeyParams:
        """The parameters of a new slot for this credential."""
        return cls(RP_ID, credential, bytes(random_secret(SALT_SIZE)))

    def check(self) -> None:
        """Returns when an authenticator may be asked this, else raises `SlotRefused`."""
        if self.rp_id != RP_ID:
            raise SlotRefused(reason="rp-id", value=self.rp_id)
        least, most = CREDENTIAL_SIZE
        if not least <= len(self.credential) <= most:
            raise SlotRefused(reason="credential", value=len(self.credential))
        if len(self.salt) != SALT_SIZE:
            raise SlotRefused(reason="salt", value=len(self.salt))


def evaluation(vault_id: bytes, slot_id: bytes, salt: bytes) -> bytes:
    """What the PRF of a slot's credential is evaluated at: 32 bytes.

    Not the salt itself: every page on localhost has the same relying party, and storage, which chooses the salt, could
    otherwise ask for the very value that another program's secret rests on.
    """
    return hashlib.sha256(label("prf") + vault_id + slot_id + salt).digest()


class Question(NamedTuple):
    """One credential, and what its PRF is to be evaluated at (32 bytes)."""

    credential: bytes
    evaluation: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """Which credential answered, and its PRF's output (32 bytes), for the receiver to wipe."""

    credential: bytes
    secret: bytearray


class NewCredential(NamedTuple):
    """A credential that was made. `synced`: whoever keeps it copies it to other machines (the flag BE of Web
    Authentication Level 3, section 6.1.3)."""

    credential: bytes
    synced: bool


class Ceremony(Protocol):
    """Somebody with an authenticator in front of them. User verification is required, and was checked."""

    def enrol(self, exclude: Sequence[bytes]) -> NewCredential:
        """Makes a credential, on an authenticator that has none of `exclude`. Raises what its kind of ceremony does."""
        ...

    def ask(self, questions: Sequence[Question]) -> Answer:
        """Has one of the credentials answer, whichever the person has at hand. One gesture.

        Raises:
            PasskeyRefused: what came back is not to be used.
            What its kind of ceremony does: cancelled, timed out, none of them at hand.
        """
        ...
