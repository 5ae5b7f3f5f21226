"""Packs, and the blobs in them [9, 10]. A pack is read in pieces: its end, its directory, its records."""

from __future__ import annotations

import struct
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatkeep.daemon.cli.standalone.keys import MAX_BLOB, blake, decompress
from chatkeep.daemon.cli.standalone.snapshots import MAX_BLOBS, MAX_PACK, Snapshot
from chatkeep.daemon.cli.standalone.strict import Bytes, demand
from chatkeep.daemon.cli.standalone.vault import Vault

KINDS = {"chunk": 1, "pages": 2, "layer": 3}
DIRECTORY = 0xFF  # kind of the directory record
FOOTER, ENTRY, TAG = 1276, 45, 16  # bytes
PACK_MAGIC, PACK_END = b"CKPACK\0\1", b"CKPEND\0\1"

Read = Callable[[Snapshot, str, bytes, int, bytes], bytes]
"""Reads a blob: (snapshot, kind, pack, slot, id) to plaintext."""


class Pack:
    """An opened pack: what decrypts its records, and its directory."""

    def __init__(self, vault: Vault, device: str, name: str) -> None:
        self.vault, self.name = vault, name
        end = Bytes(vault.storage.get(name, -FOOTER))
        capsule, public, commit, mark = end.take(1184), end.take(52), end.take(32), end.take(8)
        its_vault, self.epoch, key, writer = struct.unpack(">16sI16s16s", public)
        right = (mark, its_vault, writer.hex()) == (PACK_END, vault.id, device)
        demand(right, f"{name} is no whole pack of this vault and device")
        opened = Bytes(vault.open_capsule(self.epoch, key, capsule, b"pack\0", public))
        self.cipher: AESGCM = vault.record_key(self.epoch, opened.take(32), b"pack\0", commit)
        start, length, count = opened.fields(">QII")
        opened.end()
        sized = 1 <= count <= MAX_BLOBS and length == count * ENTRY + TAG and start + length + FOOTER <= MAX_PACK
        demand(sized, f"the directory of {name} cannot be")
        directory = self.record(count + 1, DIRECTORY, vault.storage.get(name, start, length))
        self.entries = list(struct.iter_unpack(">BIII32s", directory))
        at = len(PACK_MAGIC)
        for kind, offset, size, plain, _ in self.entries:
            fits = kind in KINDS.values() and plain <= MAX_BLOB and TAG < size <= plain + 1 + TAG
            demand(fits and offset == at, f"the records of {name} do not tile it")
            at += size
        demand(at + TAG <= start, f"the records of {name} do not tile it")  # before the directory is the pad record

    def record(self, index: int, kind: int, sealed: bytes) -> bytes:
        """What is sealed in a record, bound to its vault, epoch, place and kind. Raises InvalidTag."""
        epoch, place = self.epoch.to_bytes(4, "big"), index.to_bytes(4, "big")
        bound = PACK_MAGIC + self.vault.id + epoch + place + bytes([kind])
        return self.cipher.decrypt(index.to_bytes(12, "big"), sealed, bound)

    def blob(self, kind: str, slot: int, blob_id: bytes, id_key: bytes) -> bytes:
        """The plaintext of a blob, if it is of this kind and id."""
        demand(slot < len(self.entries), f"{self.name} has fewer blobs")
        its_kind, offset, size, length, _ = self.entries[slot]
        demand(its_kind == KINDS[kind], f"a blob of {self.name} is of another kind")
        opened = self.record(slot, its_kind, self.vault.storage.get(self.name, offset, size))
        codec, payload = opened[0], opened[1:]
        demand(codec in (0, 1), "it is compressed in a way that this version has not")
        plain = decompress(payload, length) if codec == 1 else payload
        right = len(plain) == length and blake(f"id {kind}", id_key, plain) == blob_id
        demand(right, f"a blob of {self.name} is not the one that was stored")
        return plain


class Packs:
    """The packs of a vault, each opened once."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.opened: dict[str, Pack] = {}

    def blob(self, snapshot: Snapshot, kind: str, pack: bytes, slot: int, blob_id: bytes) -> bytes:
        """The plaintext of a blob that a snapshot refers to. ValueError: not there, or damaged."""
        name = f"d/{snapshot.device}/p/{pack.hex()}"
        try:
            if name not in self.opened:
                self.opened[name] = Pack(self.vault, snapshot.device, name)
            return self.opened[name].blob(kind, slot, blob_id, snapshot.id_key)
        except FileNotFoundError:
            raise ValueError(f"{name} is missing") from None
