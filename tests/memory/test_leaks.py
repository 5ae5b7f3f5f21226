"""What a careless change would be, and that the search finds it: else finding nothing would say nothing."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from tests.support.memory_child import LEAKS, STEPS
from tests.support.memory_play import Play, gesture, nothing, unlocking
from tests.support.memory_scan import Found, Scanner
from tests.support.memory_vault import KINDS, Vault
from tests.support.secret_hunt import hkdf

# What the libraries give back as it is, after all that can be done from outside them: one block of each key that is
# derived, the seed of each ML-KEM key, and the passphrase. It is overwritten by having them do the same with zeros,
# which only helps where memory is used again.
DERIVED = ("kek", "key", "open 1", "open 2", "sign 1", "sign 2", "checkpoint 1", "checkpoint 2", "older 1", "older 2")
RESIDUE = (*DERIVED, "ML-KEM d", "ML-KEM z", "passphrase")


def left(found: Found) -> set[str]:
    """What is found and is not what the libraries leave."""
    return {name for name in found.names if not name.endswith(RESIDUE)}


@pytest.mark.parametrize("leak", ["bytes", "half", "hex", "json", "frame"])
def test_what_is_kept_is_found(vault: Vault, scanner: Scanner, leak: str) -> None:
    with unlocking(vault, "recovery", leak=leak) as play:
        play.at("unlocked")
        play.at("wiped")
        found = scanner.look(play.pid)
    assert {"root 1", "root 2"} <= found.names, found.told()
    assert any(name.startswith("recovery ") and name.endswith(" secret") for name in found.names)
    # Both alphabets spell alike what happens to have none of the two letters that they differ in.
    spelled = {"hex": ("hex",), "json": ("url base64", "base64")}.get(leak, ("raw",))
    assert any(hit.spelling.startswith(spelled) for hit in found.hits)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_found_where_unlocking_failed(vault: Vault, kind: str) -> None:
    scanner = Scanner(vault.wrong(kind))
    with unlocking(vault, kind, f"wrong-{kind}", leak="bytes" if kind == "passkey" else "no wiping") as play:
        if kind == "passkey":
            gesture(play, vault.wrong_passkey)
        assert play.at("wiped")["code"].startswith("wrong-")
        assert scanner.look(play.pid).hits


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_given_back_holds_nothing(vault: Vault, scanner: Scanner, hoard: Path, kind: str) -> None:
    """With an allocator that overwrites nothing and uses nothing again, so that no luck helps."""
    with unlocking(vault, kind, way="enrol", hoard=hoard) as play:
        if kind == "passkey":
            gesture(play, vault.passkey)
        play.at("unlocked")
        assert "root 2" in scanner.look(play.pid).names
        play.at("wiped")
        found = scanner.look(play.pid)
    assert not left(found), found.told()
    assert {"older 2", "open 2, ML-KEM d"} <= found.names, "nothing is left any more: what overwrites it can go"


@pytest.mark.parametrize(
    ("leak", "names"),
    [
        ("no wiping", {"root 1", "root 2"}),
        ("no overwriting", {"root 2", "open 1, X25519", "open 2, X25519"}),
    ],
)
def test_what_is_given_back_as_it_is_is_found(
    vault: Vault, scanner: Scanner, hoard: Path, leak: str, names: set[str]
) -> None:
    with unlocking(vault, "recovery", leak=leak, hoard=hoard) as play:
        play.at("unlocked")
        play.at("wiped")
        found = scanner.look(play.pid)
    assert names <= left(found), found.told()


def test_every_leak_is_tried() -> None:
    assert set(LEAKS) == {"bytes", "half", "hex", "json", "frame", "no wiping", "no overwriting"}


@pytest.mark.parametrize(
    ("step", "careless"), [*((step, False) for step in STEPS), ("derive", True), ("stretch", True)]
)
def test_each_step_leaves_nothing_at_once(step: str, careless: bool) -> None:
    """Right after it, before anything else comes to lie where it worked. Careless: as the library leaves it."""
    given = secrets.token_bytes(32)
    scanner = Scanner(made_of(given))
    reading, writing = os.pipe()
    os.write(writing, given)
    os.close(writing)
    with Play.scene("step", None, (reading,), name=step, descriptor=reading, careless=careless) as play:
        os.close(reading)
        play.at("given")
        assert "given" in scanner.look(play.pid).names
        play.at("done")
        found = scanner.look(play.pid)
    if careless:
        assert found.hits, "the library leaves nothing any more: what overwrites it can go"
    else:
        nothing(found, scanner)


def made_of(given: bytes) -> dict[str, bytes]:
    """A secret, and what the steps make of it."""
    expanded = hashlib.shake_256(given).digest(96)
    stretched = Argon2id(salt=b"s" * 32, length=32, iterations=1, lanes=1, memory_cost=65_536).derive(given)
    derived = hkdf(given, b"info", 64, bytes(32))
    return {
        "given": given,
        "expanded": expanded,
        "ML-KEM d": expanded[:32],
        "ML-KEM z": expanded[32:64],
        "X25519": expanded[64:],
        "stretched": stretched,
        "derived, first": derived[:32],
        "derived, second": derived[32:],
    }
