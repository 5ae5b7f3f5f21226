"""A process that unlocks and locks again, with the product's own code, and goes on living: what is left in it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.memory_play import Play, expect, gesture, is_gone, nothing, unlocking
from tests.support.memory_scan import Scanner
from tests.support.memory_vault import KINDS, Vault
from tests.support.soft_passkey import UP, SoftPage, SoftPasskey

WRONG = {"recovery": "wrong-recovery-key", "passphrase": "wrong-passphrase", "passkey": "wrong-passkey"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["read", "enrol"])
def test_there_while_unlocked_and_gone_when_locked(vault: Vault, scanner: Scanner, kind: str, way: str) -> None:
    with unlocking(vault, kind, way=way) as play:
        nothing(scanner.look(play.pid), scanner)
        ceremony = gesture(play, vault.passkey) if kind == "passkey" else None
        play.at("unlocked")
        found = scanner.look(play.pid)
        expect(found, vault.held | ({"root 2", "sign 2"} if way == "enrol" else set()))
        # The secret of a person is gone as soon as it has done its work, and who reads cannot certify.
        past = {name for name in vault.secrets if name.startswith(kind)} | vault.typed
        assert not found.names & (past if way == "enrol" else past | vault.certifies), found.told()
        assert ceremony is None or is_gone(ceremony)
        assert play.at("wiped")["code"] is None
        nothing(scanner.look(play.pid), scanner)
        play.ends()


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_wrong_secret(vault: Vault, kind: str) -> None:
    scanner = Scanner({**vault.secrets, **vault.wrong(kind)})
    with unlocking(vault, kind, f"wrong-{kind}") as play:
        ceremony = gesture(play, vault.wrong_passkey) if kind == "passkey" else None
        assert play.at("wiped")["code"] == WRONG[kind]
        nothing(scanner.look(play.pid), scanner)
        assert ceremony is None or is_gone(ceremony)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fault", "code"), [("damaged", "no-slot-opened"), ("cut short", "missing-object")])
def test_after_a_slot_that_opens_and_a_vault_that_does_not(
    vault: Vault, scanner: Scanner, tmp_path: Path, kind: str, fault: str, code: str
) -> None:
    storage = tmp_path / "disk"
    _ = vault.damaged(storage, kind) if fault == "damaged" else vault.cut_short(storage)
    with unlocking(vault, kind, storage=storage) as play:
        if kind == "passkey":
            gesture(play, vault.passkey)
        assert play.at("wiped")["code"] == code
        nothing(scanner.look(play.pid), scanner)


def _stops(pid: int, ceremony: int, page: SoftPage, passkey: SoftPasskey) -> None:
    page.say(say="stop", id=page.say(say="next")["id"])


def _closes(pid: int, ceremony: int, page: SoftPage, passkey: SoftPasskey) -> None:
    page.say(say="next")
    page.watch().close()


def _kills(pid: int, ceremony: int, page: SoftPage, passkey: SoftPasskey) -> None:
    page.say(say="next")
    os.kill(ceremony, signal.SIGKILL)


def _interrupts(pid: int, ceremony: int, page: SoftPage, passkey: SoftPasskey) -> None:
    page.say(say="next")
    os.kill(pid, signal.SIGINT)


def _unverified(pid: int, ceremony: int, page: SoftPage, passkey: SoftPasskey) -> None:
    same = SoftPasskey(credential=passkey.credential, key=passkey.key, seed=passkey.seed, flags=UP)
    page.got(page.say(say="next"), same)


def _cut(pid: int, ceremony: int, page: SoftPage, passkey: SoftPasskey) -> None:
    page.got(page.say(say="next"), passkey, passkey.prf(b"")[:31])


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (_stops, "ceremony-cancelled"),
        (_closes, "ceremony-cancelled"),
        (_interrupts, "ceremony-cancelled"),
        (_kills, "ceremony-lost"),
        (_unverified, "passkey-refused"),
        (_cut, "passkey-refused"),
    ],
)
def test_after_a_ceremony_that_came_to_nothing(
    vault: Vault, scanner: Scanner, act: Callable[[int, int, SoftPage, SoftPasskey], None], code: str
) -> None:
    with unlocking(vault, "passkey") as play:
        ceremony = play.hear("ceremony")["ceremony"]
        page = SoftPage(play.hear("page")["page"])
        page.begin()
        act(play.pid, ceremony, page, vault.passkey)
        assert play.at("wiped")["code"] == code
        nothing(scanner.look(play.pid), scanner)
        assert is_gone(ceremony)


def test_after_a_failure_at_any_step(vault: Vault, scanner: Scanner, tell: Callable[[str], None]) -> None:
    """At each derivation of a key, with that key at hand: from the slot's to those of the oldest epoch."""
    with Play.scene("interrupted", storage=vault.storage, file=vault.file("recovery")) as play:
        steps = 0
        while (said := play.hear("point"))["point"] == "failed":
            steps += 1
            assert said["at"] == steps
            nothing(scanner.look(play.pid), scanner)
        assert said["point"] == "done"
    # Kek, seed, key and key pair of the slot; three keys and key pairs of each of two epochs; the key that wraps the
    # older, and that one.
    assert steps == 18
    tell(f"{steps} failures")
