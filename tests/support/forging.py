"""What a thief of a device's credential can make: manifests with any body and packs with anything in them, all signed
and sealed as they should be. Written against docs/format.md, since the product's own writers refuse to make these."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import zstandard

from chatkeep.daemon.vault.blob import BlobKind, BlobRef, IdKeys
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.labels import (
    KIND_DIRECTORY,
    KIND_PAD,
    MANIFEST,
    PACK,
    PACK_FOOTER,
    PACK_MAGIC,
    SIG_MANIFEST,
    TAG_SIZE,
)
from chatkeep.daemon.vault.manifest import Header
from chatkeep.daemon.vault.names import ManifestName, PackName
from chatkeep.daemon.vault.pack_layout import Entry, Footer, Place, Public, encode_directory
from chatkeep.daemon.vault.padding import padded_manifest_size, padded_pack_size
from chatkeep.daemon.vault.seal import RecordCipher, derive, seal_once
from tests.support.hostile_vault import seeds_of

Object = tuple[str, bytes]
"""A name and what is stored under it."""

_AROUND = 132 + 1168 + 32 + TAG_SIZE + 64


@dataclass
class ForgedBlob:
    """A blob of a forged pack: its plaintext, and what the pack says instead of the truth."""

    kind: int
    content: bytes
    codec: int = 0
    payload: bytes | None = None
    raw_len: int | None = None
    id: bytes | None = None


@dataclass
class Thief:
    """Signs and seals as a device. `ids` are the device's own."""

    credential: WriterCredential
    ids: IdKeys = field(init=False)

    def __post_init__(self) -> None:
        self.id_key = seeds_of(self.credential)[1]
        self.ids = IdKeys(self.id_key)

    # -- manifests

    def body(self, stack: Sequence[object], packs: Sequence[object] = (), **fields: object) -> list[object]:
        """A body as section 13 has it, with values a reader accepts; fields by name."""
        usual: dict[str, object] = {
            "version": 1,
            "time": (1 << 62) + 1,
            "clock": 1,
            "source_name": "chat",
            "source_path": b"/home/ana/chat",
            "host": "laptop",
            "id_key": self.id_key,
            "epoch_record": self.credential.pin.sha256,
            "flags": 0,
            "stack": list(stack),
            "packs": list(packs),
            "databases": 0,
            "pending": 0,
            "busy": 0,
            "set_digest": bytes(32),
            "statistics": [1, 1, 1, 1, 1],
        }
        assert fields.keys() <= usual.keys()
        return list((usual | fields).values())

    def manifest(
        self, stream_id: bytes, seq: int, prev: bytes, body: object, *, pad: int = 0, header: bytes | None = None
    ) -> Object:
        """A manifest around this body: msgpack if it is not bytes already. `header` replaces the 132 bytes."""
        own = self.credential
        raw_body = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
        bound = (
            header or Header(own.vault_id, own.epoch, own.public.key_id, own.device_id, stream_id, seq, prev).encode()
        )
        key = os.urandom(32)
        aead, commit = derive(MANIFEST, key, own.vault_id, own.epoch)
        plain = struct.pack(">I", len(raw_body)) + raw_body
        plain += bytes([pad]) * (padded_manifest_size(_AROUND + len(plain)) - _AROUND - len(plain))
        signed = bound + own.public.seal(key, MANIFEST + bound) + commit + seal_once(aead, plain, bound)
        return self.sign(stream_id, seq, signed)

    def sign(self, stream_id: bytes, seq: int, signed: bytes) -> Object:
        """A manifest whose signature fits all before it."""
        raw = signed + self.credential.device_key.sign(SIG_MANIFEST + hashlib.sha256(signed).digest())
        return str(ManifestName(self.credential.device_id, stream_id, seq, hashlib.sha256(raw).digest())), raw

    # -- packs

    def pack(
        self,
        blobs: Sequence[ForgedBlob],
        *,
        entries: Sequence[Entry] | None = None,
        place: Place | None = None,
        public: Public | None = None,
        directory: bytes | None = None,
        pad: bytes = b"\0",
        grow: int = 0,
    ) -> tuple[str, bytes, bytes]:
        """Name, bytes and hash of a pack. Entries, place, public part, directory, pad byte and length can be lies."""
        own = self.credential
        public = public or Public(own.vault_id, own.epoch, own.public.key_id, own.device_id)
        key = os.urandom(32)
        aead, commit = derive(PACK, key, public.vault_id, public.epoch)
        cipher = RecordCipher(aead, public.record_context)

        def sealed(index: int, kind: int, plain: bytes) -> bytes:
            out = bytearray(len(plain) + TAG_SIZE)
            cipher.seal_into(index, kind, plain, memoryview(out))
            return bytes(out)

        raw = bytearray(PACK_MAGIC)
        true: list[Entry] = []
        for slot, blob in enumerate(blobs):
            payload = blob.content if blob.payload is None else blob.payload
            record = sealed(slot, blob.kind, bytes([blob.codec]) + payload)
            own_id = blob.id or self.ids.id(
                BlobKind(blob.kind) if 1 <= blob.kind <= 3 else BlobKind.CHUNK, blob.content
            )
            raw_len = len(blob.content) if blob.raw_len is None else blob.raw_len
            true.append(Entry(blob.kind, len(raw), len(record), raw_len, own_id))
            raw += record
        told = encode_directory(true if entries is None else entries) if directory is None else directory
        least = len(raw) + TAG_SIZE + len(told) + TAG_SIZE + PACK_FOOTER
        size = padded_pack_size(least) + grow
        raw += sealed(len(blobs), KIND_PAD, pad * (size - least))
        own_place = Place(len(raw), len(told) + TAG_SIZE, len(blobs))
        raw += sealed(min((place or own_place).blobs + 1, (1 << 32) - 1), KIND_DIRECTORY, told)
        capsule = own.public.seal(key + (place or own_place).encode(), public.capsule_info)
        raw += Footer(capsule, public, commit).encode()
        sha256 = hashlib.sha256(raw).digest()
        return str(PackName(own.device_id, sha256)), bytes(raw), sha256

    def layer(self, *parts: bytes | Sequence[object]) -> tuple[Object, list[object]]:
        """A pack with the parts of one layer, and the layer as a stack has it."""
        blobs = []
        for part in parts:
            content = part if isinstance(part, bytes) else msgspec.msgpack.encode(part)
            payload = zstandard.ZstdCompressor(level=1).compress(content)
            small = len(payload) < len(content)
            blobs.append(ForgedBlob(BlobKind.LAYER, content, int(small), payload if small else content))
        name, raw, sha256 = self.pack(blobs)
        refs = [[sha256, slot, self.ids.id(BlobKind.LAYER, blob.content)] for slot, blob in enumerate(blobs)]
        return (name, raw), [0, 1, 1, refs]

    def snapshot(
        self,
        stream_id: bytes,
        *parts: bytes | Sequence[object],
        seq: int = 1,
        prev: bytes = bytes(32),
        **fields: object,
    ) -> dict[str, bytes]:
        """The objects of a snapshot with one layer of these parts."""
        (name, raw), layer = self.layer(*parts)
        return dict(
            [
                (name, raw),
                self.manifest(stream_id, seq, prev, self.body([layer], [[name_hash(name), len(raw)]], **fields)),
            ]
        )

    def chunks(self, *contents: bytes) -> tuple[Object, list[BlobRef]]:
        """A pack of chunks, and references to them."""
        name, raw, sha256 = self.pack([ForgedBlob(BlobKind.CHUNK, content) for content in contents])
        return (name, raw), [
            BlobRef(sha256, slot, self.ids.id(BlobKind.CHUNK, content)) for slot, content in enumerate(contents)
        ]


