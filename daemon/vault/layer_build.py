"""Building the parts of a layer: at most 1 MiB each, each complete in itself. Pure and deterministic.

The same things added in any order give the same parts (sections of one file id keep the order they were added in), so a
repeated snapshot gives the same blob ids. Format: docs/format.md section 11.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from chatkeep.daemon.vault.errors import Malformed, RecordTooLong
from chatkeep.daemon.vault.layers import (
    EXTENT,
    HASH_SIZE,
    HOLE_PACK,
    MAX_BLOB,
    MAX_SLOT,
    RESET,
    VERSION,
    ZERO_ID,
    Content,
    Entry,
    Extent,
    FileRecord,
    Layer,
    Reference,
    Run,
    Section,
    WireContent,
    WireRun,
    WireSection,
    check_content,
    check_file,
    check_path,
    check_section,
    decode_pages,
    encode_ranges,
)

_ENCODER: Final = msgspec.msgpack.Encoder()
_HEAD: Final = 1 + 1 + 5 + 4 * 5  # array, version, and the longest headers of the pack table and the four lists
_RECORD: Final = 5 * 9 + 5 + 34 + 5  # the longest numbers, digest and headers of a content or a section
_INDEX: Final = 5
_EXTENTS_AT_ONCE: Final = 4096  # 192 KiB: small enough to fill parts well, large enough to repeat the head rarely


class _Part:
    """One part as it fills. `size` is an upper bound: an index may take fewer bytes than assumed, never more."""

    def __init__(self) -> None:
        self.size = _HEAD
        self.packs: dict[bytes, int] = {}
        self.items: tuple[list[object], list[object], list[object], list[object]] = ([], [], [], [])

    def index(self, ref: Reference) -> int:
        # The packing below would cut or fill an id of another length without a word, and the blob would be lost.
        if len(ref.id) != HASH_SIZE or not 0 <= ref.slot <= MAX_SLOT or len(ref.pack or ZERO_ID) != HASH_SIZE:
            raise Malformed(what="layer", reason="reference")
        return 0 if ref.pack is None else self.packs.setdefault(ref.pack, len(self.packs) + 1)

    def cost(self, references: Iterable[Reference]) -> int:
        fresh = {ref.pack for ref in references if ref.pack is not None and ref.pack not in self.packs}
        return HASH_SIZE * len(fresh)

    def encode(self) -> bytes:
        return _ENCODER.encode([VERSION, b"".join(self.packs), *self.items])


def _content_references(content: Content) -> list[Reference]:
    return [extent.reference for extent in content.extents if extent.reference is not None]


class LayerBuilder:
    """Collects what changed; `parts` encodes it. A reference with pack None is to the pack that the parts go into."""

    def __init__(self) -> None:
        self._entries: dict[bytes, Entry] = {}
        self._files: dict[int, FileRecord] = {}
        self._contents: dict[int, list[Content]] = {}
        self._sections: dict[int, list[Section]] = {}

    def __bool__(self) -> bool:
        return bool(self._entries or self._files or self._contents or self._sections)

    def add_entry(self, path: bytes, file_id: int | None) -> None:
        """A path and its file id, or None: the path is gone. The last call for a path counts."""
        check_path(path)
        if file_id is not None and file_id < 1:
            raise Malformed(what="entry", reason="file-id")
        self._entries[path] = Entry(path, file_id)

    def add_file(self, record: FileRecord) -> None:
        """Attributes of a file. The last call for a file id counts."""
        check_file(record)
        self._files[record.file_id] = record

    def add_content(self, file_id: int, size: int, extents: Sequence[Extent]) -> None:
        """The whole content of a file; an empty file has no extents. The last call for a file id counts."""
        content = Content(file_id, size, 0, tuple(extents))
        check_content(content)
        self._contents[file_id] = [content]

    def add_section(self, section: Section) -> None:
        """One capture of a database; of one file id, add the newest first."""
        check_section(section)
        self._sections.setdefault(section.file_id, []).append(section)

    def add_layer(self, layer: Layer) -> None:
        """Everything of a decoded or merged layer, into an empty builder."""
        for entry in layer.entries:
            self.add_entry(entry.path, entry.file_id)
        for record in layer.files:
            self.add_file(record)
        for content in layer.contents:
            check_content(content)
            self._contents.setdefault(content.file_id, []).append(content)
        for section in layer.sections:
            self.add_section(section)

    def parts(self, limit: int = MAX_BLOB) -> list[bytes]:
        """The encoded parts, each at most `limit` bytes; none when nothing was added. Raises `RecordTooLong`."""
        packer = _Packer(limit)
        for _, entry in sorted(self._entries.items()):
            packer.add_encoded(0, _ENCODER.encode(entry))
        for _, record in sorted(self._files.items()):
            packer.add_encoded(1, _ENCODER.encode(record))
        for file_id in sorted(self._contents):
            for content in sorted(self._contents[file_id], key=lambda content: content.offset):
                packer.add_content(content)
        for file_id in sorted(self._sections):
            for section in self._sections[file_id]:
                packer.add_section(section)
        return packer.finish()


class _Packer:
    """Fills parts one after the other."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._done: list[bytes] = []
        self._part = _Part()

    def finish(self) -> list[bytes]:
        if any(self._part.items):
            self._done.append(self._part.encode())
        return self._done

    def _room(self, what: str, cost: int, references: Sequence[Reference] = ()) -> None:
        """Make the current part one that has room for `cost` bytes and these references' packs."""
        total = cost + self._part.cost(references)
        if self._part.size + total > self._limit and any(self._part.items):
            self._done.append(self._part.encode())
            self._part = _Part()
            total = cost + self._part.cost(references)
        if self._part.size + total > self._limit:
            raise RecordTooLong(what=what, size=total)
        self._part.size += total

    def add_encoded(self, place: int, raw: bytes) -> None:
        self._room("file" if place else "entry", len(raw))
        self._part.items[place].append(msgspec.Raw(raw))

    def add_content(self, content: Content) -> None:
        # Pieces small enough for any part even when every extent is in a pack of its own.
        at_once = max(1, min(_EXTENTS_AT_ONCE, (self._limit - _HEAD - _RECORD) // (EXTENT.size + HASH_SIZE)))
        offset = content.offset
        for start in range(0, len(content.extents) or 1, at_once):
            extents = content.extents[start : start + at_once]
            piece = Content(content.file_id, content.size, offset, extents)
            self._room("content", _RECORD + EXTENT.size * len(extents), _content_references(piece))
            raw = b"".join(self._pack_extent(extent) for extent in extents)
            self._part.items[2].append(WireContent(piece.file_id, piece.size, offset, raw))
            offset += sum(extent.length for extent in extents)

    def _pack_extent(self, extent: Extent) -> bytes:
        ref = extent.reference
        if ref is None:
            return EXTENT.pack(extent.length, HOLE_PACK, 0, ZERO_ID)
        return EXTENT.pack(extent.length, self._part.index(ref), ref.slot, ref.id)

    def add_section(self, section: Section) -> None:
        left = list(section.runs)
        left.reverse()
        while True:
            runs = self._take_runs(left)
            # Only the oldest piece may end the reader's walk: a reset on an earlier one would hide the pieces after it.
            flags = section.flags if not left else section.flags & ~RESET
            self._part.items[3].append(
                WireSection(section.file_id, flags, section.page_size, section.page_count, section.digest, runs)
            )
            if not left:
                return

    def _take_runs(self, left: list[Run]) -> tuple[WireRun, ...]:
        """As many of the runs, from the end of `left`, as the current part has room for; at least one of them."""
        first = left[-1:]
        self._room("section", _RECORD + sum(_run_cost(run) for run in first), [run.reference for run in first])
        taken: list[WireRun] = []
        while left:
            run = left[-1]
            if taken:
                cost = _run_cost(run) + self._part.cost([run.reference])
                if self._part.size + cost > self._limit:
                    break
                self._part.size += cost
            left.pop()
            taken.append(WireRun(run.pages, self._part.index(run.reference), run.reference.slot, run.reference.id))
        return tuple(taken)


def _run_cost(run: Run) -> int:
    return 1 + 5 + len(run.pages) + _INDEX + 3 + 2 + HASH_SIZE


def split_ranges(ranges: Iterable[tuple[int, int]], page_size: int) -> list[list[tuple[int, int]]]:
    """Cut ascending (first, count) ranges into groups of at most 1 MiB of pages: the blobs to write them as."""
    most = MAX_BLOB // page_size
    groups: list[list[tuple[int, int]]] = []
    room = 0
    for first, count in decode_pages(encode_ranges(ranges)):
        start, left = first, count
        while left:
            if not room:
                groups.append([])
                room = most
            take = min(left, room)
            groups[-1].append((start, take))
            start, left, room = start + take, left - take, room - take
    return groups
