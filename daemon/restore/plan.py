"""What a restore will do, as a value: nothing is fetched but layers, nothing is written."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from chatkeep.daemon.restore.errors import NothingToRestore, PathNotInSnapshot
from chatkeep.daemon.vault.errors import Unresolvable
from chatkeep.daemon.vault.layers import BUSY, PENDING, Extent, FileKind, FileRecord
from chatkeep.daemon.vault.resolve import DatabasePlan, Tree, resolve_database

_MOST_NEIGHBOURS: Final = 4000  # compared by spelling: a directory of a million files must not cost minutes


@dataclass(frozen=True, slots=True)
class Figures:
    """What a plan comes to. `content`: bytes to write, holes not counted; `blobs`: to fetch, each counted once."""

    files: int
    directories: int
    content: int
    blobs: int
    packs: int


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What to restore.

    Attributes:
        paths: every path to make, parents included, with its file id.
        files, extents, databases: by file id; what has neither extents nor a database has no content to fetch.
        parents: directories that were not chosen but lead to what was; existing ones keep their attributes.
        partial: some paths were chosen; otherwise it is the whole snapshot.
        pending: paths whose content is not in the vault yet; they are left out.
        stale: paths restored with an older content than the attributes, being busy or pending at the snapshot.
        faults: what is damaged and left out.
    """

    paths: dict[bytes, int]
    files: dict[int, FileRecord]
    extents: dict[int, Sequence[Extent]]
    databases: dict[int, DatabasePlan]
    parents: frozenset[bytes] = frozenset()
    partial: bool = False
    pending: tuple[bytes, ...] = ()
    stale: tuple[bytes, ...] = ()
    faults: tuple[Unresolvable, ...] = ()
    figures: Figures = field(default=Figures(0, 0, 0, 0, 0))

    def size(self, file_id: int) -> int:
        """Bytes of the restored file: those of the content that stands, which may be older than the record."""
        if file_id in self.databases:
            return self.databases[file_id].size
        return sum(extent.length for extent in self.extents.get(file_id, ()))


def plan_tree(tree: Tree, chosen: Sequence[bytes] | None) -> RestorePlan:
    """Plan the whole tree, or the chosen paths and all below them.

    Raises:
        PathNotInSnapshot: a chosen path is not there.
        NothingToRestore: all of it is pending or damaged, or there is nothing.
    """
    wanted, parents = _select(tree, chosen)
    extents: dict[int, Sequence[Extent]] = {}
    databases: dict[int, DatabasePlan] = {}
    faults = [fault for fault in tree.faults if _concerns(fault, chosen)]
    left_out: set[int] = set()
    for path, file_id in wanted.items():
        kind = tree.files[file_id].kind
        if file_id in extents or file_id in databases or file_id in left_out:
            continue  # another name of the same file
        if not tree.has_content(file_id):
            left_out.add(file_id)
            continue
        try:
            if kind is FileKind.FILE:
                extents[file_id] = tree.extents(file_id)
            elif kind is FileKind.DATABASE:
                databases[file_id] = resolve_database(tree.sections[file_id])
        except Unresolvable as exc:
            exc.params.setdefault("path", path)
            faults.append(exc)
            left_out.add(file_id)
    pending = tuple(path for path, own in wanted.items() if own in left_out and not tree.has_content(own))
    paths = {path: own for path, own in wanted.items() if own not in left_out} if left_out else wanted
    if not any(path not in parents for path in paths):
        raise NothingToRestore(pending=len(pending), damaged=len(faults))
    kept = set(paths.values())
    return RestorePlan(
        paths=paths,
        files=tree.files if len(kept) == len(tree.files) else {own: tree.files[own] for own in kept},
        extents=extents,
        databases=databases,
        parents=parents,
        partial=chosen is not None,
        pending=pending,
        stale=tuple(path for path, own in paths.items() if tree.files[own].flags & (BUSY | PENDING)),
        faults=tuple(faults),
        figures=figures_of([tree.files[own].kind for own in paths.values()], extents, databases),
    )


def _select(tree: Tree, chosen: Sequence[bytes] | None) -> tuple[dict[bytes, int], frozenset[bytes]]:
    if chosen is None:
        return tree.paths, frozenset()
    known = sorted(tree.paths)
    wanted: dict[bytes, int] = {}
    parents: set[bytes] = set()
    for path in chosen:
        below = [own for own in known if _at_or_below(own, path)]
        if not below:
            raise PathNotInSnapshot(path=path, nearest=nearest(tree.paths, path))
        wanted.update((own, tree.paths[own]) for own in below)
        while path:
            path = path.rpartition(b"/")[0]
            parents.add(path)
    parents = {path for path in parents if path in tree.paths and path not in wanted}
    wanted.update((path, tree.paths[path]) for path in parents)
    return dict(sorted(wanted.items())), frozenset(parents)


def _at_or_below(path: bytes, top: bytes) -> bool:
    return not top or path == top or path.startswith(top + b"/")


def _concerns(fault: Unresolvable, chosen: Sequence[bytes] | None) -> bool:
    path = fault.params.get("path")
    return chosen is None or not isinstance(path, bytes) or any(_at_or_below(path, own) for own in chosen)


def nearest(paths: Iterable[bytes], wanted: bytes) -> bytes | None:
    """The path that was probably meant: the same parent with a name that is spelled alike."""
    known = set(paths)
    above, _, name = wanted.rpartition(b"/")
    if above and above not in known and not any(path.startswith(above + b"/") for path in known):
        parent = nearest(known, above)
        if parent is None:
            return None
        above = parent
    prefix = above + b"/" if above else b""
    names = {path[len(prefix) :].split(b"/")[0] for path in known if path.startswith(prefix) and path != above}
    likely = sorted(names, key=lambda own: (abs(len(own) - len(name)), own))[:_MOST_NEIGHBOURS]
    spelled = {own.decode("utf-8", "surrogateescape"): own for own in likely}
    found = difflib.get_close_matches(name.decode("utf-8", "surrogateescape"), spelled, n=1)
    return prefix + spelled[found[0]] if found else None


def figures_of(
    kinds: list[FileKind], extents: dict[int, Sequence[Extent]], databases: dict[int, DatabasePlan]
) -> Figures:
    """What restoring files of these kinds, with this content, comes to."""
    blobs: set[tuple[bytes | None, int]] = set()
    content = 0
    for own in extents.values():
        for extent in own:
            if extent.reference is not None:
                content += extent.length
                blobs.add((extent.reference.pack, extent.reference.slot))
    for database in databases.values():
        content += database.size
        blobs.update((piece.reference.pack, piece.reference.slot) for piece in database.pieces)
    directories = kinds.count(FileKind.DIRECTORY)
    packs = {pack for pack, _ in blobs}
    return Figures(len(kinds) - directories, directories, content, len(blobs), len(packs))
