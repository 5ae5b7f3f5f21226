"""Signed texts: lines of JSON that a person can read, then one signature line. See docs/format.md, section 4. Pure.

The signature is over the very bytes of the lines: there is no canonical form to restore, hence none to get wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from chatkeep.daemon.keys.errors import SignatureInvalid, TextMalformed
from chatkeep.daemon.keys.root import SIGNATURE_SIZE, SigningKey, VerifyKey
from chatkeep.daemon.keys.secret import label
from chatkeep.daemon.keys.strict_json import decode_b64, encode_b64

Kind: TypeAlias = Literal["epoch", "slot", "device"]

LIMITS: Final[Mapping[Kind, int]] = {"epoch": 256 * 1024, "slot": 64 * 1024, "device": 64 * 1024}
"""Most bytes of a text. Checked before anything else: storage decides how long a text is."""

_SIG_LINE: Final = re.compile(rb"sig ([0-9a-f]{32}) ([A-Za-z0-9_-]{86})")


@dataclass(frozen=True, slots=True)
class SplitText:
    """A signed text taken apart. **Nothing of it is verified** until `verify` has returned."""

    kind: Kind
    lines: tuple[bytes, ...]
    key_id: bytes
    signature: bytes

    def verify(self, vault_id: bytes, key: VerifyKey) -> None:
        """Returns when `key` signed these lines, as a text of this kind, for this vault.

        Raises:
            SignatureInvalid: it did not.
        """
        if self.key_id != key.key_id:
            raise SignatureInvalid(what=self.kind, reason="other-key", key_id=self.key_id.hex())
        key.verify(self.signature, _message(self.kind, vault_id, self.lines), what=self.kind)


def sign_text(kind: Kind, vault_id: bytes, lines: Sequence[bytes], key: SigningKey) -> bytes:
    """The signed text of these lines, which are given without their line feeds."""
    if any(b"\n" in line for line in lines):
        raise AssertionError("a line of a signed text with a line feed in it")
    signature = key.sign(_message(kind, vault_id, lines))
    text = _body(lines) + b"sig %s %s\n" % (key.public.key_id.hex().encode(), encode_b64(signature).encode())
    if len(text) > LIMITS[kind]:
        raise TextMalformed(what=kind, reason="too-long")  # no reader would take it
    return text


def split_text(kind: Kind, raw: bytes, n_lines: int) -> SplitText:
    """Takes a signed text apart without verifying it: for texts that say themselves whose signature they carry.

    Raises:
        TextMalformed: too long, not `n_lines` lines and a signature line, or something behind them.
    """
    if len(raw) > LIMITS[kind]:
        raise TextMalformed(what=kind, reason="too-long")
    pieces = raw.split(b"\n")
    if len(pieces) != n_lines + 2 or pieces[-1]:
        raise TextMalformed(what=kind, reason="lines")
    match = _SIG_LINE.fullmatch(pieces[-2])
    if match is None:
        raise TextMalformed(what=kind, reason="signature-line")
    try:
        signature = decode_b64(match[2].decode(), SIGNATURE_SIZE)
    except ValueError as exc:
        raise TextMalformed(what=kind, reason="signature-line") from exc
    return SplitText(kind, tuple(pieces[:n_lines]), bytes.fromhex(match[1].decode()), signature)


def read_text(kind: Kind, raw: bytes, vault_id: bytes, key: VerifyKey, n_lines: int) -> list[bytes]:
    """The lines of a signed text, without their line feeds, once its signature has been verified.

    Raises:
        TextMalformed: as `split_text`.
        SignatureInvalid: not signed by `key` as a text of this kind for this vault.
    """
    split = split_text(kind, raw, n_lines)
    split.verify(vault_id, key)
    return list(split.lines)


def _body(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _message(kind: Kind, vault_id: bytes, lines: Sequence[bytes]) -> bytes:
    body = _body(lines)
    # The kind keeps a certificate from passing as a slot, the vault id keeps out the texts of other vaults.
    return label(f"sig/{kind}") + vault_id + len(body).to_bytes(4, "big") + body
