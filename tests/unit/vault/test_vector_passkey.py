"""The frozen passkey slots: both readers open them for ever, and say the same of every damage of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from chatkeep.daemon.keys.passkey import PasskeyParams, evaluation
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.keys.slots import open_label, open_slot
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.vault.errors import SlotRemoved
from chatkeep.daemon.vault.reader import VaultReader
from chatkeep.daemon.vault.unlock import unlock, unlock_to_enrol
from tests import independent_reader
from tests.support.independent import Objects
from tests.support.passkeys import AtHand, evaluation_of, prf
from tests.support.vaults import recovery
from tests.vectors import make_passkey, make_vault

SLOTS: Mapping[str, Any] = json.loads(make_passkey.SLOTS.read_text("utf-8"))
VAULT: Mapping[str, Any] = json.loads(make_passkey.VAULT.read_text("utf-8"))
OBJECTS = {name: base64.b64decode(text) for name, text in VAULT["objects"].items()}
DAMAGES = [(number, damage) for number, slot in enumerate(SLOTS["slots"]) for damage in slot["damages"]]
NAMES = ("v", "vault", "slot", "epoch", "pub", "salt", "sealed", "commit", "wrapped", "env")
FIELDS = {f"another {name}, signed" for name in NAMES}
AS_ANOTHERS = {f"value of {name}" for name in ("vault", "slot", "kind", "salt", "commit")} | {"it is missing"}
"""Without a signature that is checked first, a slot changed like this is somebody else's."""
assert len(SLOTS["evaluations"]) == 6
assert len(SLOTS["slots"]) == 3
assert len(DAMAGES) > 75
assert {damage["what"] for _, damage in DAMAGES} > FIELDS
assert len(VAULT["damages"]) > 15
assert len(VAULT["snapshots"]) == 2


def file_of(slot: Mapping[str, Any]) -> SlotFile:
    return SlotFile.parse(base64.b64decode(slot["raw"]))


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """64 bytes of HKDF-SHA256 (RFC 5869), by hand."""
    key = hmac.digest(salt, secret, "sha256")
    first = hmac.digest(key, info + b"\1", "sha256")
    return first + hmac.digest(key, first + info + b"\2", "sha256")


@pytest.mark.parametrize("one", SLOTS["evaluations"], ids=lambda one: one["evaluation"][:8])
def test_what_is_asked_and_answered(one: Mapping[str, str]) -> None:
    vault, slot, salt = (bytes.fromhex(one[name]) for name in ("vault", "slot", "salt"))
    assert evaluation(vault, slot, salt).hex() == one["evaluation"]
    by_hand = hashlib.sha256(b"chatkeep/v1/prf\0" + vault + slot + salt).digest()
    salt1 = hashlib.sha256(b"WebAuthn PRF\0" + by_hand).digest()
    assert (by_hand.hex(), salt1.hex()) == (one["evaluation"], one["salt1"])
    assert hmac.digest(bytes.fromhex(one["cred_random"]), salt1, "sha256").hex() == one["output"]
    assert list(make_passkey.evaluations()).count(dict(one)) == 1  # made now, it is the same


@pytest.mark.parametrize("slot", SLOTS["slots"], ids=lambda slot: slot["slot"][:8])
def test_every_step_from_the_authenticator_to_the_root_secret(slot: Mapping[str, Any]) -> None:
    file = file_of(slot)
    credential = bytes.fromhex(slot["credential"])
    assert file.params == PasskeyParams(slot["rp_id"], credential, bytes.fromhex(slot["salt"]))
    assert (file.slot_id.hex(), file.vault_id.hex()) == (slot["slot"], SLOTS["vault"])
    asked = evaluation_of(file.vault_id, file.slot_id, bytes.fromhex(slot["salt"]))
    output = prf(bytes.fromhex(slot["cred_random_with_uv"]), asked)
    assert (asked.hex(), output.hex()) == (slot["evaluation"], slot["output"])
    both = hkdf(output, file.salt, b"chatkeep/v1/kek/webauthn-prf\0" + file.vault_id + file.slot_id)
    assert (both[:32].hex(), both[32:].hex(), file.commitment.hex()) == (slot["kek"], slot["commit"], slot["commit"])
    bound = b"chatkeep/v1/slot\0" + base64.b64decode(slot["raw"]).split(b"\n")[0] + b"\n"
    assert independent_reader.unseal(both[:32], file.wrapped, bound).hex() == slot["seed"]
    with pytest.raises(InvalidTag):
        independent_reader.unseal(both[:32], file.wrapped, bound[:-1])


@pytest.mark.parametrize("slot", SLOTS["slots"], ids=lambda slot: slot["slot"][:8])
def test_the_product_opens_it(slot: Mapping[str, Any]) -> None:
    file = file_of(slot)
    hands = AtHand({bytes.fromhex(slot["credential"]): bytes.fromhex(slot["cred_random_with_uv"])})
    root = open_slot(file, hands.method()).open_envelope(file.envelope, SLOTS["epoch"])
    assert root.view().hex() == SLOTS["root_secret"]
    assert [(one.credential.hex(), one.evaluation.hex()) for asked in hands.asked for one in asked] == [
        (slot["credential"], slot["evaluation"])
    ]
    keys = EpochKeys(RootSecret(bytearray.fromhex(SLOTS["root_secret"])))
    assert open_label(file, keys.open) == tuple(slot["label"])


