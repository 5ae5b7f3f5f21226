"""How the parts of a pack lie (docs/format.md, section 10), for its writer and for its reader. Pure."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from chatkeep.daemon.keys.secret import Buffer
from chatkeep.daemon.vault.blob import BlobKind, IdKeys, decompress
from chatkeep.daemon.vault.errors import Malformed, UnsupportedVersion
from chatkeep.daemon.vault.labels import (
    DIRECTORY_ENTRY,
    HASH_SIZE,
    KIND_DIRECTORY,
    KIND_PAD,
    MAX_BLOB,
    MAX_BLOBS,
    MAX_PACK,
    PACK,
    PACK_CAPSULE,
    PACK_END,
    PACK_FOOTER,
    PACK_MAGIC,
    PACK_PUBLIC,
    TAG_SIZE,
)
from chatkeep.daemon.vault.padding import padded_pack_size
from chatkeep.daemon.vault.seal import RecordCipher

RECORD_OVERHEAD: Final = 1 + TAG_SIZE  # codec byte, tag
MAX_RECORD: Final = MAX_BLOB + RECORD_OVERHEAD  # compression never makes a blob longer

_ENTRY: Final = struct.Struct(">BIII32s")
_PUBLIC: Final = struct.Struct(">16sI16s16s")
_PLACE: Final = struct.Struct(">QII")
_KINDS: Final = frozenset(BlobKind)


@dataclass(frozen=True, slots=True)
class Public:
    """What a pack says in the clear: whose it is, and which key opens its capsule."""

    vault_id: bytes
    epoch: int
    key_id: bytes
    device_id: bytes

    def encode(self) -> bytes:
        """The 52 bytes in the footer."""
        return _PUBLIC.pack(self.vault_id, self.epoch, self.key_id, self.device_id)

    @property
    def capsule_info(self) -> bytes:
        """What the capsule is bound to: it opens in no other vault, epoch or device."""
        return PACK + self.encode()

    @property
    def record_context(self) -> bytes:
        """What every record is bound to, before its position and kind."""
        return PACK_MAGIC + self.vault_id + self.epoch.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class Footer:
    """The last 1276 bytes: all that is needed to get at the directory, so that one suffix read opens a pack."""

    capsule: bytes
    public: Public
    commit: bytes

    def encode(self) -> bytes:
        """The bytes of it."""
        return self.capsule + self.public.encode() + self.commit + PACK_END

    @classmethod
    def parse(cls, raw: Buffer) -> Self:
        """Raises `Malformed` or `UnsupportedVersion`. Nothing in it is authenticated yet."""
        if len(raw) != PACK_FOOTER:
            raise Malformed(what="pack", reason="too-short")
        end = bytes(raw[-len(PACK_END) :])
        if end != PACK_END:
            if end[:-1] == PACK_END[:-1]:
                raise UnsupportedVersion(what="pack", version=end[-1])
            raise Malformed(what="pack", reason="no-footer")  # cut short, longer, or never a pack
        public = Public(*_PUBLIC.unpack(raw[PACK_CAPSULE : PACK_CAPSULE + PACK_PUBLIC]))
        commit = raw[PACK_CAPSULE + PACK_PUBLIC : PACK_CAPSULE + PACK_PUBLIC + HASH_SIZE]
        return cls(bytes(raw[:PACK_CAPSULE]), public, bytes(commit))


class Place(NamedTuple):
    """Where the directory record is: in the capsule, since its length would tell storage the number of blobs."""

    offset: int
    length: int
    blobs: int

    def encode(self) -> bytes:
        """The 16 bytes that follow the key in the capsule."""
        return _PLACE.pack(*self)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Raises `Malformed` when no writer makes such a place; what is returned is safe to allocate."""
        place = cls(*_PLACE.unpack(raw))
        if not 1 <= place.blobs <= MAX_BLOBS or place.length != place.blobs * DIRECTORY_ENTRY + TAG_SIZE:
            raise Malformed(what="pack", reason="directory-length")
        if place.offset + place.length + PACK_FOOTER > MAX_PACK:
            raise Malformed(what="pack", reason="directory-offset")
        return place


