"""Layers: what one snapshot, or a fold of several, changed. Pure: bytes in, values out.

Formats: docs/format.md section 11. Everything read here was authenticated, but by a key that a stolen machine gives
away; so every bound is checked, and bytes that break one raise `Malformed` or `UnsupportedVersion`, nothing else.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import msgspec

from chatkeep.daemon.vault.errors import Malformed, UnsupportedVersion

VERSION: Final = 1
MAX_BLOB: Final = 1 << 20
MAX_PAGE: Final = (1 << 32) - 2  # SQLite's highest page number
MAX_PATH: Final = 4096
MAX_NAME: Final = 255
MAX_SIZE: Final = (1 << 63) - 1  # off_t
MAX_SLOT: Final = 65534  # a pack holds 65535 blobs
HASH_SIZE: Final = 32
HOLE_PACK: Final = 0xFFFFFFFF
EXTENT: Final = struct.Struct(">QII32s")
ZERO_ID: Final = bytes(HASH_SIZE)

# Flags of a file record.
PENDING: Final = 1
BUSY: Final = 2
NEEDS_RECOVERY: Final = 4
OPAQUE: Final = 8
# Flag of a section.
RESET: Final = 1

_U32 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
_Slot = Annotated[int, msgspec.Meta(ge=0, le=MAX_SLOT)]
_Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_SIZE, max_length=HASH_SIZE)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE)]
_FileId = Annotated[int, msgspec.Meta(ge=1)]  # at most 2^64 - 1: msgpack has nothing larger


class FileKind(enum.IntEnum):
    """What a file record describes."""

    DIRECTORY = 0
    FILE = 1
    SYMLINK = 2
    DATABASE = 3


class Reference(msgspec.Struct, frozen=True, gc=False):
    """Where a blob is: the pack's hash (None: the pack that the layer itself is written to), slot, blob id."""

    pack: bytes | None
    slot: int
    id: bytes


class Extent(msgspec.Struct, frozen=True, gc=False):
    """`length` bytes of a file: a chunk blob, or a hole when there is no reference."""

    length: int
    reference: Reference | None


class Entry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """A path and its file id; no file id: the path is gone."""

    path: bytes
    file_id: _FileId | None


class FileRecord(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """The attributes of a file. `mtime` in ns; `size` in bytes, 0 for directories and links."""

    file_id: _FileId
    kind: FileKind
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)]
    uid: _U32
    gid: _U32
    user: bytes
    group: bytes
    mtime: int
    size: _Size
    flags: Annotated[int, msgspec.Meta(ge=0, le=15)]
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


class Content(msgspec.Struct, frozen=True, gc=False):
    """The part of a file's content that starts at `offset`; `size` is the size of the whole content."""

    file_id: int
    size: int
    offset: int
    extents: tuple[Extent, ...]


class Run(msgspec.Struct, frozen=True, gc=False):
    """A pages blob and the pages in it, in the encoded form of section 11; `count` is how many. Made by `make_run`."""

    pages: bytes
    count: int
    reference: Reference


class Section(msgspec.Struct, frozen=True, gc=False):
    """One capture of one database; `page_count` and `digest` are of the whole database. Runs newest first."""

    file_id: int
    flags: int
    page_size: int
    page_count: int
    digest: bytes
    runs: tuple[Run, ...] = ()


class Layer(msgspec.Struct, frozen=True, gc=False):
    """A whole layer, or one part of it. Sections of one file id stand newest first."""

    entries: tuple[Entry, ...] = ()
    files: tuple[FileRecord, ...] = ()
    contents: tuple[Content, ...] = ()
    sections: tuple[Section, ...] = ()


