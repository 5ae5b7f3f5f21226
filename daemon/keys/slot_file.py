"""The file of a key slot: reading it, and the contexts its parts are bound to (docs/format.md, section 5). Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from chatkeep.daemon.keys import strict_json as js
from chatkeep.daemon.keys.errors import TextMalformed
from chatkeep.daemon.keys.hybrid import OVERHEAD, PUBLIC_SIZE, HybridPublic
from chatkeep.daemon.keys.methods import Params, SlotKind
from chatkeep.daemon.keys.passkey import CREDENTIAL_SIZE, SALT_SIZE, PasskeyParams
from chatkeep.daemon.keys.passphrase import Argon2Params
from chatkeep.daemon.keys.root import ROOT_SIZE, VERIFY_KEY_SIZE, VerifyKey
from chatkeep.daemon.keys.secret import label
from chatkeep.daemon.keys.signed import split_text

ENVELOPE_SIZE: Final = ROOT_SIZE + OVERHEAD
LABEL_SIZE: Final = 128
_WRAPPED_SIZE: Final = 48
ID_SIZE: Final = 16
_U32: Final = 2**32 - 1

_FIRST_LINE: Final[js.Spec] = {
    "v": js.exactly(1),
    "vault": js.hexadecimal(ID_SIZE),
    "slot": js.hexadecimal(ID_SIZE),
    "epoch": js.integer(1, _U32),
    "pin": js.hexadecimal(VERIFY_KEY_SIZE),
    "kind": js.one_of("recovery-64", "passphrase", "webauthn-prf"),
    "pub": js.b64(PUBLIC_SIZE),
    "salt": js.b64(32),
    "params": js.anything,  # read by kind
    "sealed": js.b64(LABEL_SIZE + OVERHEAD),
}
_SECOND_LINE: Final[js.Spec] = {
    "commit": js.hexadecimal(32),
    "wrapped": js.b64(_WRAPPED_SIZE),
    "env": js.b64(ENVELOPE_SIZE),
}
# Whole numbers here; the bounds are checked before the derivation runs, so that what was asked for can be told.
_ARGON2: Final = js.nested(
    {"m": js.integer(1, _U32), "t": js.integer(1, _U32), "p": js.integer(1, _U32), "salt": js.b64(32)}
)
# Any name here, too: that it is a foreign one is told as such.
_PASSKEY: Final = js.nested(
    {"rp_id": js.text(253), "cred": js.b64_between(*CREDENTIAL_SIZE), "salt": js.b64(SALT_SIZE)}
)


@dataclass(frozen=True, slots=True)
class SlotFile:
    """What a slot file says. It is whole (the signature is that of its own `pin`) and **not trusted**: whose `pin` is
    shows when it is opened, since the secret authenticates the first line.
    """

    vault_id: bytes
    slot_id: bytes
    epoch: int
    pin: VerifyKey
    kind: SlotKind
    public: HybridPublic
    salt: bytes
    params: Params
    sealed: bytes
    commitment: bytes
    wrapped: bytes
    envelope: bytes
    first_line: bytes
    raw: bytes
    sha256: bytes

    @classmethod
    def parse(cls, raw: bytes) -> SlotFile:
        """Reads a slot file.

        Raises:
            TextVersion: of a later format.
            TextMalformed, KeyRefused: anything else that no writer makes.
            SignatureInvalid: it was changed since it was written.
        """
        text = split_text("slot", raw, 2)
        first = js.parse_object(text.lines[0], _FIRST_LINE, "slot")
        second = js.parse_object(text.lines[1], _SECOND_LINE, "slot")
        pin = VerifyKey(first["pin"])
        # Without this, damage to the salt or the commitment would be told as "not your key".
        text.verify(first["vault"], pin)
        return cls(
            vault_id=first["vault"],
            slot_id=first["slot"],
            epoch=first["epoch"],
            pin=pin,
            kind=first["kind"],
            public=HybridPublic(first["pub"]),
            salt=first["salt"],
            params=_read_params(first["kind"], first["params"]),
            sealed=first["sealed"],
            commitment=second["commit"],
            wrapped=second["wrapped"],
            envelope=second["env"],
            first_line=text.lines[0],
            raw=raw,
            sha256=hashlib.sha256(raw).digest(),
        )


def _read_params(kind: SlotKind, found: object) -> Params:
    try:
        if kind == "recovery-64":
            js.nested({})(found)
            return None
        if kind == "passphrase":
            return Argon2Params(**_ARGON2(found))
        fields = _PASSKEY(found)
        return PasskeyParams(fields["rp_id"], fields["cred"], fields["salt"])
    except ValueError as exc:
        raise TextMalformed(what="slot", reason="field", key=f"params.{exc}") from exc


def write_params(params: Params) -> dict[str, object]:
    """What a slot file says of these parameters. Raises `SlotRefused` for what no reader would run."""
    if params is None:
        return {}
    params.check()
    if isinstance(params, PasskeyParams):
        cred, salt = js.encode_b64(params.credential), js.encode_b64(params.salt)
        return {"rp_id": params.rp_id, "cred": cred, "salt": salt}
    return {"m": params.m, "t": params.t, "p": params.p, "salt": js.encode_b64(params.salt)}


def wrap_context(first_line: bytes) -> bytes:
    """What the wrapped slot seed is bound to: all that the file says of the slot."""
    return label("slot") + first_line + b"\n"


def label_context(vault_id: bytes, slot_id: bytes) -> bytes:
    """What a slot's sealed label is bound to."""
    return label("slot-label") + vault_id + slot_id


def envelope_context(vault_id: bytes, epoch: int, slot_id: bytes) -> bytes:
    """What an envelope of the root secret of `epoch` is bound to."""
    return label("slot-env") + vault_id + epoch.to_bytes(4, "big") + slot_id