def name_hash(name: str) -> bytes:
    """The hash in the name of a pack."""
    return bytes.fromhex(name.rsplit("/", 1)[1])


def part(
    entries: Sequence[object] = (),
    files: Sequence[object] = (),
    contents: Sequence[object] = (),
    sections: Sequence[object] = (),
    packs: bytes = b"",
) -> list[object]:
    """A part of a layer."""
    return [1, packs, list(entries), list(files), list(contents), list(sections)]


def file_record(file_id: int, kind: int = 1, **fields: object) -> list[object]:
    """A file record with usual values; fields by name."""
    usual: dict[str, object] = {
        "mode": 0o755 if kind == 0 else 0o644,
        "uid": 1000,
        "gid": 1000,
        "user": b"",
        "group": b"",
        "mtime": 1_600_000_000_000_000_000,
        "size": 0,
        "flags": 0,
        "target": b"",
        "xattrs": [],
    }
    assert fields.keys() <= usual.keys()
    return [file_id, kind, *(usual | fields).values()]


def extent(length: int, index: int, slot: int, blob_id: bytes) -> bytes:
    """One extent."""
    return struct.pack(">QII32s", length, index, slot, blob_id)


def hole(length: int) -> bytes:
    """One extent that is a hole."""
    return extent(length, 0xFFFFFFFF, 0, bytes(32))


