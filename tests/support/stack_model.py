"""A model of a writer of layers: plain dicts of files and pages beside the layers that say the same."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from chatkeep.daemon.vault.errors import Unresolvable
from chatkeep.daemon.vault.layer_build import LayerBuilder, split_ranges
from chatkeep.daemon.vault.layers import (
    RESET,
    Extent,
    FileKind,
    FileRecord,
    Layer,
    Reference,
    Run,
    Section,
    decode_pages,
    decode_part,
    join,
    make_run,
    ranges_of,
)
from chatkeep.daemon.vault.resolve import Tree, resolve_database

PAGE_SIZE = 65536  # 16 pages in a blob: small models still have several runs
SMALL_PART = 900  # bytes: small layers still have several parts
DATABASES = (1, 2)
NAMES = (b"a", b"b", b"c d", b"\xff", b"e")


def reference(number: int) -> Reference:
    """The `number`-th blob, three to a pack, the first pack being the layer's own."""
    pack = None if number % 7 == 0 else (number // 3 + 1).to_bytes(32, "big")
    return Reference(pack, number % 65535, number.to_bytes(32, "big"))


@dataclass(frozen=True)
class DatabaseStep:
    """What happens to one database in one snapshot."""

    page_count: int | None  # a new size
    written: tuple[int, ...]  # pages, modulo the size
    forgets: bool  # the writer loses the pages that a growth added: the reader must call that damage
    reset: bool
    stale: bool  # an older run of the same section also holds some of the pages


@dataclass(frozen=True)
class Step:
    """One snapshot."""

    databases: tuple[DatabaseStep | None, ...]
    made: tuple[int, ...]  # indexes of names that get a new file
    gone: tuple[int, ...]
    renamed: tuple[int, int] | None
    changed: tuple[int, ...]


_NAME = st.integers(0, len(NAMES) - 1)
_DATABASE = st.builds(
    DatabaseStep,
    page_count=st.none() | st.integers(0, 40),
    written=st.lists(st.integers(0, 60), max_size=6).map(tuple),
    forgets=st.sampled_from([False, False, False, True]),
    reset=st.sampled_from([False, False, False, False, True]),
    stale=st.booleans(),
)
STEPS = st.lists(
    st.builds(
        Step,
        databases=st.tuples(*(st.none() | _DATABASE for _ in DATABASES)),
        made=st.lists(_NAME, max_size=2).map(tuple),
        gone=st.lists(_NAME, max_size=1).map(tuple),
        renamed=st.none() | st.tuples(_NAME, _NAME),
        changed=st.lists(_NAME, max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=9,
)

# One database that is cut and grows again: the histories in which a page could come back from the dead.
RESIZES = st.lists(
    st.builds(
        Step,
        databases=st.tuples(
            st.builds(
                DatabaseStep,
                page_count=st.sampled_from([3, 9]),
                written=st.just(()),
                forgets=st.booleans(),
                reset=st.just(False),
                stale=st.just(False),
            ),
            st.none(),
        ),
        made=st.just(()),
        gone=st.just(()),
        renamed=st.none(),
        changed=st.just(()),
    ),
    min_size=3,
    max_size=5,
)


@dataclass
class Model:
    """The truth. `pages` maps a database to the blob and place of each page, or None for one that the writer lost."""

    paths: dict[bytes, int] = field(default_factory=dict)
    extents: dict[int, tuple[Extent, ...]] = field(default_factory=dict)
    pages: dict[int, dict[int, tuple[bytes, int] | None]] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)  # newest first
    _blobs: int = 0
    _ids: int = len(DATABASES)

    def step(self, step: Step) -> None:
        builder = LayerBuilder()
        for file_id, change in zip(DATABASES, step.databases, strict=True):
            if change is not None:
                self._database(builder, file_id, change)
        self._files(builder, step)
        self.layers.insert(0, encoded(builder, len(self.layers)))

    def _blob(self) -> Reference:
        self._blobs += 1
        return reference(self._blobs)

    def _database(self, builder: LayerBuilder, file_id: int, change: DatabaseStep) -> None:
        first = file_id not in self.pages
        pages = self.pages.setdefault(file_id, {})
        count = len(pages) if change.page_count is None else change.page_count
        reset = change.reset or first
        grown = [] if change.forgets else [page for page in range(1, count + 1) if page not in pages or reset]
        if reset:
            pages.clear()
        for page in [page for page in pages if page > count]:
            del pages[page]
        for page in range(1, count + 1):
            pages.setdefault(page, None)
        dirty = sorted({*grown, *(number % count + 1 for number in change.written if count)})
        runs: list[Run] = []
        for group in split_ranges(ranges_of(dirty), PAGE_SIZE):
            runs.append(make_run(group, self._blob()))
            numbers = [page for start, length in group for page in range(start, start + length)]
            pages.update({page: (runs[-1].reference.id, place) for place, page in enumerate(numbers)})
        if change.stale and runs:
            runs.append(make_run(decode_pages(runs[0].pages)[:1], self._blob()))
        builder.add_section(
            Section(file_id, RESET if reset else 0, PAGE_SIZE, count, file_id.to_bytes(32, "big"), tuple(runs))
        )
        if first:
            self.paths[b"db%d" % file_id] = file_id
            builder.add_entry(b"db%d" % file_id, file_id)
        builder.add_file(_record(file_id, FileKind.DATABASE, count * PAGE_SIZE))

    def _files(self, builder: LayerBuilder, step: Step) -> None:
        for place in step.gone:
            if self.paths.pop(NAMES[place], None) is not None:
                builder.add_entry(NAMES[place], None)
        if step.renamed is not None:
            old, new = (NAMES[place] for place in step.renamed)
            if old in self.paths and old != new:
                self.paths[new] = self.paths.pop(old)
                builder.add_entry(old, None)
                builder.add_entry(new, self.paths[new])
        for place in step.made:
            self._ids += 1
            self.paths[NAMES[place]] = self._ids
            builder.add_entry(NAMES[place], self._ids)
            self._content(builder, self._ids)
        for place in step.changed:
            if NAMES[place] in self.paths:
                self._content(builder, self.paths[NAMES[place]])

    def _content(self, builder: LayerBuilder, file_id: int) -> None:
        extents = tuple(Extent(1000, self._blob() if number % 4 else None) for number in range(self._blobs % 20))
        self.extents[file_id] = extents
        builder.add_file(_record(file_id, FileKind.FILE, 1000 * len(extents)))
        builder.add_content(file_id, 1000 * len(extents), extents)


def _record(file_id: int, kind: FileKind, size: int) -> FileRecord:
    return FileRecord(file_id, kind, 0o640, 1000, 1000, b"user", b"group", -5, size, 0, b"", ((b"user.x", b"\0y"),))


def own_pack(number: int) -> bytes:
    """The hash of the pack that the `number`-th layer is in."""
    return b"own" + number.to_bytes(29, "big")


def encoded(builder: LayerBuilder, number: int) -> Layer:
    """The layer after it was written in small parts and read again."""
    return join([decode_part(part, own_pack(number)) for part in builder.parts(SMALL_PART)])


def image(sections: list[Section]) -> dict[int, tuple[bytes, int] | None]:
    """Where the reader finds each page; the pages of a database that does not resolve are all None."""
    try:
        plan = resolve_database(sections)
    except Unresolvable:
        return dict.fromkeys(range(1, sections[0].page_count + 1))
    found: dict[int, tuple[bytes, int] | None] = {}
    for piece in plan.pieces:
        for at, first, count in piece:
            for place in range(count):
                assert first + place not in found
                found[first + place] = (piece.reference.id, at + place)
    return found


def seen(tree: Tree) -> tuple[object, ...]:
    """What a tree says, own packs included."""
    return (
        tree.paths,
        tree.files,
        {
            file_id: tuple(tree.extents(file_id))
            for file_id, record in tree.files.items()
            if record.kind is FileKind.FILE
        },
        {file_id: image(sections) for file_id, sections in tree.sections.items()},
        [(fault.code, fault.params) for fault in tree.faults],
    )
