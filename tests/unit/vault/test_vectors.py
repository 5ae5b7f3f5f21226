"""The frozen vectors: objects of the released format open for ever, and damages of them are told apart for ever."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.root import EpochKeys, RootSecret, SigningKey, VerifyKey
from chatkeep.daemon.vault.blob import BlobKind, IdKeys
from chatkeep.daemon.vault.epoch import DeviceCert
from chatkeep.daemon.vault.errors import UnknownKey
from chatkeep.daemon.vault.labels import SIG_MANIFEST
from chatkeep.daemon.vault.manifest import Manifest, open_manifest, verify_manifest
from chatkeep.daemon.vault.names import ManifestName, PackName
from chatkeep.daemon.vault.pack_reader import PackReader
from tests import independent_reader
from tests.support.independent import Objects
from tests.support.packs import Bytes
from tests.vectors import make

WHOLE = {"vault", "values", "passkey", "vault-passkey"}  # files with tests of their own
UNREAD = {"the header", "the pad", "the end of the pad", "another name"}
"""What does not concern who reads blobs of a pack: it is found when the whole is verified."""

Vector = tuple[Mapping[str, Any], bytes]


def load(folder: Path) -> dict[str, Vector]:
    """Every vector in a folder, by name."""
    found = {
        path.stem: (json.loads(path.read_text("utf-8")), path.with_suffix(".bin").read_bytes())
        for path in sorted(folder.glob("*.json"))
        if path.stem not in WHOLE
    }
    assert found.keys() >= {"pack", "manifest", "pack-lie-bomb"}, f"vectors are missing in {folder}"
    assert {path.stem for path in folder.iterdir()} - WHOLE == found.keys()
    return found


VECTORS = load(make.FOLDER)
DAMAGES = [(name, damage) for name, (meaning, _) in VECTORS.items() for damage in meaning.get("damages", ())]
LIES = [name for name in VECTORS if name.startswith("pack-lie-")]
assert len(DAMAGES) > 35
assert len(LIES) > 5


def keys_of(meaning: Mapping[str, Any]) -> EpochKeys:
    return EpochKeys(RootSecret(bytearray.fromhex(meaning["root_secret"])))


def read(name: str, meaning: Mapping[str, Any], raw: bytes, sha256: bytes) -> object:
    return (read_whole_pack if name == "pack" else read_whole_manifest)(meaning, raw, sha256)


def open_pack(meaning: Mapping[str, Any], raw: bytes, sha256: bytes) -> PackReader:
    private = keys_of(meaning).open

    def opener(epoch: int, key_id: bytes) -> Any:
        if (epoch, key_id) != (meaning["epoch"], private.public.key_id):
            raise UnknownKey(what="epoch", epoch=epoch, key=key_id.hex())
        return private

    name = PackName(bytes.fromhex(meaning["device"]), sha256)
    return PackReader(Bytes(raw), name, bytes.fromhex(meaning["vault"]), opener)


def read_whole_pack(meaning: Mapping[str, Any], raw: bytes, sha256: bytes) -> list[tuple[str, str]]:
    reader = open_pack(meaning, raw, sha256)
    ids = IdKeys(bytes.fromhex(meaning["id_key"]))
    contents = [
        (blob["id"], reader.read(slot, BlobKind[blob["kind"].upper()], bytes.fromhex(blob["id"]), ids).hex())
        for slot, blob in enumerate(meaning["blobs"])
    ]
    reader.verify(ids)
    assert reader.count == len(contents)
    return contents


def read_whole_manifest(meaning: Mapping[str, Any], raw: bytes, sha256: bytes) -> Manifest:
    device, vault_id = bytes.fromhex(meaning["device"]), bytes.fromhex(meaning["vault"])
    key = VerifyKey(bytes.fromhex(meaning["device_key"]))
    cert = DeviceCert(vault_id, device, meaning["epoch"], key, b"", bytes(32))
    name = ManifestName(device, bytes.fromhex(meaning["stream"]), meaning["seq"], sha256)
    verified = verify_manifest(raw, name, cert)
    if verified.header.epoch != meaning["epoch"]:
        raise UnknownKey(what="epoch", epoch=verified.header.epoch)
    return open_manifest(verified, keys_of(meaning).open)


@pytest.mark.parametrize("name", ["pack", "manifest"])
def test_a_sound_vector_means_what_it_says(name: str) -> None:
    meaning, raw = VECTORS[name]
    assert hashlib.sha256(raw).hexdigest() == meaning["sha256"]
    found = read(name, meaning, raw, hashlib.sha256(raw).digest())
    if isinstance(found, Manifest):
        assert make.plain(found) == meaning["body"]
    else:
        assert found == [(blob["id"], blob["content"]) for blob in meaning["blobs"]]


def independent(meaning: Mapping[str, Any], name: str, raw: bytes) -> Any:
    """The reader that shares no code with the product, with the keys of a vector and this one object."""
    vault = independent_reader.Vault.__new__(independent_reader.Vault)
    root = bytes.fromhex(meaning["root_secret"])
    key = independent_reader.Hybrid(independent_reader.hkdf(root, b"open\0"))
    pinned = meaning["body"][7] if "body" in meaning else ""
    vault.storage, vault.vault = Objects({name: raw}), meaning["vault"]
    vault.epochs = [SimpleNamespace(key=key, sha=pinned)]
    return vault


def independent_pack(meaning: Mapping[str, Any], raw: bytes, blobs: list[Any]) -> list[str]:
    """Contents of blobs of a pack, read by that reader."""
    vault = independent(meaning, f"d/{meaning['device']}/p/{bytes(32).hex()}", raw)
    snapshot = SimpleNamespace(device=meaning["device"], id_key=bytes.fromhex(meaning["id_key"]))
    read = independent_reader.Packs(vault).blob
    return [
        read(snapshot, blob["kind"], bytes(32), slot, bytes.fromhex(blob["id"])).hex()
        for slot, blob in enumerate(blobs)
    ]


def independent_manifest(meaning: Mapping[str, Any], raw: bytes, sha256: bytes) -> Any:
    """A manifest, read by that reader."""
    name = f"d/{meaning['device']}/s/{meaning['stream']}/{meaning['seq']:012d}-{sha256.hex()}"
    device = SimpleNamespace(device=meaning["device"], key=bytes.fromhex(meaning["device_key"]))
    return independent_reader.read_manifest(independent(meaning, name, raw), device, name)


def test_a_reader_written_from_the_format_page_reads_the_same() -> None:
    meaning, raw = VECTORS["pack"]
    assert independent_pack(meaning, raw, meaning["blobs"]) == [blob["content"] for blob in meaning["blobs"]]
    meaning, raw = VECTORS["manifest"]
    found, body = independent_manifest(meaning, raw, hashlib.sha256(raw).digest()), meaning["body"]
    assert (found.seq, found.stream, found.prev) == (meaning["seq"], meaning["stream"], meaning["prev"])
    assert (found.time, found.source, found.id_key.hex()) == (body[1], body[3], body[6])
    parts = [
        [*level, [[pack.hex(), slot, digest.hex()] for pack, slot, digest in parts]] for *level, parts in found.stack
    ]
    assert parts == body[9]


@pytest.mark.parametrize(
    ("name", "damage"), [pytest.param(*pair, id=f"{pair[0]}: {pair[1]['what']}") for pair in DAMAGES]
)
def test_no_damage_passes_that_reader(name: str, damage: Mapping[str, Any]) -> None:
    meaning, raw = VECTORS[name]
    changed, sha256 = damaged(meaning, raw, damage)
    if name == "manifest":
        with pytest.raises(Exception):  # noqa: B017 - of any kind
            independent_manifest(meaning, changed, sha256)
    elif damage["what"] in UNREAD:
        assert independent_pack(meaning, changed, meaning["blobs"]) == [blob["content"] for blob in meaning["blobs"]]
    else:
        with pytest.raises(Exception):  # noqa: B017 - of any kind
            independent_pack(meaning, changed, meaning["blobs"])


@pytest.mark.parametrize("name", LIES)
def test_no_lie_passes_that_reader(name: str) -> None:
    meaning, raw = VECTORS[name]
    with pytest.raises(Exception):  # noqa: B017 - of any kind
        independent_pack(meaning, raw, [meaning["wanted"]])


def damaged(meaning: Mapping[str, Any], raw: bytes, damage: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The damaged object, and the hash in the name it is read under: its own, or the one that the damage says."""
    changed = bytearray(raw)
    if "flip" in damage:
        changed[damage["flip"]] ^= 1
    elif "swap" in damage:
        (a, size), (b, _) = damage["swap"]
        changed[a : a + size], changed[b : b + size] = raw[b : b + size], raw[a : a + size]
    elif "cut" in damage:
        del changed[damage["cut"] :]
    elif "zeros" in damage:
        changed += bytes(damage["zeros"])
    else:
        return raw, bytes.fromhex(damage["rename"])
    if damage.get("signed"):
        key = SigningKey(bytes.fromhex(meaning["device_seed"]))
        changed[-64:] = key.sign(SIG_MANIFEST + hashlib.sha256(changed[:-64]).digest())
    assert bytes(changed) != raw
    return bytes(changed), hashlib.sha256(changed).digest()


