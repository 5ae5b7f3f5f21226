"""Somebody has the writer credential and the state directory of a device: what he reads, and what he can try out."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
from pathlib import Path

import pytest

from chatkeep.daemon.keys.errors import Unsealable
from chatkeep.daemon.keys.holding import OpeningKey
from chatkeep.daemon.keys.hybrid import HybridPrivate
from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.vault.blob import BlobKind, IdKeys
from chatkeep.daemon.vault.checkpoint_codec import Checkpoint, SnapshotId, StreamKept, encode
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.labels import (
    MANIFEST_CAPSULE,
    MANIFEST_HEADER,
    PACK_CAPSULE,
    PACK_FOOTER,
    PACK_PUBLIC,
    SIG_CHECKPOINT,
)
from chatkeep.daemon.vault.names import CheckpointName, DeviceName
from chatkeep.daemon.vault.reader import VaultReader
from chatkeep.daemon.vault.unlock import unlock
from tests.support.sources import Clock, fill
from tests.support.station import Station, copied, drop_powers, finish, template
from tests.support.station import fill as messages
from tests.support.whole import Device

PHOTO = random.Random(4).randbytes(70_000)
P = b"chatkeep/v1/"


@pytest.fixture
def device(tmp_path: Path) -> Device:
    source = tmp_path / "chat"
    source.mkdir()
    fill(source / "messages.db", 20)
    (source / "photo.jpg").write_bytes(PHOTO)
    made = Device.make(tmp_path / "state", Clock())
    made.back_up(source)
    made.credential.save(tmp_path / "state" / "chatkeep-writer")
    return made


def opens(private: OpeningKey, device: Device) -> bool:
    """Whether a key opens any pack or manifest."""
    for name, body in device.provider.objects.items():
        if "/p/" in name:
            footer = body[-PACK_FOOTER:]
            info = P + b"pack\0" + footer[PACK_CAPSULE : PACK_CAPSULE + PACK_PUBLIC]
            sealed = footer[:PACK_CAPSULE]
        elif "/s/" in name:
            info = P + b"manifest\0" + body[:MANIFEST_HEADER]
            sealed = body[MANIFEST_HEADER : MANIFEST_HEADER + MANIFEST_CAPSULE]
        else:
            continue
        try:
            private.open(sealed, info)
        except Unsealable:
            continue
        return True
    return False


def test_no_key_in_the_credential_opens_anything(device: Device, tmp_path: Path) -> None:
    """Every 32 bytes of it that could be the seed of a key are tried."""
    raw = (tmp_path / "state" / "chatkeep-writer").read_bytes()
    tried = 0
    for at in range(len(raw) - 31):
        private = HybridPrivate.from_seed(raw[at : at + 32])
        assert private.public != device.credential.public
        tried += 1
        if at % 50 == 0:
            assert not opens(private, device)
    assert tried > 1300
    # The trial itself: the vault's own key opens what these do not.
    vault = unlock_own(device)
    assert opens(vault, device)


def unlock_own(device: Device) -> OpeningKey:
    vault = unlock(device.provider, RecoveryMethod(device.recovery))
    return vault.opener(1, device.credential.public.key_id)


def test_he_can_tell_whether_a_file_that_he_has_is_in_the_vault(device: Device, tmp_path: Path) -> None:
    """The limit: ids of blobs are in the records, and the key they are computed with is in the credential."""
    credential = WriterCredential.load(tmp_path / "state" / "chatkeep-writer")
    ids = IdKeys(credential.id_key.view())
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir() if path.is_file())
    assert ids.id(BlobKind.CHUNK, PHOTO) in kept
    assert ids.id(BlobKind.CHUNK, PHOTO[:-1]) not in kept


def test_storage_without_it_cannot(device: Device) -> None:
    ids = IdKeys(device.credential.id_key.view())
    assert all(ids.id(BlobKind.CHUNK, PHOTO) not in body for body in device.provider.objects.values())


def test_he_condemns_nothing_and_certifies_nobody(device: Device) -> None:
    """A checkpoint by which nothing lives, and a certificate for another device, signed with the keys he has."""
    credential = device.credential
    _, before = device.snapshots()
    named = {key: tuple(SnapshotId(1, one.name.sha256) for one in before) for key in (before[0].name.stream_id,)}
    streams = tuple(StreamKept(stream, head[0], ()) for stream, head in named.items())
    checkpoint = Checkpoint(1, bytes(32), 1, streams, (), ())
    signed = encode(checkpoint, credential.vault_id, 1, credential.checkpoint.key_id, credential.device_id)
    raw = signed + credential.device_key.sign(SIG_CHECKPOINT + hashlib.sha256(signed).digest())
    device.provider.put(str(CheckpointName(credential.device_id, 1, hashlib.sha256(raw).digest())), raw)
    other = b"o" * 16
    fields = {"v": 1, "vault": credential.vault_id.hex(), "device": other.hex(), "epoch": 1}
    line = json.dumps(fields | {"key": credential.device_key.public.raw.hex(), "role": "writer"}).encode()
    forged = sign_text("device", credential.vault_id, [line], credential.device_key)
    device.provider.put(str(DeviceName(other)), forged)
    vault = unlock(device.provider, RecoveryMethod(device.recovery))
    assert list(vault.devices) == [credential.device_id]
    reader = VaultReader([device.provider], vault)
    (stream,) = reader.streams()
    chain = reader.chain(stream)
    assert [one.name for one in reader.snapshots(chain)] == [one.name for one in before]
    assert list(chain.findings) + list(reader.findings)  # and what he planted is told


def test_what_he_signs_as_a_snapshot_is_taken_for_one(device: Device, tmp_path: Path) -> None:
    """The limit, until the device is removed: from another machine, with another content, as the next of the stream."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "photo.jpg").write_bytes(b"not the photo")
    device.back_up(elsewhere)
    _, found = device.snapshots()
    assert [one.header.seq for one in found] == [2, 1]
    device.restore(tmp_path / "out", 1)
    assert (tmp_path / "out" / "photo.jpg").read_bytes() == PHOTO  # what was there before stays


