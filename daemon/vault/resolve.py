"""From a stack of layers to one tree and to the pages of one database. Pure.

Rules: docs/format.md section 11. Memory follows what was really read: a stack that claims a database of four thousand
million pages and holds no runs is refused before anything of that size is allocated.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from chatkeep.daemon.vault.errors import Unresolvable
from chatkeep.daemon.vault.layers import (
    BUSY,
    PENDING,
    RESET,
    Content,
    Extent,
    FileKind,
    FileRecord,
    Layer,
    Reference,
    Run,
    Section,
    decode_pages,
)
from chatkeep.daemon.vault.room import most_memory

LOCK_BYTE: Final = 1 << 30  # SQLite locks bytes here and never writes the page that holds them


def lock_page(page_size: int) -> int:
    """The number of the page that holds SQLite's lock bytes."""
    return LOCK_BYTE // page_size + 1


# --- newest wins -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Gathered:
    """Layers taken newest first: of each path, file record and content the newest; of each database the sections that
    count, newest first. A path that is gone has no file id."""

    paths: dict[bytes, int | None] = field(default_factory=dict)
    files: dict[int, FileRecord] = field(default_factory=dict)
    contents: dict[int, list[Content]] = field(default_factory=dict)
    sections: dict[int, list[Section]] = field(default_factory=dict)

    def take(self, layer: Layer) -> None:
        """The next older layer."""
        for entry in layer.entries:
            self.paths.setdefault(entry.path, entry.file_id)
        for record in layer.files:
            self.files.setdefault(record.file_id, record)
        fresh: dict[int, list[Content]] = {}
        for content in layer.contents:
            if content.file_id not in self.contents:
                fresh.setdefault(content.file_id, []).append(content)
        self.contents.update(fresh)
        for section in layer.sections:
            own = self.sections.setdefault(section.file_id, [])
            if not own or not own[-1].flags & RESET:
                own.append(section)


def gather(layers: Iterable[Layer]) -> Gathered:
    """What layers, newest first, say together."""
    gathered = Gathered()
    for layer in layers:
        gathered.take(layer)
    return gathered


# --- trees -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tree:
    """A snapshot's files. `faults`: what had to be left out because the layers contradict themselves."""

    paths: dict[bytes, int]
    files: dict[int, FileRecord]
    contents: dict[int, list[Content]]
    sections: dict[int, list[Section]]
    faults: tuple[Unresolvable, ...]

    def extents(self, file_id: int) -> Sequence[Extent]:
        """The extents of a file's newest content in order. Raises `Unresolvable` when they do not tile its size.

        Its size is that of the record, except while the file is pending or busy: then an older content stands.
        """
        record = self.files[file_id]
        contents = sorted(self.contents.get(file_id, ()), key=lambda content: content.offset)
        older_stands = bool(record.flags & (PENDING | BUSY))
        size = contents[0].size if contents else 0
        end = 0
        extents: list[Extent] = []
        for content in contents:
            if content.size != size or content.offset != end:
                raise Unresolvable(what="file", reason="extents", file_id=file_id)
            extents.extend(content.extents)
            end += sum(extent.length for extent in content.extents)
        if end != size or (size != record.size and not older_stands):
            raise Unresolvable(what="file", reason="size", file_id=file_id)
        # Nearly every file has one content, and a tree may have a million of them: no second copy of its extents.
        return contents[0].extents if len(contents) == 1 else extents

    def has_content(self, file_id: int) -> bool:
        """Whether some version of the file is in the vault: false for a pending one that was never sealed."""
        record = self.files[file_id]
        if record.kind is FileKind.FILE:
            return file_id in self.contents or not record.flags & PENDING
        return record.kind is not FileKind.DATABASE or file_id in self.sections


def resolve_tree(layers: Iterable[Layer]) -> Tree:
    """The tree of a stack, newest layer first.

    A path without a file record, and a path below something that is no directory, is left out and listed in `faults`:
    written anyway, the latter would follow a symbolic link out of the target.
    """
    gathered = gather(layers)
    paths: dict[bytes, int] = {}
    faults: list[Unresolvable] = []
    for path in sorted(gathered.paths):
        file_id = gathered.paths.pop(path)
        if file_id is None:
            continue
        record = gathered.files.get(file_id)
        if record is None:
            faults.append(Unresolvable(what="tree", reason="no-file", file_id=file_id, path=path))
        elif not (_below_directory(path, paths, gathered.files) if path else record.kind is FileKind.DIRECTORY):
            faults.append(Unresolvable(what="tree", reason="not-a-directory", file_id=file_id, path=path))
        else:
            paths[path] = file_id
    named = set(paths.values())
    for table in (gathered.files, gathered.contents, gathered.sections):
        for file_id in [file_id for file_id in table if file_id not in named]:
            del table[file_id]
    return Tree(paths, gathered.files, gathered.contents, gathered.sections, tuple(faults))


