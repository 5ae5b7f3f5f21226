"""What is in a source now: the walk, with databases told from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chatkeep.daemon.backup.contents import decode_identity
from chatkeep.daemon.capture.discover import COMPANIONS, Database, classify, header_probe
from chatkeep.daemon.capture.exclude import Exclusions
from chatkeep.daemon.capture.files import FileIdentity, unchanged
from chatkeep.daemon.capture.tree import Found, Kind, SourceTree
from chatkeep.daemon.capture.walk import Problem, walk_directories
from chatkeep.daemon.state import DatabaseRow, FileRow


@dataclass(frozen=True)
class Before:
    """The newest snapshot as the state has it."""

    paths: Mapping[bytes, int]
    files: Mapping[int, FileRow]
    databases: Mapping[int, DatabaseRow]

    def proven(self, found: Found) -> bool:
        """Whether the file is, by its identity, what the newest snapshot has."""
        file_id = self.paths.get(found.path)
        row = self.files.get(file_id) if file_id is not None else None
        return row is not None and is_proven(row, found)


@dataclass
class Listing:
    """Everything found. `everything` is ordinary entries and databases; companions of databases are in neither."""

    ordinary: list[Found] = field(default_factory=list)
    databases: list[Database] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    late: list[bytes] = field(default_factory=list)  # databases that came too late to be captured

    def after(self, later: Listing) -> Listing:
        """The databases of this listing, as they were captured, and all else as `later` found it.

        A file that a row of a captured database names was there before the row: a walk after the capture sees it.
        """
        captured = {database.found.path for database in self.databases}
        # A log whose database was deleted meanwhile is an ordinary file to `later`; beside the captured database it
        # would be replayed into it.
        taken = captured | {path + suffix for path in captured for suffix in COMPANIONS}
        ordinary = [found for found in later.ordinary if found.path not in taken]
        there = {found.path for found in ordinary}
        # A folder that went away since: its database was captured in it.
        above = {parent for path in captured for parent in _parents(path)} - there
        ordinary += [found for found in self.ordinary if found.path in above]
        if any(found.path in captured and found.kind is Kind.DIRECTORY for found in later.ordinary):
            # A folder in the place of a captured database: what is in it belongs to the next snapshot.
            ordinary = [found for found in ordinary if not captured.intersection(_parents(found.path))]
        late = [database.found.path for database in later.databases if database.found.path not in captured]
        return Listing(ordinary, self.databases, later.problems, late)

    @property
    def everything(self) -> list[Found]:
        """What gets a path in the snapshot."""
        return [*self.ordinary, *(database.found for database in self.databases)]

    @property
    def hidden(self) -> Sequence[bytes]:
        """Paths at or below which the walk could not see, or not in time: what is known of them stays."""
        return [*(problem.path for problem in self.problems if problem.hides_content), *self.late]


def list_source(tree: SourceTree, exclude: Exclusions, before: Before, looked_at: set[FileIdentity]) -> Listing:
    """Walk the source. Raises SourceUnreadable when the source itself cannot be listed.

    `looked_at`: files that an earlier walk of this backup found to be no databases; what this one finds is added. A
    large first backup walks many times, and would open every photo that is still pending each time.
    """

    def known(found: Found) -> bool:
        return FileIdentity.of(found) in looked_at or before.proven(found)

    remembered = {
        path: before.databases[file_id].page_size
        for path, file_id in before.paths.items()
        if file_id in before.databases
    }
    probe = header_probe(tree)
    listing = Listing()
    for directory in walk_directories(tree, exclude):
        if not directory.directory.path:
            listing.ordinary.append(directory.directory)
        split = classify(directory.entries, probe, remembered=remembered, known_ordinary=known)
        listing.ordinary += split.ordinary
        looked_at.update(FileIdentity.of(found) for found in split.ordinary if found.kind is Kind.FILE)
        listing.databases += split.databases
        listing.problems += directory.problems
    return listing


def _parents(path: bytes) -> list[bytes]:
    parts = path.split(b"/")[:-1]
    return [b"/".join(parts[:count]) for count in range(len(parts) + 1)]


def is_proven(row: FileRow, found: Found) -> bool:
    """Whether what `row` captured is proven to be what stands there now; for all but files, attributes decide."""
    if not row.identity:
        return False
    identity, captured_ns = decode_identity(row.identity)
    now = FileIdentity.of(found)
    if found.kind is not Kind.FILE:
        return identity == now
    return unchanged(identity, now, captured_ns)
