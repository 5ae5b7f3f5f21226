"""The frozen values: what is no object of its own comes out the same for ever, with the product and without it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blake3
import pytest

from chatkeep.daemon.keys.recovery import parse
from chatkeep.daemon.vault.blob import BlobKind, IdKeys
from chatkeep.daemon.vault.padding import padded_manifest_size, padded_pack_size
from tests import independent_reader
from tests.support.independent import Objects
from tests.vectors import make_values

FROZEN: Mapping[str, Any] = json.loads(make_values.FILE.read_text("utf-8"))
for kind in ("recovery_keys", "ids", "digests", "padded_packs", "padded_manifests", "parts", "wrong_parts"):
    assert len(FROZEN[kind]) >= 2, kind


def test_values_made_now_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_values.main(tmp_path / "values.json")
    assert json.loads((tmp_path / "values.json").read_text("utf-8")) == FROZEN
    make_values.main(tmp_path / "values.json")
    assert "stays" in capsys.readouterr().out


@pytest.mark.parametrize("key", FROZEN["recovery_keys"], ids=lambda key: key["lines"][0])
def test_recovery_keys_and_their_slips(key: Mapping[str, Any]) -> None:
    text = "\n".join(key["lines"])
    assert independent_reader.recovery_key(text).decode() == key["secret"]
    assert parse(text).secret() == key["secret"].encode()
    assert len(key["slips"]) > 5
    for slip in key["slips"]:
        assert make_values.line_of(slip["text"]) == slip["line"]
        with pytest.raises(independent_reader.NoKey, match=f"line {slip['line']} "):
            independent_reader.recovery_key(slip["text"])


def test_ids() -> None:
    ids = IdKeys(bytes.fromhex(FROZEN["id_key"]))
    contents = [b"", b"Good morning!", bytes(1000), hashlib.shake_128(b"x").digest(1 << 20)]
    by_hash = {hashlib.sha256(content).hexdigest(): content for content in contents}
    assert {one["kind"] for one in FROZEN["ids"]} == {"chunk", "pages", "layer"}
    for one in FROZEN["ids"]:
        content = by_hash[one["sha256"]]
        assert ids.id(BlobKind[one["kind"].upper()], content).hex() == one["id"]
        context = f"chatkeep v1 id {one['kind']}"
        key = blake3.blake3(bytes.fromhex(FROZEN["id_key"]), derive_key_context=context).digest()
        assert blake3.blake3(content, key=key).hexdigest() == one["id"]


def test_digests() -> None:
    id_key = bytes.fromhex(FROZEN["id_key"])
    seed = blake3.blake3(id_key, derive_key_context="chatkeep v1 page seed").digest()[:8]
    assert FROZEN["page_seed"] == int.from_bytes(seed)
    key = blake3.blake3(id_key, derive_key_context="chatkeep v1 page table").digest()
    for one in FROZEN["digests"]:
        head = one["page_size"].to_bytes(4) + one["pages"].to_bytes(8)
        assert blake3.blake3(head + bytes.fromhex(one["digests"]), key=key).hexdigest() == one["table"]


def padme(size: int) -> int:
    """The next Padm\u00e9 size, from section 10."""
    e = size.bit_length() - 1
    step = 1 << (e - e.bit_length())
    return -(-size // step) * step


def test_padded_sizes() -> None:
    for size, padded in FROZEN["padded_packs"]:
        assert padded_pack_size(size) == padded
        assert padded == (-(-size // 32768) * 32768 if size < 1 << 20 else padme(size))
    for size, padded in FROZEN["padded_manifests"]:
        assert padded_manifest_size(size) == padded == -(-size // 8192) * 8192


def tree_of(raw: bytes) -> Any:
    """What the independent reader makes of a layer of one part."""

    stack = [[0, 1, 1, [[make_values.OWN, 0, bytes(32)]]]]
    return independent_reader.Tree(lambda *_: raw, SimpleNamespace(stack=stack))


@pytest.mark.parametrize("part", FROZEN["parts"], ids=lambda part: part["name"])
def test_parts_of_layers(part: Mapping[str, Any]) -> None:
    raw = bytes.fromhex(part["raw"])
    assert make_values.refused(raw) is None
    assert make_values.plain(independent_reader.unpack(raw)) == part["means"]
    tree = tree_of(raw)
    assert {path.hex() for path in tree.paths} == {path for path, _ in part["means"][2]}
    assert set(tree.files) == {row[0] for row in part["means"][3]}


@pytest.mark.parametrize("part", FROZEN["wrong_parts"], ids=lambda part: part["what"])
def test_parts_that_break_a_rule(part: Mapping[str, Any]) -> None:
    raw = bytes.fromhex(part["raw"])
    assert make_values.refused(raw) == part["expect"]
    with pytest.raises(Exception):  # noqa: B017 - of any kind
        tree_of(raw)


def test_storage_in_memory_is_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "d" / "p" / "ab").mkdir(parents=True)
    (tmp_path / "d" / "p" / "ab" / "abcd").write_bytes(b"0123456789")
    (tmp_path / ".tmp").mkdir()
    folder, memory = independent_reader.Directory(str(tmp_path)), Objects({"d/p/abcd": b"0123456789"})
    for storage in (folder, memory):
        assert storage.get("d/p/abcd", -4) == b"6789"
        assert storage.get("d/p/abcd", 8, 5) == b"89"
        assert storage.names("") == ["d"] or storage is memory
        assert storage.names("none") == []
        with pytest.raises(FileNotFoundError):
            storage.get("d/p/other")