class WireContent(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A content as it is stored."""

    file_id: _FileId
    size: _Size
    offset: _Size
    extents: bytes


class WireRun(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A run as it is stored."""

    pages: bytes
    pack: _U32
    slot: _Slot
    id: _Hash


class WireSection(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A section as it is stored."""

    file_id: _FileId
    flags: Annotated[int, msgspec.Meta(ge=0, le=1)]
    page_size: Annotated[int, msgspec.Meta(ge=512, le=65536)]
    page_count: Annotated[int, msgspec.Meta(ge=0, le=MAX_PAGE)]
    digest: _Hash
    runs: tuple[WireRun, ...]


class _WirePart(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    version: int
    packs: bytes
    entries: tuple[Entry, ...]
    files: tuple[FileRecord, ...]
    contents: tuple[WireContent, ...]
    sections: tuple[WireSection, ...]


_DECODER = msgspec.msgpack.Decoder(_WirePart)
_VERSION_DECODER = msgspec.msgpack.Decoder(list[msgspec.Raw])


# --- page numbers ---------------------------------------------------------------------------------------------------


def ranges_of(pages: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending page numbers as (first, count) ranges. Raises `Malformed` when they do not ascend."""
    ranges: list[tuple[int, int]] = []
    first = after = 0
    for page in pages:
        if page == after and first:
            after += 1
            continue
        if page < max(after, 1):
            raise Malformed(what="pages", reason="not-ascending")
        if first:
            ranges.append((first, after - first))
        first, after = page, page + 1
    if first:
        ranges.append((first, after - first))
    return ranges


def encode_ranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    """Ascending, disjoint (first, count) ranges as LEB128 pairs; ranges that touch become one."""
    out = bytearray()
    after = 1
    joined: list[list[int]] = []
    for first, count in ranges:
        if first < 1 or count < 1 or first + count - 1 > MAX_PAGE:
            raise Malformed(what="pages", reason="out-of-range")
        if joined and first == joined[-1][0] + joined[-1][1]:
            joined[-1][1] += count
        else:
            joined.append([first, count])
    for first, count in joined:
        if first < after:
            raise Malformed(what="pages", reason="not-ascending")
        for number in (first - after, count):
            while number > 0x7F:
                out.append(number & 0x7F | 0x80)
                number >>= 7
            out.append(number)
        after = first + count
    return bytes(out)


def encode_pages(pages: Iterable[int]) -> bytes:
    """Ascending page numbers, from 1, as LEB128 pairs."""
    return encode_ranges(ranges_of(pages))


def _numbers(raw: bytes) -> list[int]:
    numbers: list[int] = []
    number = shift = 0
    for byte in raw:
        if byte > 0x7F:
            number |= (byte & 0x7F) << shift
            shift += 7
            if shift > 28:  # five bytes hold every u32; without the bound a long number costs quadratic time
                raise Malformed(what="pages", reason="number-too-long")
        else:
            if shift:
                if not byte:  # one form only: the same pages always give the same layer id
                    raise Malformed(what="pages", reason="number-not-minimal")
                number |= byte << shift
                numbers.append(number)
                number = shift = 0
            else:
                numbers.append(byte)
    if shift or len(numbers) & 1:
        raise Malformed(what="pages", reason="truncated")
    return numbers


def decode_pages(raw: bytes) -> list[tuple[int, int]]:
    """The (first, count) ranges of `encode_ranges`. Raises `Malformed` for every other sequence of bytes."""
    numbers = iter(_numbers(raw))
    ranges: list[tuple[int, int]] = []
    after = 1
    for gap, count in zip(numbers, numbers, strict=True):
        if not count or (not gap and ranges):
            raise Malformed(what="pages", reason="empty-range")
        first = after + gap
        after = first + count
        if after - 1 > MAX_PAGE:
            raise Malformed(what="pages", reason="out-of-range")
        ranges.append((first, count))
    return ranges


def make_run(ranges: Iterable[tuple[int, int]], reference: Reference) -> Run:
    """A run over ascending (first, count) ranges of pages."""
    raw = encode_ranges(ranges)
    return Run(pages=raw, count=sum(count for _, count in decode_pages(raw)), reference=reference)


# --- bounds ---------------------------------------------------------------------------------------------------------


def check_path(path: bytes) -> None:
    """Refuse a path that could leave the source: the rules of section 11. Raises `Malformed`."""
    if not path:
        return
    if len(path) > MAX_PATH or b"\0" in path:
        raise Malformed(what="path", reason="too-long" if len(path) > MAX_PATH else "nul")
    for name in path.split(b"/"):
        if name in (b"", b".", b"..") or len(name) > MAX_NAME:
            raise Malformed(what="path", reason="component")


def check_file(record: FileRecord) -> None:
    """Refuse a file record that no capture makes. Raises `Malformed`."""
    if (record.kind is FileKind.SYMLINK) != bool(record.target) or b"\0" in record.target:
        raise Malformed(what="file", reason="target")
    if record.size and record.kind in (FileKind.DIRECTORY, FileKind.SYMLINK):
        raise Malformed(what="file", reason="size")
    if not -MAX_SIZE <= record.mtime <= MAX_SIZE:
        raise Malformed(what="file", reason="mtime")
    for name, _ in record.xattrs:
        if not 0 < len(name) <= MAX_NAME or b"\0" in name:
            raise Malformed(what="file", reason="xattr")


def check_content(content: Content) -> None:
    """Refuse a content whose extents cannot be part of its size. Raises `Malformed`."""
    end = content.offset
    for extent in content.extents:
        if extent.length < 1 or (extent.reference is not None and extent.length > MAX_BLOB):
            raise Malformed(what="content", reason="length")
        end += extent.length
    if end > content.size or content.size > MAX_SIZE:
        raise Malformed(what="content", reason="size")


def check_section(section: Section) -> None:
    """Refuse a section with an impossible page size or a run that no blob can hold. Raises `Malformed`."""
    size = section.page_size
    if not 512 <= size <= 65536 or size & (size - 1):
        raise Malformed(what="section", reason="page-size")
    if not 0 <= section.page_count <= MAX_PAGE or len(section.digest) != HASH_SIZE or section.flags not in (0, RESET):
        raise Malformed(what="section", reason="field")
    for run in section.runs:
        if not 0 < run.count * size <= MAX_BLOB:
            raise Malformed(what="section", reason="run")


# --- parts ----------------------------------------------------------------------------------------------------------


class _Packs:
    """The pack table of one part."""

    def __init__(self, table: bytes, own: bytes) -> None:
        if len(table) % HASH_SIZE:
            raise Malformed(what="layer", reason="packs")
        self._hashes = [own, *(table[at : at + HASH_SIZE] for at in range(0, len(table), HASH_SIZE))]

    def reference(self, index: int, slot: int, blob_id: bytes) -> Reference:
        if index >= len(self._hashes) or slot > MAX_SLOT:
            raise Malformed(what="layer", reason="reference")
        return Reference(self._hashes[index], slot, blob_id)


def _extents(raw: bytes, packs: _Packs) -> tuple[Extent, ...]:
    if len(raw) % EXTENT.size:
        raise Malformed(what="content", reason="extents")
    extents: list[Extent] = []
    for length, pack, slot, blob_id in EXTENT.iter_unpack(raw):
        if pack == HOLE_PACK:
            if slot or blob_id != ZERO_ID:
                raise Malformed(what="content", reason="hole")
            extents.append(Extent(length, None))
        else:
            extents.append(Extent(length, packs.reference(pack, slot, blob_id)))
    return tuple(extents)


def _content(wire: WireContent, packs: _Packs) -> Content:
    content = Content(wire.file_id, wire.size, wire.offset, _extents(wire.extents, packs))
    check_content(content)
    return content


def _section(wire: WireSection, packs: _Packs) -> Section:
    runs = tuple(
        Run(run.pages, sum(count for _, count in decode_pages(run.pages)), packs.reference(run.pack, run.slot, run.id))
        for run in wire.runs
    )
    section = Section(wire.file_id, wire.flags, wire.page_size, wire.page_count, wire.digest, runs)
    check_section(section)
    return section


def _refused(raw: bytes, cause: msgspec.DecodeError) -> Malformed | UnsupportedVersion:
    try:
        version = msgspec.msgpack.decode(_VERSION_DECODER.decode(raw)[0], type=int)
    except (msgspec.DecodeError, IndexError, RecursionError):
        return Malformed(what="layer", reason="encoding")
    if version != VERSION:
        return UnsupportedVersion(what="layer", version=version)
    return Malformed(what="layer", reason="field" if isinstance(cause, msgspec.ValidationError) else "encoding")


def _share(records: Iterable[FileRecord]) -> None:
    """One object for the owners and modes that nearly all files have in common: a third of a large tree's memory."""
    seen: dict[object, object] = {}
    share, change = seen.setdefault, msgspec.structs.force_setattr
    for record in records:
        change(record, "user", share(record.user, record.user))
        change(record, "group", share(record.group, record.group))
        change(record, "uid", share(record.uid, record.uid))
        change(record, "gid", share(record.gid, record.gid))
        change(record, "mode", share(record.mode, record.mode))


def decode_part(raw: bytes, own_pack: bytes) -> Layer:
    """One part of a layer, read from the pack `own_pack` (its hash), every bound checked and every reference resolved.

    Raises `Malformed`, or `UnsupportedVersion` for a part of a later version.
    """
    if len(raw) > MAX_BLOB:
        raise Malformed(what="layer", reason="too-long")
    try:
        wire = _DECODER.decode(raw)
    except msgspec.DecodeError as exc:
        raise _refused(raw, exc) from exc
    if wire.version != VERSION:
        raise UnsupportedVersion(what="layer", version=wire.version)
    packs = _Packs(wire.packs, own_pack)
    for entry in wire.entries:
        check_path(entry.path)
    _share(wire.files)
    for record in wire.files:
        check_file(record)
    return Layer(
        entries=wire.entries,
        files=wire.files,
        contents=tuple(_content(content, packs) for content in wire.contents),
        sections=tuple(_section(section, packs) for section in wire.sections),
    )


def join(parts: Sequence[Layer]) -> Layer:
    """The layer of several parts, in their order. Raises `Malformed` when a path or a file record stands there twice:
    which of them counts would depend on the reader."""
    layer = Layer(
        entries=tuple(entry for part in parts for entry in part.entries),
        files=tuple(record for part in parts for record in part.files),
        contents=tuple(content for part in parts for content in part.contents),
        sections=tuple(section for part in parts for section in part.sections),
    )
    if len({entry.path for entry in layer.entries}) != len(layer.entries):
        raise Malformed(what="layer", reason="path-twice")
    if len({record.file_id for record in layer.files}) != len(layer.files):
        raise Malformed(what="layer", reason="file-twice")
    return layer