def unpadded_size(records_end: int, count: int) -> int:
    """The size of a pack whose `count` records end at `records_end`, with nothing in its pad record."""
    return records_end + TAG_SIZE + count * DIRECTORY_ENTRY + TAG_SIZE + PACK_FOOTER


class Entry(NamedTuple):
    """One blob in the directory. `length` is of the sealed record, `raw_len` of the plaintext."""

    kind: int
    offset: int
    length: int
    raw_len: int
    id: bytes


def encode_directory(entries: Sequence[Entry]) -> bytes:
    """The plaintext of the directory record."""
    return b"".join(_ENTRY.pack(*entry) for entry in entries)


def parse_directory(raw: bytes, place: Place) -> list[Entry]:
    """The entries, in the order of their slots.

    Raises `Malformed` unless the records lie back to back between the header and the pad record and every length is one
    that a writer makes: a reader may then allocate what an entry says.
    """
    entries = [Entry._make(fields) for fields in _ENTRY.iter_unpack(raw)]
    end = len(PACK_MAGIC)
    for entry in entries:
        if entry.kind not in _KINDS:
            raise Malformed(what="pack", reason="kind", kind=entry.kind)
        if entry.raw_len > MAX_BLOB or not RECORD_OVERHEAD <= entry.length <= entry.raw_len + RECORD_OVERHEAD:
            raise Malformed(what="pack", reason="record-length")
        if entry.offset != end:
            raise Malformed(what="pack", reason="tiling")
        end += entry.length
    if end + TAG_SIZE > place.offset:
        raise Malformed(what="pack", reason="tiling")
    return entries


@dataclass(frozen=True, slots=True)
class Layout:
    """An opened pack without its blobs."""

    footer: Footer
    place: Place
    entries: list[Entry]
    cipher: RecordCipher

    @property
    def size(self) -> int:
        """Bytes of the whole object."""
        return self.place.offset + self.place.length + PACK_FOOTER

    @property
    def pad_offset(self) -> int:
        """Where the pad record begins."""
        last = self.entries[-1]
        return last.offset + last.length


def check_whole(take: Callable[[int], memoryview], layout: Layout, ids: IdKeys | None) -> bytes:
    """Goes through every byte of a pack in order; returns the SHA-256 of the object.

    Opens and decompresses every record and, with `ids`, computes its id; checks the header, the pad, the padded size,
    the directory, the footer and the end. `take(n)` returns the next n bytes, valid until it is called again, or fewer
    at the end. Raises `Malformed` or `AuthenticationFailed`.
    """
    digest = hashlib.sha256()

    def following(size: int) -> memoryview:
        piece = take(size)
        if len(piece) != size:
            raise Malformed(what="pack", reason="too-short")
        digest.update(piece)
        return piece

    if bytes(following(len(PACK_MAGIC))) != PACK_MAGIC:
        raise Malformed(what="pack", reason="no-header")
    opened = memoryview(bytearray(MAX_RECORD - TAG_SIZE))
    for slot, entry in enumerate(layout.entries):
        plain = opened[: entry.length - TAG_SIZE]
        layout.cipher.open_into(slot, entry.kind, following(entry.length), plain)
        content = decompress(plain[0], plain[1:], entry.raw_len)
        if ids is not None:
            ids.check(BlobKind(entry.kind), content, entry.id)
    count = len(layout.entries)
    pad_size = layout.place.offset - layout.pad_offset
    pad = layout.cipher.open(count, KIND_PAD, following(pad_size))
    if pad.count(0) != len(pad) or padded_pack_size(layout.size - len(pad)) != layout.size:
        raise Malformed(what="pack", reason="padding")
    directory = layout.cipher.open(count + 1, KIND_DIRECTORY, following(layout.place.length))
    if directory != encode_directory(layout.entries):
        raise Malformed(what="pack", reason="directory")
    if bytes(following(PACK_FOOTER)) != layout.footer.encode():
        raise Malformed(what="pack", reason="footer")
    if len(take(1)) != 0:
        raise Malformed(what="pack", reason="too-long")
    return digest.digest()
