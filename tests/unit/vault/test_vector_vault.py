"""The frozen vault: both readers restore it for ever, and no damage of it passes either of them."""

from __future__ import annotations

import base64
import collections
import contextlib
import json
import os
import random
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.reader import VaultReader
from chatkeep.daemon.vault.unlock import unlock, unlock_to_enrol
from tests import independent_reader
from tests.support.independent import Objects
from tests.support.vaults import passphrase, recovery
from tests.vectors import make_vault

KINDS = {"recovery slot", "passphrase slot", "epoch 1", "epoch 2", "epoch 3", "checkpoint", "manifest"}
KINDS |= {"device ana", "device ben", "device gone"}

FROZEN: Mapping[str, Any] = json.loads(make_vault.FILE.read_text("utf-8"))
OBJECTS = {name: base64.b64decode(text) for name, text in FROZEN["objects"].items()}
BY_KIND: Mapping[str, list[Any]] = collections.defaultdict(list)
for one in FROZEN["damages"]:
    BY_KIND[one["kind"]].append(one)
assert BY_KIND.keys() == KINDS
assert all(len(damages) >= 8 for damages in BY_KIND.values())
assert len(OBJECTS) > 30
assert len(FROZEN["snapshots"]) == 8


def expected(one: Any) -> Any:
    """What the frozen file says of a snapshot of the independent reader's."""
    place = (one.device, one.stream, one.seq)
    return next(it["paths"] for it in FROZEN["snapshots"] if (it["device"], it["stream"], it["seq"]) == place)


def independent(objects: Mapping[str, bytes], kind: str = "recovery-64") -> tuple[Any, list[str]]:
    """The vault as the independent reader opens it; None if it does not."""
    notes: list[str] = []
    secret = FROZEN["recovery" if kind == "recovery-64" else "passphrase"].encode()
    try:
        return independent_reader.Vault(Objects(objects), kind, secret, notes.append), notes
    except independent_reader.NoKey as exc:
        return None, [*notes, str(exc)]


def test_it_holds_what_a_vault_can_hold() -> None:
    rows = [row for snapshot in FROZEN["snapshots"] for row in snapshot["paths"].values()]
    assert {row[0] for row in rows} == {"directory", "file", "link"}
    assert any(row[5] for row in rows), "attributes"
    assert any(len(row[6]) > 1 for row in rows), "hard links"
    assert any(row[3] > 3 << 20 for row in rows), "a hole"
    assert FROZEN["pruned"] not in OBJECTS
    assert len(FROZEN["roots"]) == 3


@pytest.mark.parametrize("method", [recovery(), passphrase()], ids=["recovery key", "passphrase"])
def test_the_product_restores_it(method: Any, tmp_path: Path) -> None:
    provider = make_vault.storage(OBJECTS)
    reader = VaultReader([provider], unlock(provider, method))
    count = 0
    for stream in reader.streams():
        chain = reader.chain(stream)
        for snapshot in reader.snapshots(chain):
            place = (stream.device_id.hex(), stream.stream_id.hex(), snapshot.header.seq)
            wanted = next(it for it in FROZEN["snapshots"] if (it["device"], it["stream"], it["seq"]) == place)
            target = tmp_path / str(count)
            restore(reader, snapshot, plan(reader, snapshot), os.fsencode(target))
            assert make_vault.tree_of(target) == wanted["paths"]
            count += 1
        assert list(chain.findings) == []
    assert count == len(FROZEN["snapshots"])


@pytest.mark.parametrize("kind", ["recovery-64", "passphrase"])
def test_the_independent_reader_restores_it(kind: str, tmp_path: Path) -> None:
    vault, notes = independent(OBJECTS, kind)
    found = list(independent_reader.snapshots(vault))
    for number, one in enumerate(found):
        independent_reader.restore(vault, one, str(tmp_path / str(number)))
        assert make_vault.tree_of(tmp_path / str(number)) == expected(one)
    assert (len(found), notes) == (len(FROZEN["snapshots"]), [])


def test_its_keys_are_those_of_the_file() -> None:
    provider = make_vault.storage(OBJECTS)
    with unlock_to_enrol(provider, recovery()) as enrolment:
        assert bytes(enrolment.keys.root.view()).hex() == FROZEN["roots"][-1]
        records = enrolment.vault.records
        assert enrolment.vault.vault_id.hex() == FROZEN["vault"]
    for record, root in zip(records, FROZEN["roots"], strict=True):
        assert record.matches(EpochKeys(RootSecret(bytearray.fromhex(root))))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_damage_is_called_what_it_is_and_passes_neither_reader(kind: str) -> None:
    method = passphrase() if kind == "passphrase slot" else recovery()
    truth = {(it["device"], it["stream"], it["seq"]) for it in FROZEN["snapshots"]}
    for damage in BY_KIND[kind]:
        changed = make_vault.damaged(OBJECTS, damage)
        assert changed != OBJECTS
        assert set(damage["expect"]) <= set(make_vault.probe(changed, method)), damage
        vault, notes = independent(changed, "passphrase" if kind == "passphrase slot" else "recovery-64")
        shown = [(one.device, one.stream, one.seq) for one in independent_reader.snapshots(vault)] if vault else []
        assert notes, damage
        assert set(shown) <= truth, damage


def flipped(room: Path, dice: random.Random, name: str) -> int:
    """One bit of one object is another: all that is restored is true, and that something is missing is said. Returns
    how many things came out all the same."""
    raw = bytearray(OBJECTS[name])
    raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
    vault, notes = independent(OBJECTS | {name: bytes(raw)})
    room.mkdir()
    count = 0
    for number, one in enumerate(independent_reader.snapshots(vault) if vault else []):
        target = room / str(number)
        with contextlib.suppress(Exception):
            independent_reader.restore(vault, one, str(target))
        wanted = expected(one)
        for path, row in make_vault.tree_of(target).items() if target.exists() else []:
            # A folder that waited for the rest when the layers could not be read has no attributes yet.
            assert row[0] == wanted[path][0]
            assert row[0] == "directory" or row[1:6] == wanted[path][1:6], (name, path)
            count += 1
    shutil.rmtree(room)
    if not notes:  # padding and the header of a pack are nobody's business who reads blobs
        assert "/p/" in name or count == 0, name
    return count


def test_a_flipped_bit_makes_no_other_content(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    names = dice.sample([name for name in OBJECTS if name.startswith("d/")], 8)
    assert sum(flipped(tmp_path / str(n), dice, name) for n, name in enumerate(names)) > 100


@pytest.mark.long
def test_flipped_bits_all_over(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    names = [name for name in OBJECTS if not name.startswith(("vault/", "slots/"))]  # slots: each opens alone
    rounds = [name for name in names for _ in range(10)]
    came = sum(flipped(tmp_path / str(n), dice, name) for n, name in enumerate(rounds))
    sys.stdout.write(f"{len(rounds)} flipped bits, {came} things restored all the same, each of them true\n")


@pytest.mark.parametrize("name", ["ana", "ben", "gone"])
def test_credentials_are_read_and_damaged_ones_refused(name: str) -> None:
    meaning = FROZEN["devices"][name]
    raw = bytes.fromhex(meaning["credential"])
    read = WriterCredential.decode(raw)
    assert (read.device_id.hex(), read.vault_id.hex()) == (meaning["id"], FROZEN["vault"])
    assert bytes(read.encode()) == raw
    for at in range(0, len(raw), 37):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(ChatkeepError):
            WriterCredential.decode(changed)
    for size in (0, 8, len(raw) - 1):
        with pytest.raises(ChatkeepError):
            WriterCredential.decode(raw[:size])
