"""What a stack of layers says of every path and file [11], and where each byte of a file is."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from chatkeep.daemon.cli.standalone.keys import MAX_BLOB, blake
from chatkeep.daemon.cli.standalone.packs import Read
from chatkeep.daemon.cli.standalone.snapshots import MAX_BLOBS, Snapshot
from chatkeep.daemon.cli.standalone.strict import MOST, array, demand, integer, octets, page_ranges, unpack

FOLDER, FILE, LINK, DATABASE = range(4)  # kinds of files
PENDING, BUSY = 1, 2  # flags of a file
RESET = 1  # flag of a section
HOLE = 0xFFFFFFFF  # in the place of a pack index
U64 = (1 << 64) - 1
U32 = (1 << 32) - 1

Reference = tuple[bytes, int, bytes]
"""Where a blob is: hash of the pack, place in it, id."""


class File(NamedTuple):
    """The attributes of a file."""

    id: int
    kind: int
    mode: int
    mtime: int
    size: int
    flags: int
    target: bytes
    xattrs: list[tuple[bytes, bytes]]


class Extent(NamedTuple):
    """So many bytes of a file; without a reference zeros."""

    length: int
    reference: Reference | None


class Content(NamedTuple):
    """A part of a file's content; `size` is of the whole."""

    offset: int
    size: int
    extents: list[Extent]


class Run(NamedTuple):
    """A blob of database pages: (first page, number of pages) in the order in which they stand in it."""

    ranges: list[tuple[int, int]]
    reference: Reference


class Section(NamedTuple):
    """One capture of one database; digest and page count are of the whole database. Runs newest first."""

    file_id: int
    flags: int
    page_size: int
    page_count: int
    digest: bytes
    runs: list[Run]


class Piece(NamedTuple):
    """A blob that a file needs, its length, and what of it goes where: (from, to, number of bytes)."""

    kind: str
    reference: Reference
    length: int
    copies: list[tuple[int, int, int]]


class Layer:
    """One layer: its parts together. In one layer a path, and a file, stands once."""

    def __init__(self) -> None:
        self.paths: dict[bytes, int | None] = {}
        self.files: dict[int, File] = {}
        self.contents: dict[int, list[Content]] = {}
        self.sections: list[Section] = []

    def add(self, raw: bytes, home: bytes) -> None:
        """Takes a part that is stored in the pack `home`."""
        fields = array(unpack(raw))
        demand(fields[:1] == [1], "a layer of another version")
        _, table, entries, files, contents, sections = array(fields, 6)
        demand(len(octets(table)) % 32 == 0, "a table of packs that is cut off")
        packs = [home, *(table[at : at + 32] for at in range(0, len(table), 32))]
        for path, file_id in (array(row, 2) for row in array(entries)):
            demand(check_path(octets(path)) not in self.paths, "a path that stands twice in a layer")
            self.paths[path] = None if file_id is None else integer(file_id, 1, U64)
        for file in map(parse_file, array(files)):
            demand(file.id not in self.files, "a file that stands twice in a layer")
            self.files[file.id] = file
        for row in array(contents):
            file_id, content = parse_content(row, packs)
            self.contents.setdefault(file_id, []).append(content)
        self.sections += [parse_section(row, packs) for row in array(sections)]


class Tree:
    """What a snapshot's layers say together: the newest word on a path, a file and a content is the last."""

    def __init__(self, read: Read, snapshot: Snapshot) -> None:
        self.paths: dict[bytes, int | None] = {}
        self.files: dict[int, File] = {}
        self.contents: dict[int, list[Content]] = {}
        self.sections: dict[int, list[Section]] = {}
        closed: set[int] = set()
        for _, _, _, parts in snapshot.stack:
            layer = Layer()
            for pack, slot, blob_id in parts:
                layer.add(read(snapshot, "layer", pack, slot, blob_id), pack)
            self.paths = layer.paths | self.paths
            self.files = layer.files | self.files
            self.contents = layer.contents | self.contents
            for section in layer.sections:
                if section.file_id not in closed:
                    self.sections.setdefault(section.file_id, []).append(section)
                if section.flags & RESET:
                    closed.add(section.file_id)

    def stored(self, file: File) -> bool:
        """Whether the vault has any content of a file: of one that is pending it may have none."""
        return file.id in (self.sections if file.kind == DATABASE else self.contents)

    def size(self, file: File) -> int:
        """The bytes that it has when it is restored."""
        if file.kind == DATABASE:
            newest = self.sections[file.id][0]
            return newest.page_size * newest.page_count
        size = self.contents[file.id][0].size
        demand(size == file.size or bool(file.flags & (PENDING | BUSY)), "its content is not of its size")
        return size

    def check_databases(self, snapshot: Snapshot) -> None:
        """Refuses databases that are not those of the capture, by the digest over all their digests [12]."""
        named = {file_id for file_id in self.paths.values() if file_id is not None and file_id in self.files}
        found = sorted(it for it in named if self.files[it].kind == DATABASE and it in self.sections)
        whole = b"".join(file_id.to_bytes(8, "big") + self.sections[file_id][0].digest for file_id in found)
        right = (len(found), blake("database set", snapshot.id_key, whole))
        demand(right == (snapshot.databases, snapshot.set_digest), "the databases are not those of the capture")

    def pieces(self, file: File) -> Iterator[Piece]:
        """The blobs that a file needs. What none of them covers is zero."""
        if file.kind == DATABASE:
            yield from self._pages(self.sections[file.id])
            return
        end, whole = 0, self.size(file)
        for content in sorted(self.contents[file.id], key=lambda content: content.offset):
            demand((content.offset, content.size) == (end, whole), "its contents do not lie end to end")
            for length, reference in content.extents:
                if reference is not None:
                    yield Piece("chunk", reference, length, [(0, end, length)])
                end += length
        demand(end == whole, "its contents are not its size")

    def _pages(self, sections: list[Section]) -> Iterator[Piece]:
        """The pages of a database, from its sections newest first: a page that was found is not taken again."""
        size, count = sections[0].page_size, sections[0].page_count
        lock = (1 << 30) // size + 1  # SQLite never writes the page that holds this byte
        claimed = sum(pages for section in sections for run in section.runs for _, pages in run.ranges)
        demand(claimed >= count - (lock <= count), "some of its pages are missing")
        taken = bytearray(count + 1)
        limit = count
        for section in sections:
            demand(section.page_size == size, "its pages change their size")
            limit = min(limit, section.page_count)  # what was cut off once does not come back from before
            for run in section.runs:
                at, copies = 0, []
                for first, pages in run.ranges:
                    for page, length in untaken(taken, first, min(first + pages, limit + 1)):
                        copies.append(((at + page - first) * size, (page - 1) * size, length * size))
                    at += pages
                if copies:
                    yield Piece("pages", run.reference, at * size, copies)
        if lock <= count:
            taken[lock] = 1
        demand(taken.find(0, 1) < 0, "some of its pages are missing")


