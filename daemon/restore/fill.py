"""Making the staging tree complete: what an earlier attempt left is proven, the rest fetched, written, proven."""

from __future__ import annotations

import dataclasses
import functools
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, TypeAlias

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.restore import place
from chatkeep.daemon.restore.attributes import AttributeWriter
from chatkeep.daemon.restore.beneath import Beneath
from chatkeep.daemon.restore.crew import Crew
from chatkeep.daemon.restore.errors import NoSpace, NothingToRestore, ProofFailed, writing
from chatkeep.daemon.restore.needs import Chunk, PackNeed, Pages, needs_of
from chatkeep.daemon.restore.parts import Parts, Proof
from chatkeep.daemon.restore.plan import RestorePlan
from chatkeep.daemon.restore.staging import Staging
from chatkeep.daemon.vault.blob import BlobKind, BlobRef, IdKeys
from chatkeep.daemon.vault.errors import SnapshotPruned, VaultError, VaultLocked
from chatkeep.daemon.vault.layers import FileKind

Fetch: TypeAlias = Callable[[BlobKind, Sequence[BlobRef]], Iterator[tuple[BlobRef, bytes]]]
"""Each distinct blob with its plaintext, checked, pack by pack. Raises VaultError. Called from several threads."""

_THREADS: Final = 2  # decrypting, decompressing, hashing and writing run beside each other; memory is per thread
_DAMAGE: Final = (VaultError, ProofFailed)


@dataclasses.dataclass(slots=True)
class Filled:
    """What was done. `damaged`: files that were left out, with why; only with `salvage`."""

    plan: RestorePlan
    written: int
    reused: int
    damaged: list[tuple[bytes, ChatkeepError]]