def _below_directory(path: bytes, paths: dict[bytes, int], files: dict[int, FileRecord]) -> bool:
    """Whether the nearest named ancestor is a directory; ancestors sort first, so those that stand are in `paths`."""
    while path:
        path = path.rpartition(b"/")[0]
        if path in paths:
            return files[paths[path]].kind is FileKind.DIRECTORY
    return True


# --- databases -------------------------------------------------------------------------------------------------------


class PageWalk:
    """One walk over a database's runs, newest first: a page is taken once, and only while it exists."""

    def __init__(self, page_count: int) -> None:
        self.limit = page_count
        self.found = bytearray(page_count + 2)  # one byte a page: searched and filled without a Python object per page

    def enter(self, section: Section) -> None:
        """The next older section. Its page count lowers the limit for good: a database that shrank and grew again has
        new pages there, and the old ones must not come back."""
        self.limit = min(self.limit, section.page_count)

    def take(self, run: Run) -> array[int]:
        """What of the run counts, as flat triples: position in the blob (in pages), first page, number of pages."""
        spans: array[int] = array("I")
        found, limit = self.found, self.limit
        at = 0
        for first, count in decode_pages(run.pages):
            if count == 1:
                if first <= limit and not found[first]:
                    found[first] = 1
                    spans.extend((at, first, 1))
            elif first <= limit:
                stop = min(first + count, limit + 1)
                page = found.find(0, first, stop)
                while page >= 0:
                    after = found.find(1, page, stop)
                    after = stop if after < 0 else after
                    spans.extend((at + page - first, page, after - page))
                    page = found.find(0, after, stop)
                found[first:stop] = b"\1" * (stop - first)
            at += count
        return spans


@dataclass(frozen=True, slots=True)
class Piece:
    """A pages blob and what of it counts: flat triples of position in the blob, first page, number of pages."""

    reference: Reference
    spans: array[int]

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        numbers = iter(self.spans)
        return zip(numbers, numbers, numbers, strict=True)


@dataclass(frozen=True, slots=True)
class DatabasePlan:
    """Where every page of one database is. The lock page, when no piece has it, is zeros. Pieces newest first."""

    page_size: int
    page_count: int
    digest: bytes
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes of the database."""
        return self.page_size * self.page_count


def _counting(sections: Sequence[Section]) -> Iterator[Section]:
    for section in sections:
        yield section
        if section.flags & RESET:
            return


def resolve_database(sections: Sequence[Section]) -> DatabasePlan:
    """The pages of a database from its sections, newest first. Raises `Unresolvable`: a page that no run has is damage,
    never zeros."""
    if not sections:
        raise Unresolvable(what="database", reason="no-section")
    head = sections[0]
    lock = lock_page(head.page_size)
    needed = head.page_count - (lock <= head.page_count)
    # Before the walk's map is made: its size is what the head claims, and a claim without runs costs nothing to write.
    if sum(run.count for section in _counting(sections) for run in section.runs) < needed:
        raise Unresolvable(what="database", reason="gap", file_id=head.file_id)
    if head.page_count > most_memory():
        # Runs may claim as many pages as they like: two million of them, over the same page, cost a few kilobytes.
        raise Unresolvable(what="database", reason="too-large", file_id=head.file_id)
    walk = PageWalk(head.page_count)
    pieces: list[Piece] = []
    for section in _counting(sections):
        if section.page_size != head.page_size:
            raise Unresolvable(what="database", reason="page-size", file_id=head.file_id)
        walk.enter(section)
        for run in section.runs:
            spans = walk.take(run)
            if spans:
                pieces.append(Piece(run.reference, spans))
    if lock <= head.page_count:
        walk.found[lock] = 1
    missing = walk.found.find(0, 1, head.page_count + 1)
    if missing >= 0:
        raise Unresolvable(what="database", reason="gap", file_id=head.file_id, page=missing)
    return DatabasePlan(head.page_size, head.page_count, head.digest, tuple(pieces))


def check_databases(tree: Tree, key: bytes, count: int, expected: bytes) -> Unresolvable | None:
    """Whether the tree's databases are the `count` that the manifest vouches for by its set digest (section 12).

    Returned and not raised: each database has its own digest, and those that are right can be restored.
    """
    digests = {
        file_id: tree.sections[file_id][0].digest
        for file_id, record in tree.files.items()
        if record.kind is FileKind.DATABASE and tree.sections.get(file_id)
    }
    total = blake3(key=key)
    for file_id, digest in sorted(digests.items()):
        total.update(file_id.to_bytes(8, "big") + digest)
    if (len(digests), total.digest()) == (count, expected):
        return None
    return Unresolvable(what="databases", reason="set-digest", found=len(digests), expected=count)
