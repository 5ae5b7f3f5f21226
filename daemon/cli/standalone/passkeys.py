"""Passkeys [5], as far as they go without a browser: what to ask a security key for, and what it answered.

A security key answers through libfido2's fido2-assert. A passkey of a phone or of a vendor's account answers a browser
alone: who has no other way in, and no Chatkeep, needs the recovery key.
"""

from __future__ import annotations

import base64
import collections
from collections.abc import Iterator

from chatkeep.daemon.cli.standalone.keys import sha
from chatkeep.daemon.cli.standalone.storage import Notes, Storage
from chatkeep.daemon.cli.standalone.strict import NoKey, demand
from chatkeep.daemon.cli.standalone.vault import Slot, passkey_question, read_slot

PASSKEY = "webauthn-prf"
ANSWERED = 32  # bytes that a passkey answers
HOW = """\
A passkey on a security key opens this vault with its PIN and a touch. `fido2-token -L` lists the keys that are plugged
in (both programs are in the package fido2-tools); take the line of your passkey, with your key in place of DEVICE:
"""
THEN = """
Then:  --prf-file answer     That file opens the vault as the key does: delete it when you are done.
A passkey of a phone or of a vendor's account answers a browser only. Use the recovery key.
"""


def slots_here(storage: Storage, notes: Notes) -> list[Slot]:
    """Every key slot that can be taken apart, of whatever vault; nothing of it is verified."""
    found = []
    for name in storage.names("slots"):
        with notes.noting(f"slots/{name}"):
            slot = read_slot(storage, name)
            demand(f"{slot.outer['slot']}.json" == name, "it is not the slot of its name")
            found.append(slot)
    return found


def counted(slots: list[Slot]) -> str:
    """How many slots there are of each kind."""
    kinds = collections.Counter(str(slot.outer["kind"]) for slot in slots)
    known = {"recovery-64": "recovery key", "passphrase": "passphrase", PASSKEY: "passkey"}
    parts = [f"{kinds[kind]} {name}{'s' * (kinds[kind] > 1)}" for kind, name in known.items() if kinds[kind]]
    return ", ".join(parts) or "no key slot"


def told(storage: Storage, notes: Notes) -> Iterator[str]:
    """How to have a security key answer: a line for each passkey of the vaults here."""
    lines = []
    for slot in slots_here(storage, notes):
        if slot.outer["kind"] == PASSKEY:
            with notes.noting(f"slots/{slot.outer['slot']}.json"):
                credential, place = passkey_question(slot)
                # What the PRF extension hands to hmac-secret. The first line is to be signed, which nobody needs.
                asked = [bytes(32), credential, sha(b"WebAuthn PRF\0" + place)]
                anything, who, salt = (base64.b64encode(each).decode() for each in asked)
                command = f"printf '%s\\n' {anything} localhost {who} {salt} | fido2-assert -G -h -v -o answer DEVICE"
                lines.append(f"slot {slot.outer['slot']}:\n  {command}")
    yield HOW if lines else "No passkey opens this vault: use the recovery key."
    yield from lines
    if lines:
        yield THEN


def answered(raw: bytes) -> bytes:
    """What a passkey answered: its 32 bytes, or what fido2-assert wrote, in whose last line they stand as base64."""
    if len(raw) != ANSWERED:
        last = (raw.split() or [b""])[-1]
        try:
            raw = base64.b64decode(last, altchars=b"-_" if set(last) & set(b"-_") else None, validate=True)
        except ValueError:
            raw = b""
    if len(raw) != ANSWERED:
        raise NoKey("this is no answer of a passkey: 32 bytes, or the file that fido2-assert -h wrote")
    return raw
