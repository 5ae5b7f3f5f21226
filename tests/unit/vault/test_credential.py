"""The writer credential: its bytes as documented, and the file that holds it."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest

from chatkeep.daemon.keys.errors import SecretWiped
from chatkeep.daemon.keys.root import EpochKeys, RootSecret, SigningKey
from chatkeep.daemon.vault.credential import CREDENTIAL_SIZE, WriterCredential
from chatkeep.daemon.vault.epoch import create_record, vault_id_of
from chatkeep.daemon.vault.errors import CredentialRefused, Malformed, UnsupportedVersion
from tests.support.flips import assert_all_refused

KEYS = EpochKeys(RootSecret(bytearray(b"r" * 32)))
VAULT = vault_id_of(KEYS.sign.public)
RECORD = create_record(KEYS, VAULT)
DEVICE = b"d" * 16


def made() -> WriterCredential:
    return WriterCredential.generate(RECORD, DEVICE)


def with_checksum(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def test_bytes_are_the_documented_ones() -> None:
    credential = made()
    encoded = bytes(credential.encode())
    assert len(encoded) == CREDENTIAL_SIZE
    assert encoded[:1356] == (
        b"CKCRED\0\1"
        + VAULT
        + DEVICE
        + b"\0\0\0\1"
        + RECORD.sha256
        + KEYS.open.public.raw
        + KEYS.sign.public.raw
        + KEYS.checkpoint.public.raw
    )
    assert SigningKey(encoded[1356:1388]).public == credential.device_key.public
    assert encoded[1388:1420] == credential.id_key.view()
    assert encoded == with_checksum(encoded[:1420])


def test_round_trip() -> None:
    credential = made()
    read = WriterCredential.decode(credential.encode())
    assert read.encode() == credential.encode()
    assert (read.vault_id, read.device_id, read.epoch, read.pin) == (VAULT, DEVICE, 1, RECORD.pin)
    assert read.device_key.public == credential.device_key.public


def test_no_two_devices_are_alike() -> None:
    one, other = made(), made()
    assert one.id_key.view() != other.id_key.view()
    assert one.device_key.public != other.device_key.public


def test_damage_anywhere_is_refused() -> None:
    assert_all_refused(bytes(made().encode()), WriterCredential.decode, Malformed, UnsupportedVersion)


def test_later_version_is_told() -> None:
    with pytest.raises(UnsupportedVersion):
        WriterCredential.decode(b"CKCRED\0\2 and what not")


def test_key_of_small_order_is_refused_under_a_good_checksum() -> None:
    body = bytearray(made().encode()[:1420])
    body[1292:1324] = b"\1" + bytes(31)
    with pytest.raises(Malformed) as caught:
        WriterCredential.decode(with_checksum(bytes(body)))
    assert caught.value.params["reason"] == "key-small-order"


def test_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "credential"
    credential = made()
    credential.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == CREDENTIAL_SIZE
    assert WriterCredential.load(path).encode() == credential.encode()


def test_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "credential"
    first, second = made(), made()
    first.save(path)
    with pytest.raises(CredentialRefused) as caught:
        second.save(path)
    assert caught.value.params["reason"] == "exists"
    assert WriterCredential.load(path).encode() == first.encode()
    second.save(path, replace=True)
    assert WriterCredential.load(path).encode() == second.encode()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "credential"
    made().save(path)
    path.chmod(mode)
    with pytest.raises(CredentialRefused) as caught:
        WriterCredential.load(path)
    assert caught.value.params["reason"] == "permissions"


def test_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "credential"
    made().save(path)
    us = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: us + 1)
    with pytest.raises(CredentialRefused) as caught:
        WriterCredential.load(path)
    assert caught.value.params["reason"] == "owner"


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    made().save(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(0o700)
    for name in ("link", "pipe", "directory"):
        with pytest.raises(CredentialRefused) as caught:
            WriterCredential.load(tmp_path / name)
        assert caught.value.params["reason"] == "not-a-file"


def test_absent_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CredentialRefused) as caught:
        WriterCredential.load(tmp_path / "credential")
    assert caught.value.params == {"reason": "absent", "path": str(tmp_path / "credential")}


def test_longer_file_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "credential"
    made().save(path)
    with path.open("ab") as file:
        file.write(bytes(1 << 20))
    with pytest.raises(Malformed):
        WriterCredential.load(path)


def test_unwritable_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(CredentialRefused) as caught:
        made().save(tmp_path / "absent" / "credential")
    assert caught.value.params["reason"] == "write"


def test_wipe_ends_its_secrets() -> None:
    credential = made()
    credential.wipe()
    with pytest.raises(SecretWiped):
        credential.id_key.view()
    with pytest.raises(SecretWiped):
        credential.device_key.sign(b"")
    with pytest.raises(SecretWiped):
        credential.encode()


def test_neither_shows_nor_travels() -> None:
    assert repr(made()) == "<WriterCredential>"
    with pytest.raises(TypeError):
        pickle.dumps(made())