@pytest.mark.parametrize(("number", "damage"), DAMAGES, ids=[f"{number} {one['what']}" for number, one in DAMAGES])
def test_damage_is_called_what_it_is(number: int, damage: Mapping[str, Any]) -> None:
    assert make_passkey.said(SLOTS["slots"][number], damage) == damage["expect"]


def test_nobody_is_asked_for_a_foreign_relying_party() -> None:
    foreign = [damage for _, damage in DAMAGES if damage["what"].startswith("rp_id")]
    assert len(foreign) >= 9
    assert {damage["expect"]["asked"] for damage in foreign} == {0}
    assert {damage["expect"]["code"] for damage in foreign} == {"slot-refused", "text-malformed"}


def test_the_generator_leaves_them_alone_and_makes_the_like(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_passkey.main(tmp_path)
    made = json.loads((tmp_path / make_passkey.SLOTS.name).read_text("utf-8"))
    assert made["evaluations"] == SLOTS["evaluations"]
    assert [[one["what"] for one in slot["damages"] if " of " not in one["what"]] for slot in made["slots"]] == [
        [one["what"] for one in slot["damages"] if " of " not in one["what"]] for slot in SLOTS["slots"]
    ]
    assert [len(slot["damages"]) for slot in made["slots"]] == [len(slot["damages"]) for slot in SLOTS["slots"]]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    make_passkey.main(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert capsys.readouterr().out.count("stays") == 2


# -- the small vault --------------------------------------------------------------------------------------------------


def at_hand(name: str = "passkey") -> AtHand:
    slot = VAULT[name]
    return AtHand({bytes.fromhex(slot["credential"]): bytes.fromhex(slot["cred_random_with_uv"])})


def answer(name: str = "passkey") -> bytes:
    """What the authenticator gives for a slot of the vault."""
    slot = VAULT[name]
    file = SlotFile.parse(OBJECTS[f"slots/{slot['slot']}.json"])
    assert isinstance(file.params, PasskeyParams)
    asked = evaluation_of(file.vault_id, file.slot_id, file.params.salt)
    return prf(bytes.fromhex(slot["cred_random_with_uv"]), asked)


@pytest.mark.parametrize("method", ["passkey", "recovery"])
def test_the_product_restores_the_vault(method: str, tmp_path: Path) -> None:
    hands = at_hand()
    provider = make_vault.storage(OBJECTS)
    reader = VaultReader([provider], unlock(provider, hands.method() if method == "passkey" else recovery()))
    (stream,) = reader.streams()
    for number, snapshot in enumerate(reader.snapshots(reader.chain(stream))):
        restore(reader, snapshot, plan(reader, snapshot), os.fsencode(tmp_path / str(number)))
        wanted = next(one for one in VAULT["snapshots"] if one["seq"] == snapshot.header.seq)
        assert make_vault.tree_of(tmp_path / str(number)) == wanted["paths"]
    assert number == 1
    assert len(hands.asked) == (method == "passkey")


def test_its_keys_are_those_of_the_file() -> None:
    with unlock_to_enrol(make_vault.storage(OBJECTS), at_hand().method()) as enrolment:
        assert enrolment.keys.root.view().hex() == VAULT["roots"][-1]


def test_the_removed_passkey_is_told_as_removed() -> None:
    hands = at_hand("removed_passkey")
    with pytest.raises(SlotRemoved):
        unlock(make_vault.storage(OBJECTS), hands.method())
    assert len(hands.asked) == 1
    notes: list[str] = []
    with pytest.raises(independent_reader.NoKey):
        independent_reader.Vault(Objects(OBJECTS), "webauthn-prf", answer("removed_passkey"), notes.append)
    assert notes == [f"slots/{VAULT['removed_passkey']['slot']}.json: it was removed from the vault"]


def test_the_independent_reader_restores_it_by_what_a_passkey_answered(tmp_path: Path) -> None:
    notes: list[str] = []
    vault = independent_reader.Vault(Objects(OBJECTS), "webauthn-prf", answer(), notes.append)
    for number, one in enumerate(independent_reader.snapshots(vault)):
        independent_reader.restore(vault, one, str(tmp_path / str(number)))
        wanted = next(it for it in VAULT["snapshots"] if it["seq"] == one.seq)
        assert make_vault.tree_of(tmp_path / str(number)) == wanted["paths"]
    assert (number, notes) == (1, [])


@pytest.mark.parametrize("damage", VAULT["damages"], ids=lambda damage: damage["what"])
def test_damage_of_its_slot_passes_neither_reader(damage: Mapping[str, Any]) -> None:
    changed = make_vault.damaged(OBJECTS, damage)
    assert changed != OBJECTS
    assert set(damage["expect"]) <= set(make_vault.probe(changed, at_hand().method()))
    notes: list[str] = []
    with pytest.raises(independent_reader.NoKey):
        independent_reader.Vault(Objects(changed), "webauthn-prf", answer(), notes.append)
    assert notes or damage["what"] in AS_ANOTHERS, damage
