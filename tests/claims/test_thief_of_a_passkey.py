"""Whoever has a passkey and its PIN, or the account that syncs it: with storage he reads, until it is removed.

On the frozen vault with passkeys: one stays, one was removed with the first epoch.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from chatkeep.daemon.keys.errors import NotMine, Unsealable
from chatkeep.daemon.keys.passkey import Answer
from chatkeep.daemon.keys.root import EpochKeys
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import open_slot
from chatkeep.daemon.restore.snapshot import plan
from chatkeep.daemon.vault.errors import SlotRemoved
from chatkeep.daemon.vault.reader import VaultReader
from chatkeep.daemon.vault.unlock import unlock
from tests.support.passkeys import AtHand
from tests.vectors import make_passkey, make_vault

VAULT: Mapping[str, Any] = json.loads(make_passkey.VAULT.read_text("utf-8"))
OBJECTS = {name: base64.b64decode(text) for name, text in VAULT["objects"].items()}


def stolen(name: str) -> AtHand:
    """The passkey, in the hands of somebody who can make it answer."""
    slot = VAULT[name]
    return AtHand({bytes.fromhex(slot["credential"]): bytes.fromhex(slot["cred_random_with_uv"])})


def slot_of(name: str) -> SlotFile:
    return SlotFile.parse(OBJECTS[f"slots/{VAULT[name]['slot']}.json"])


def test_with_storage_he_reads_everything() -> None:
    provider = make_vault.storage(OBJECTS)
    reader = VaultReader([provider], unlock(provider, stolen("passkey").method()))
    (stream,) = reader.streams()
    found = [plan(reader, snapshot).figures.files for snapshot in reader.snapshots(reader.chain(stream))]
    assert len(found) == 2
    assert all(count >= 3 for count in found)


def test_the_key_without_its_pin_opens_nothing() -> None:
    """A key that is only touched answers with its other secret."""
    hands = stolen("passkey")
    credential = bytes.fromhex(VAULT["passkey"]["credential"])
    hands.credentials = {credential: b"\x77" * 32}  # CredRandomWithoutUV: any other
    with pytest.raises(NotMine):
        open_slot(slot_of("passkey"), hands.method())


def test_what_he_saw_answered_once_opens_no_other_slot() -> None:
    """Not of the same vault, and so of no other: each slot asks for a value of its own."""
    hands = stolen("passkey")
    method = hands.method()
    seen = bytes(method.secret(slot_of("passkey")))
    other = stolen("removed_passkey")
    credential = bytes.fromhex(VAULT["removed_passkey"]["credential"])
    other.instead[credential] = Answer(credential, bytearray(seen))
    with pytest.raises(NotMine):
        open_slot(slot_of("removed_passkey"), other.method())


def test_once_it_is_removed_he_reads_what_was_sealed_before_and_nothing_after() -> None:
    with pytest.raises(SlotRemoved):
        unlock(make_vault.storage(OBJECTS), stolen("removed_passkey").method())
    slot = slot_of("removed_passkey")
    root = open_slot(slot, stolen("removed_passkey").method()).open_envelope(slot.envelope, slot.epoch)
    assert root.view().hex() == VAULT["roots"][0]
    private = EpochKeys(root).open
    old, new = (raw for name, raw in sorted(OBJECTS.items()) if "/s/" in name)
    assert len(private.open(old[132:1300], b"chatkeep/v1/manifest\0" + old[:132])) == 32
    with pytest.raises(Unsealable):
        private.open(new[132:1300], b"chatkeep/v1/manifest\0" + new[:132])