# -- this machine -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Station:
    return template(tmp_path_factory.mktemp("thief") / "room")


def test_a_backup_needs_no_secret_and_reads_back_nothing_that_was_sealed(made: Station, tmp_path: Path) -> None:
    """The key is on paper, packs and manifests may not be read: everything goes on."""
    station = copied(made, tmp_path / "room")
    key = station.key.read_text()
    station.key.unlink()
    for _ in range(2):
        messages(station.source / "messages.db", 5)
        done = finish(station.start("backup", preexec_fn=drop_powers))
        assert (done.code, done.json["sources"][0]["snapshots"]) == (0, 1)
        sealed = [path for text, path in station.objects().items() if text.startswith("d/")]
        for path in sealed:
            path.chmod(0)
    assert len(sealed) == 4
    assert finish(station.start("verify", preexec_fn=drop_powers)).code != 0  # who does want to read them cannot
    for path in sealed:
        path.chmod(0o600)
    station.key.touch(mode=0o600)
    station.key.write_text(key)
    assert len(station.ok("snapshots", "--key-file", station.key)["snapshots"]) == 2


def test_nobody_else_on_this_machine_reads_what_is_kept(tmp_path: Path) -> None:
    """With a mask that would let everybody: records, credential, recovery key and what waits to be uploaded."""
    (tmp_path / "room").mkdir()
    station = Station(tmp_path / "room")
    for words in (("init", "--recovery-key-file", station.key), ("backup", "--no-upload")):
        messages(station.source / "messages.db", 5)
        assert finish(station.start(*words, preexec_fn=lambda: os.umask(0))).code == 0
    kept = [station.state, *station.state.rglob("*"), station.key]
    assert any(path.parent.name == "outbox" for path in kept)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in kept}
    assert {path: mode for path, mode in modes.items() if mode & 0o077} == {}