@pytest.mark.parametrize(
    ("name", "damage"), [pytest.param(*pair, id=f"{pair[0]}: {pair[1]['what']}") for pair in DAMAGES]
)
def test_a_damage_is_called_what_it_is(name: str, damage: Mapping[str, Any]) -> None:
    meaning, raw = VECTORS[name]
    with pytest.raises(ChatkeepError) as caught:
        read(name, meaning, *damaged(meaning, raw, damage))
    assert caught.value.code == damage["expect"]


@pytest.mark.parametrize("name", LIES)
def test_a_pack_that_lies_gives_nothing_away_as_true(name: str) -> None:
    meaning, raw = VECTORS[name]
    wanted = meaning["wanted"]
    reader = open_pack(meaning, raw, hashlib.sha256(raw).digest())
    ids = IdKeys(bytes.fromhex(meaning["id_key"]))
    assert ids.id(BlobKind.CHUNK, bytes.fromhex(wanted["content"])).hex() == wanted["id"]
    with pytest.raises(ChatkeepError) as caught:
        reader.read(wanted["slot"], BlobKind.CHUNK, bytes.fromhex(wanted["id"]), ids)
    assert caught.value.code == meaning["expect"]
    with pytest.raises(ChatkeepError):
        reader.verify(ids)


def test_vectors_made_now_mean_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The writer of today still makes what the frozen vectors say, apart from what is random."""
    make.main(tmp_path)
    varying = {"sha256", "pack_key", "manifest_key"}
    made = load(tmp_path)
    assert made.keys() == VECTORS.keys()
    for name, (meaning, raw) in made.items():
        frozen, frozen_raw = VECTORS[name]
        assert len(raw) == len(frozen_raw)
        assert strip(meaning, varying) == strip(frozen, varying)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    make.main(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert "stays" in capsys.readouterr().out


def strip(meaning: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in copy.deepcopy(dict(meaning)).items() if key not in keys}
