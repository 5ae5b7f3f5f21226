"""What the process that holds the keys opens and signs, and above all what it does not."""

from __future__ import annotations

import dataclasses
import hashlib
import os

import pytest

from chatkeep.daemon.keys.errors import SecretWiped, Unsealable
from chatkeep.daemon.keys.hardened import LockedBuffer
from chatkeep.daemon.keys.hybrid import OVERHEAD
from chatkeep.daemon.keys.secret import label
from chatkeep.daemon.keys.slot_file import LABEL_SIZE, label_context
from chatkeep.daemon.service import keyring as keyring_module
from chatkeep.daemon.service.keyring import Keyring, NoSuchKey, NotOurs
from chatkeep.daemon.service.wire import ENTRY_SIZE, EPOCH, SEED_SIZE, Opening, Unreadable
from chatkeep.daemon.vault.checkpoint_codec import Checkpoint, encode
from chatkeep.daemon.vault.labels import CHECKPOINT_MAGIC, MANIFEST, MAX_CHECKPOINT, PACK, SIG_CHECKPOINT
from tests.support.sessions import Vault


def seeds(vault: Vault, numbers: list[int] | None = None) -> LockedBuffer:
    """The seeds as they arrive."""
    buffer = LockedBuffer(len(vault.epochs) * ENTRY_SIZE + SEED_SIZE)
    parts = [
        EPOCH.pack(number) + keys.root.subkey("open")
        for number, keys in zip(numbers or range(1, len(vault.epochs) + 1), vault.epochs, strict=True)
    ]
    with buffer.view() as view:
        view[:] = b"".join(parts) + vault.epochs[-1].root.subkey("checkpoint")
    return buffer


@pytest.fixture
def ring(vault: Vault) -> Keyring:
    return Keyring(vault.id, seeds(vault))


def head(vault: Vault, ring: Keyring, epoch: int = 2) -> bytes:
    return CHECKPOINT_MAGIC + vault.id + epoch.to_bytes(4, "big") + ring.checkpoint.key_id


def sign(ring: Keyring, text: bytes, piece: int = 1 << 16) -> bytes:
    signing = ring.signing(len(text))
    for at in range(0, len(text), piece):
        signing.take(text[at : at + piece])
    return signing.signature()


def test_it_opens_what_belongs_to_the_objects_of_its_vault(vault: Vault, ring: Keyring) -> None:
    assert ring.open(vault.pack(1)) == ring.open(vault.pack(2)) == b"k" * 48
    assert ring.open(vault.manifest(2)) == b"k" * 32
    for epoch in (1, 2):
        assert ring.open(vault.sealed(epoch, label_context(vault.id, b"s" * 16), bytes(LABEL_SIZE))) == bytes(128)
    assert ring.opened == 5


def test_its_idea_of_a_sealed_label_is_that_of_slots() -> None:
    assert keyring_module._SLOT_LABEL + bytes(32) == label_context(bytes(16), bytes(16))
    assert keyring_module._SEALED_LABEL == LABEL_SIZE + OVERHEAD


def test_key_ids_and_checkpoint_key_are_those_of_the_epochs(vault: Vault, ring: Keyring) -> None:
    assert ring.key_ids == tuple(keys.open.public.key_id for keys in vault.epochs)
    assert ring.checkpoint == vault.epochs[-1].checkpoint.public