STRANGE: Sequence[tuple[str, object]] = [
    ("nil", None),
    ("true", True),
    ("0", 0),
    ("1", 1),
    ("-1", -1),
    ("-2^63", -(1 << 63)),
    ("2^16", 1 << 16),
    ("2^32-1", (1 << 32) - 1),
    ("2^32", 1 << 32),
    ("2^62", 1 << 62),
    ("2^63", 1 << 63),
    ("2^64-1", (1 << 64) - 1),
    ("a float", 0.5),
    ("NaN", float("nan")),
    ("empty bytes", b""),
    ("NUL", b"\0"),
    ("zeros", bytes(32)),
    ("ones", b"\xff" * 32),
    ("long bytes", b"x" * 5000),
    ("..", b".."),
    ("absolute", b"/etc/passwd"),
    ("empty text", ""),
    ("text", "text"),
    ("long text", "x" * 5000),
    ("an empty list", []),
    ("a list of nil", [None]),
    ("a list of lists", [[[[]]]]),
    ("a long list", [0] * 5000),
    ("a map", {"a": 1}),
    ("an extension", msgspec.msgpack.Ext(5, b"x")),
    ("a time", msgspec.msgpack.Ext(-1, b"\0\0\0\1")),
]


def mutated(tree: object, most_in_a_list: int = 3) -> Iterator[tuple[str, object]]:
    """Every node of a decoded msgpack tree replaced by each strange value, left out, or doubled."""
    for what, path in _paths(tree, (), most_in_a_list):
        for name, strange in STRANGE:
            yield f"{what} is {name}", _with(tree, path, strange)
    for what, path in _paths(tree, (), most_in_a_list):
        if path:
            yield f"{what} left out", _without(tree, path)
            yield f"{what} twice", _doubled(tree, path)


def _paths(node: object, path: tuple[int, ...], most: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "/".join(map(str, path)) or "all", path
    if isinstance(node, list):
        for place, inner in enumerate(node if len(path) != 1 else node[:most]):
            yield from _paths(inner, (*path, place), most)


def _with(node: object, path: tuple[int, ...], value: object) -> object:
    if not path:
        return value
    assert isinstance(node, list)
    place, *rest = path
    return [*node[:place], _with(node[place], tuple(rest), value), *node[place + 1 :]]


def _without(node: object, path: tuple[int, ...]) -> object:
    assert isinstance(node, list)
    place, *rest = path
    if not rest:
        return [*node[:place], *node[place + 1 :]]
    return [*node[:place], _without(node[place], tuple(rest)), *node[place + 1 :]]


def _doubled(node: object, path: tuple[int, ...]) -> object:
    assert isinstance(node, list)
    place, *rest = path
    if not rest:
        return [*node[: place + 1], *node[place:]]
    return [*node[:place], _doubled(node[place], tuple(rest)), *node[place + 1 :]]


WRONG_MSGPACK: Sequence[tuple[str, bytes]] = [
    ("nothing", b""),
    ("one byte", b"\xc1"),
    ("deep", b"\x91" * 200_000),
    ("deep and closed", b"\x91" * 100_000 + b"\xc0"),
    ("deep maps", b"\x81\xc0" * 100_000 + b"\xc0"),
    ("a list of 2^32-1", b"\xdd\xff\xff\xff\xff"),
    ("a map of 2^32-1", b"\xdf\xff\xff\xff\xff"),
    ("bytes of 2^32-1", b"\xc6\xff\xff\xff\xff"),
    ("text of 2^32-1", b"\xdb\xff\xff\xff\xff"),
    ("an extension of 2^32-1", b"\xc9\xff\xff\xff\xff\x01"),
    ("sixteen fields of nothing", b"\x9f" + b"\xc0" * 15),
    ("sixteen lists of 2^32-1", b"\xdc\x00\x10\x01" + b"\xdd\xff\xff\xff\xff" * 15),
    ("text that is not UTF-8", b"\xdc\x00\x10\x01\x00\x00\xa2\xff\xfe"),
]
