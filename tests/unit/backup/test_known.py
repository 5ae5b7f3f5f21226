"""Blobs that are known are referred to, each copy once; which machine this is stays here."""

from __future__ import annotations

from pathlib import Path

from chatkeep.daemon.backup.machine import machine_mark
from chatkeep.daemon.backup.sealing import Lane, Sealer
from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.state import KnownBlob
from chatkeep.daemon.vault.blob import BlobKind
from chatkeep.daemon.vault.layers import Reference
from tests.support.manifests import make_vault

VAULT = b"v" * 16


def test_a_known_blob_is_not_sealed_and_a_second_copy_is(tmp_path: Path) -> None:
    made = Writer(make_vault().credential, None)  # type: ignore[arg-type]
    chunk, other = b"c" * 5000, b"o" * 5000
    known = KnownBlob(made.ids.id(BlobKind.CHUNK, chunk), b"p" * 32, 3)
    asked: list[bytes] = []

    def copies(blob: bytes) -> list[KnownBlob]:
        asked.append(blob)
        return [known] if blob == known.blob else []

    sealer = Sealer(tmp_path, made.new_pack, made.ids, copies)
    blobs = [sealer.submit(Lane.MEDIA, BlobKind.CHUNK, data, 1) for data in (chunk, chunk, other)]
    sealer.drain()
    (layer,) = sealer.append_layer(Lane.FRESH, [chunk], 1)
    sealer.close(*Lane)
    references = [blob.reference() for blob in blobs]
    assert references.count(Reference(known.pack, known.slot, known.blob)) == 1
    assert sorted(reference.slot for reference in references if reference.pack != known.pack) == [0, 1]
    assert sealer.reused == [known]
    assert sealer.new_plaintext == 10000
    assert layer.reference().pack != known.pack, "a layer is never taken for something known"
    assert len(asked) == 3
    sealer.shutdown()


def test_nothing_is_asked_while_nothing_is_known(tmp_path: Path) -> None:
    made = Writer(make_vault().credential, None)  # type: ignore[arg-type]
    sealer = Sealer(tmp_path, made.new_pack, made.ids)
    blob = sealer.submit(Lane.MEDIA, BlobKind.CHUNK, b"c" * 5000, 1)
    sealer.close(*Lane)
    assert blob.reference().slot == 0
    assert sealer.reused == []
    sealer.shutdown()


def test_the_machine_is_marked_without_telling_its_id(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(b"0123456789abcdef0123456789abcdef\n")
    there.write_bytes(b"fedcba9876543210fedcba9876543210\n")
    mark = machine_mark(VAULT, (tmp_path / "none", here))
    assert mark == machine_mark(VAULT, (here, there))
    assert mark is not None
    assert len(mark) == 32
    assert mark != machine_mark(VAULT, (there,)) != machine_mark(b"w" * 16, (there,))
    assert mark != machine_mark(b"w" * 16, (here,))
    assert b"0123456789abcdef" not in mark + mark.hex().encode()
    here.write_bytes(b"")
    assert machine_mark(VAULT, (here, tmp_path / "none")) is None