def test_nothing_else_is_opened_although_the_key_would_open_it(vault: Vault, ring: Keyring) -> None:
    whose, other = vault.whose(2), os.urandom(16) + vault.whose(2)[16:]
    envelope = label("envelope") + vault.id + bytes(4) + b"s" * 16
    refused = {
        "another vault's pack": (PACK + other + b"d" * 16, 48),
        "another epoch's pack": (PACK + vault.whose(1) + b"d" * 16, 48),
        "a pack without its device": (PACK + whose, 48),
        "a pack with more behind": (PACK + whose + b"d" * 17, 48),
        "a pack of another size": (PACK + whose + b"d" * 16, 47),
        "a root secret": (PACK + whose + b"d" * 16, 32),
        "a manifest of another version": (MANIFEST + b"CKSNAP\0\2" + whose + bytes(88), 32),
        "another vault's manifest": (MANIFEST + b"CKSNAP\0\1" + other + bytes(88), 32),
        "another vault's label": (label_context(os.urandom(16), b"s" * 16), 128),
        "a label without its slot": (label_context(vault.id, b""), 128),
        "a label of another size": (label_context(vault.id, b"s" * 16), 32),
        "an envelope": (envelope, 32),
        "nothing": (b"", 48),
        "one label in front of another": (b"chatkeep/v1/" + PACK + whose + b"d" * 16, 48),
    }
    for what, (bound, size) in refused.items():
        asked = vault.sealed(2, bound, bytes(size))
        assert vault.epochs[1].open.open(asked.sealed, asked.bound) == bytes(size), "the key itself opens it"
        with pytest.raises(NotOurs):
            ring.open(asked)
        assert ring.opened == 0, what


def test_another_epoch_or_key_is_none_of_its_keys(vault: Vault, ring: Keyring) -> None:
    stranger = Vault(3)
    stranger.id = vault.id
    for asked in (stranger.pack(3), stranger.pack(1)):
        with pytest.raises(NoSuchKey):
            ring.open(asked)
    with pytest.raises(NoSuchKey):
        ring.open(Opening(0, bytes(16), PACK + vault.id + bytes(4) + bytes(16) + b"d" * 16, bytes(1184)))


def test_damage_does_not_open(vault: Vault, ring: Keyring) -> None:
    asked = vault.pack()
    damaged = asked._replace(sealed=asked.sealed[:-1] + bytes([asked.sealed[-1] ^ 1]))
    with pytest.raises(Unsealable):
        ring.open(damaged)
    assert ring.opened == 0


@pytest.mark.parametrize("piece", [1, 7, 44, 45, 1 << 16])
def test_it_signs_a_checkpoint_however_it_arrives(vault: Vault, ring: Keyring, piece: int) -> None:
    text = encode(Checkpoint(1, bytes(32), 5, ()), vault.id, 2, ring.checkpoint.key_id, b"d" * 16)
    ring.checkpoint.verify(sign(ring, text, piece), SIG_CHECKPOINT + hashlib.sha256(text).digest(), "checkpoint")
    assert ring.signed == 1


def test_no_other_text_is_signed(vault: Vault, ring: Keyring) -> None:
    rest = bytes(80)
    for text in (
        head(vault, ring)[:-1] + b"x" + rest,  # another key's
        head(vault, ring, 1) + rest,  # of an epoch that is over
        head(vault, ring, 3) + rest,
        CHECKPOINT_MAGIC + os.urandom(16) + head(vault, ring)[24:] + rest,  # another vault's
        b"CKCHKP\0\2" + head(vault, ring)[8:] + rest,
        b" " + head(vault, ring) + rest,
        bytes(200),
    ):
        with pytest.raises(NotOurs):
            sign(ring, text)
    signing = ring.signing(200)
    signing.take(head(vault, ring) + bytes(150 - len(head(vault, ring))))
    with pytest.raises(NotOurs):
        signing.signature()  # not all of it was seen
    for size in (0, len(head(vault, ring)) - 1, MAX_CHECKPOINT - 63):
        with pytest.raises(NotOurs):
            ring.signing(size)
    assert ring.signed == 0


@pytest.mark.parametrize("numbers", [[0, 1], [2, 3], [1, 3], [2, 1], [1, 1]])
def test_epochs_are_all_there_and_in_order(vault: Vault, numbers: list[int]) -> None:
    with pytest.raises(Unreadable):
        Keyring(vault.id, seeds(vault, numbers))


def test_wiped_it_does_nothing(vault: Vault, ring: Keyring) -> None:
    asked = vault.pack()
    ring.wipe()
    with pytest.raises(SecretWiped):
        ring.open(asked)
    signing = ring.signing(len(head(vault, ring)))
    signing.take(head(vault, ring))
    with pytest.raises(SecretWiped):
        signing.signature()


def test_facts_are_plain_values(vault: Vault) -> None:
    assert {field.name for field in dataclasses.fields(vault.facts())}.isdisjoint({"seed", "seeds", "keys"})