def untaken(taken: bytearray, first: int, end: int) -> Iterator[tuple[int, int]]:
    """The (first page, number of pages) from `first` to before `end` that were not taken; from now on they are."""
    page = taken.find(0, first, end)
    while 0 <= page < end:
        after = taken.find(1, page, end)
        after = end if after < 0 else after
        taken[page:after] = b"\1" * (after - page)
        yield page, after - page
        page = taken.find(0, after, end)


def check_path(path: bytes) -> bytes:
    """Refuses a path that could lead out of the target. Empty is the source itself."""
    demand(len(path) <= 4096 and b"\0" not in path, f"{path[:80]!r} is no path")
    for name in path.split(b"/") if path else []:
        demand(name not in (b"", b".", b"..") and len(name) <= 255, f"{path[:80]!r} leads elsewhere")
    return path


def parse_file(row: Any) -> File:
    """A file record. Owners are checked and not used: this reader gives files to whoever runs it."""
    file_id, kind, mode, uid, gid, user, group, mtime, size, flags, target, xattrs = array(row, 12)
    integer(uid, 0, U32), integer(gid, 0, U32), octets(user), octets(group)
    demand(integer(kind, 0, 3) == LINK or not octets(target), "a target of what is no link")
    demand(kind != LINK or (octets(target) != b"" and b"\0" not in target), "a link to nowhere")
    demand(kind in (FILE, DATABASE) or size == 0, "a folder or link with a size")
    pairs = [array(pair, 2) for pair in array(xattrs)]
    for name, _ in pairs:
        demand(len(octets(name, most=255)) > 0 and b"\0" not in name, "an attribute without a name")
    return File(
        id=integer(file_id, 1, U64),
        kind=kind,
        mode=integer(mode, 0, 0o7777),
        mtime=integer(mtime, -MOST),
        size=integer(size),
        flags=integer(flags, 0, 15),
        target=target,
        xattrs=[(name, octets(value)) for name, value in pairs],
    )


def parse_content(row: Any, packs: list[bytes]) -> tuple[int, Content]:
    """A content, and the id of its file."""
    file_id, size, offset, raw = array(row, 4)
    demand(len(octets(raw)) % 48 == 0, "extents that are cut off")
    extents, end = [], integer(offset)
    for length, pack, slot, blob_id in struct.iter_unpack(">QII32s", raw):
        if pack == HOLE:
            demand((slot, blob_id) == (0, bytes(32)), "a hole that refers to something")
            extents.append(Extent(integer(length, 1), None))
        else:
            extents.append(Extent(integer(length, 1, MAX_BLOB), resolve(packs, pack, slot, blob_id)))
        end += length
    demand(end <= integer(size), "a content that is longer than its file")
    return integer(file_id, 1, U64), Content(offset, size, extents)


def parse_section(row: Any, packs: list[bytes]) -> Section:
    """A section of a database."""
    file_id, flags, page_size, page_count, digest, rows = array(row, 6)
    size = integer(page_size, 512, 65536)
    demand(size & (size - 1) == 0, "pages of a size that cannot be")
    runs = []
    for pages, pack, slot, blob_id in (array(run, 4) for run in array(rows)):
        ranges = page_ranges(octets(pages))
        demand(0 < sum(count for _, count in ranges) * size <= MAX_BLOB, "pages that no blob can hold")
        runs.append(Run(ranges, resolve(packs, integer(pack), slot, octets(blob_id, 32))))
    counted = integer(page_count, 0, U32)
    return Section(integer(file_id, 1, U64), integer(flags, 0, RESET), size, counted, octets(digest, 32), runs)


def resolve(packs: list[bytes], index: int, slot: Any, blob_id: bytes) -> Reference:
    """The reference that a pack index of a part stands for."""
    demand(index < len(packs), "a pack that its part does not list")
    return packs[index], integer(slot, 0, MAX_BLOBS - 1), blob_id