class Filling:
    """Fills one staging tree.

    Args:
        fetch, ids: where blobs come from, and the keys of their ids.
        salvage: leave out files that need something damaged, instead of raising.
        progress, cancelled: as `apply` has them.
    """

    def __init__(
        self,
        plan: RestorePlan,
        staging: Staging,
        attributes: AttributeWriter,
        fetch: Fetch,
        ids: IdKeys,
        *,
        salvage: bool,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._plan, self._staging, self._attributes = plan, staging, attributes
        self._fetch, self._salvage, self._progress = fetch, salvage, progress
        self._lock = threading.Lock()
        self._written = self._proven = 0
        self._reused: dict[int, Beneath] = {}
        self._damaged: dict[int, ChatkeepError] = {}
        self._crew = Crew(_THREADS, cancelled, self._report_progress)
        self._proof = Proof(ids, self._crew.check)
        self._names, self._links = _names(plan)

    def run(self, target: Beneath | None) -> Filled:
        """Make the staging tree complete; `target` is where an earlier attempt may have moved files to."""
        place.make_directories(self._plan, self._staging.tree)
        missing = self._missing(target if self._staging.moving else None)
        self._check_space(missing)
        needs = needs_of(self._plan, missing)
        counts: Counter[int] = Counter()  # how many pieces each file gets
        for pack in needs:
            counts.update(need.file_id for need in pack.chunks)
            counts.update(need.file_id for need in pack.pages)
        parts = Parts(self._plan, self._staging, self._names, self._attributes, self._proof)
        try:
            parts.expect(sorted(missing), counts)
            del counts, missing
            self._crew.run([functools.partial(self._fill_from, pack, parts) for pack in needs])
        finally:
            parts.close()
        if self._damaged:
            self._plan = _without(self._plan, self._damaged.keys())
        self._make_links()
        self._report_progress()
        damaged = [(self._names[file_id], error) for file_id, error in sorted(self._damaged.items())]
        return Filled(self._plan, self._written, len(self._reused), damaged)

    # -- what an earlier attempt left

    def _missing(self, moved: Beneath | None) -> set[int]:
        """File ids to fetch: all but those whose bytes, where an earlier attempt left them, prove themselves."""
        wanted = self._plan.extents.keys() | self._plan.databases.keys()
        with writing(self._staging.path):
            kept = self._staging.prune(
                lambda path, facts: self._plan.paths.get(path) in wanted and stat.S_ISREG(facts.st_mode)
            )
        tasks = []
        for file_id in sorted(wanted) if kept or moved else ():
            path = self._names[file_id]
            if path in kept:
                tasks.append(functools.partial(self._prove, file_id, self._staging.tree))
            elif moved is not None and _is_file(moved, path):
                tasks.append(functools.partial(self._prove, file_id, moved))
        self._crew.run(tasks)
        for path in kept:
            if self._plan.paths[path] not in self._reused:
                self._staging.tree.unlink(path)
        return set(wanted - self._reused.keys())

    def _prove(self, file_id: int, tree: Beneath) -> None:
        path = self._names[file_id]
        with writing(path):
            fd = tree.open(path, os.O_RDONLY)
            try:
                database = self._plan.databases.get(file_id)
                if database is not None:
                    proven = self._proof.database(fd, database)
                else:
                    proven = self._proof.file(fd, self._plan.extents[file_id])
                if proven:
                    with self._lock:
                        self._attributes.set(fd, path, self._plan.files[file_id])
                        self._reused[file_id] = tree
                        self._proven += self._content(file_id)
            finally:
                os.close(fd)

    def _content(self, file_id: int) -> int:
        """Bytes to write for a file: its holes are not written."""
        database = self._plan.databases.get(file_id)
        if database is not None:
            return database.size
        return sum(extent.length for extent in self._plan.extents[file_id] if extent.reference is not None)

    def _check_space(self, missing: set[int]) -> None:
        needed = sum(self._content(file_id) for file_id in missing)
        with writing(self._staging.path):
            found = os.fstatvfs(self._staging.top.fd)
        free = found.f_bavail * found.f_frsize
        if needed > free:  # now, and not after an hour
            raise NoSpace(path=self._staging.path, needed=needed, free=free)

    # -- fetching, on the crew's threads

    def _fill_from(self, pack: PackNeed, parts: Parts) -> None:
        self._crew.check()
        self._read(pack.pack, BlobKind.CHUNK, pack.chunks, parts)
        self._read(pack.pack, BlobKind.PAGES, pack.pages, parts)

    def _read(self, pack: bytes, kind: BlobKind, needs: Sequence[Chunk | Pages], parts: Parts) -> None:
        left: dict[BlobRef, list[Chunk | Pages]] = {}
        for need in needs:
            left.setdefault(BlobRef(pack, need.slot, need.id), []).append(need)
        try:
            for ref, content in self._fetch(kind, list(left)):
                self._deliver(left.pop(ref), content, parts)
        except (VaultLocked, SnapshotPruned):  # nothing is damaged: another snapshot has all of it, this one none
            raise
        except VaultError:
            if not self._salvage:
                raise
            for ref, own in left.items():  # each alone: only what is damaged is lost
                self._read_one(ref, kind, own, parts)

    def _read_one(self, ref: BlobRef, kind: BlobKind, needs: Sequence[Chunk | Pages], parts: Parts) -> None:
        try:
            for _, content in self._fetch(kind, [ref]):
                self._deliver(needs, content, parts)
        except (VaultLocked, SnapshotPruned):
            raise
        except VaultError as exc:
            self._lose({need.file_id for need in needs}, exc, parts)

    def _deliver(self, needs: Sequence[Chunk | Pages], content: bytes, parts: Parts) -> None:
        self._crew.check()
        for need in needs:
            try:
                written = parts.write(need, content)
            except _DAMAGE as exc:
                self._lose({need.file_id}, exc, parts)
            else:
                with self._lock:
                    self._written += written

    def _lose(self, file_ids: set[int], error: ChatkeepError, parts: Parts) -> None:
        if not self._salvage:
            raise error
        parts.drop(file_ids)
        with self._lock:
            for file_id in file_ids:
                self._damaged.setdefault(file_id, error)

    def _report_progress(self) -> None:
        self._progress(self._written + self._proven, self._plan.figures.content)

    # -- links, when every file is there

    def _make_links(self) -> None:
        tree = self._staging.tree
        for path, first in self._links:
            source = self._reused.get(self._plan.paths.get(path, 0), tree)
            with writing(path):
                if path not in self._plan.paths:
                    continue
                if _is_file(tree, path):
                    tree.unlink(path)
                source.link(first, tree, path)
        for path, file_id in self._plan.paths.items():
            record = self._plan.files[file_id]
            if record.kind is FileKind.SYMLINK:
                with writing(path):
                    tree.symlink(record.target, path)
                    with tree.at(path) as (parent, name):
                        self._attributes.set_link(parent, name, path, record)


def _names(plan: RestorePlan) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    """The first path of each file, and (path, first path) of its other names. A symbolic link is made anew for each."""
    first: dict[int, bytes] = {}
    others: list[tuple[bytes, bytes]] = []
    for path, file_id in plan.paths.items():
        if first.setdefault(file_id, path) != path and plan.files[file_id].kind in (FileKind.FILE, FileKind.DATABASE):
            others.append((path, first[file_id]))
    return first, others


def _is_file(tree: Beneath, path: bytes) -> bool:
    facts = tree.lstat(path)
    return facts is not None and stat.S_ISREG(facts.st_mode)


def _without(plan: RestorePlan, lost: Collection[int]) -> RestorePlan:
    paths = {path: file_id for path, file_id in plan.paths.items() if file_id not in lost}
    if all(plan.files[file_id].kind is FileKind.DIRECTORY for file_id in paths.values()):
        raise NothingToRestore(pending=len(plan.pending), damaged=len(lost) + len(plan.faults))
    return dataclasses.replace(plan, paths=paths)
