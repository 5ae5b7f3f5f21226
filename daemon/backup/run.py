"""A backup of one source: snapshots, one after the other, until nothing is pending.

Every round walks the source anew, so new messages never wait behind the video that makes a round necessary: databases
come first in each, then files, newest first.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from chatkeep.config.model import Source
from chatkeep.daemon.backup.contents import FILE_LEVEL, ContentPass, Wanted, decode_identity, encode_identity
from chatkeep.daemon.backup.databases import DatabasePass, DatabaseProblem
from chatkeep.daemon.backup.draft import Draft, DraftFile, decode_content, decode_record, encode_record
from chatkeep.daemon.backup.listing import Before, Listing, is_proven, list_source
from chatkeep.daemon.backup.publish import Outline, Published, publish
from chatkeep.daemon.backup.sealing import Sealer
from chatkeep.daemon.backup.settle import Settler
from chatkeep.daemon.backup.tables import remove_tables, replay_redo
from chatkeep.daemon.backup.tree import Assignment, Known, assign_ids, ids_gone, path_changes
from chatkeep.daemon.backup.works import Works
from chatkeep.daemon.backup.writer import Progress, Writer
from chatkeep.daemon.capture.companions import JOURNAL
from chatkeep.daemon.capture.errors import EntryUnreadable, EntryVanished
from chatkeep.daemon.capture.exclude import Exclusions
from chatkeep.daemon.capture.files import FileIdentity, OwnerNames, attributes
from chatkeep.daemon.capture.tree import Found, Kind, SourceTree
from chatkeep.daemon.capture.walk import Problem, Reason
from chatkeep.daemon.state import PartialRow, StreamRow
from chatkeep.daemon.vault.layers import BUSY, NEEDS_RECOVERY, PENDING, FileKind, FileRecord

MAX_ROUNDS: Final = 1_000_000  # 256 TiB
UNFINISHED: Final = ("**/.chatkeep-restore-*/tree/", "**/.chatkeep-restore-*/parts/")
"""What a restore into a source left when it was cut short (restore/staging.py). All of it is in the vault; what was
replaced lies beside, may be nowhere else, and is backed up."""


@dataclass
class SourceResult:
    """What a backup of one source did. No snapshots: nothing had changed since `last_seq`."""

    source: str
    last_seq: int = 0
    snapshots: list[Published] = field(default_factory=list)
    problems: list[Problem | DatabaseProblem] = field(default_factory=list)
    pending: int = 0
    busy: int = 0
    files: int = 0
    source_bytes: int = 0
    bytes_read: int = 0


def back_up(writer: Writer, source: Source, result: SourceResult | None = None) -> SourceResult:
    """Make snapshots of `source` until the vault has all of it. Raises CaptureError, StateError, VaultError, Cancelled.

    Whatever ends it early, every snapshot committed before stands and the next call continues. `result`: of an earlier
    call that was ended; what this one makes is added to it.
    """
    result = SourceResult(source.name) if result is None else result
    works = Works()
    try:
        for _ in range(MAX_ROUNDS):
            this = _Round(writer, source, works, result)
            # Only the budget is a reason to go on at once: what else is pending waits for the next backup.
            if this.run() is None or not this.spent:
                break
            writer.between()
    finally:
        works.close()
    return result


class _Round:
    """One snapshot."""

    def __init__(self, writer: Writer, source: Source, works: Works, result: SourceResult) -> None:
        self._writer = writer
        self._source = source
        self._works = works
        self._result = result
        self._ids = writer.ids
        self._draft = Draft()
        self._names = OwnerNames()
        self._stream: StreamRow = writer.state.stream(source.name)
        stream = self._stream.stream
        replay_redo(writer.state, stream)
        self._before = Before(
            writer.state.paths(stream),
            {row.file_id: row for row in writer.state.files(stream)},
            writer.state.databases(stream),
        )
        self.spent = False
        known = writer.state.known
        copies = known.copies if known.count() else None
        self._sealer = Sealer(writer.state.outbox.staging, writer.new_pack, self._ids, copies)

    def run(self) -> Published | None:
        """Capture, seal, commit. None when there was nothing to say."""
        clock = self._writer.clock()
        level = None if self._source.compression == "off" else FILE_LEVEL
        try:
            with SourceTree(os.fsencode(self._source.path)) as tree:
                listing = self._list(tree)
                first = assign_ids(listing.everything, self._known(), self._unseen(listing))
                databases = self._databases(tree, listing, first, level)
                if self._draft.sections:
                    # Databases first, then the files: what a captured row refers to may be newer than the first walk.
                    listing = listing.after(self._list(tree))
                ids = self._assign(listing, first)
                contents = self._contents(tree, level)
                self._result.problems = [*listing.problems, *databases.problems]
                self._files(tree, [*listing.ordinary, *databases.plain], ids, contents)
            self.spent = contents.spent
            read = databases.bytes_read + contents.bytes_read
            self._result.bytes_read += read
            return self._commit(listing, clock, group=databases.group, read=read)
        except BaseException:
            self._sealer.abort()
            raise

    def _list(self, tree: SourceTree) -> Listing:
        return list_source(tree, Exclusions([*UNFINISHED, *self._source.exclude]), self._before, self._works.looked_at)

    def _known(self) -> Known:
        inodes = {}
        for file_id, row in self._before.files.items():
            identity = _identity(row.identity)
            if identity is not None and identity.ino:
                inodes[identity.dev, identity.ino] = file_id
        return Known(self._before.paths, inodes, self._stream.next_file_id)

    def _assign(self, listing: Listing, first: Assignment) -> Mapping[bytes, int]:
        """The ids of everything, those of the first walk kept; and what the draft says about paths."""
        before = self._known()
        known = Known({**before.paths, **first.ids}, {**before.inodes, **first.inodes}, first.next_file_id)
        final = assign_ids(listing.everything, known, self._unseen(listing))
        # What the capture of the databases added itself (journals) comes last, and so wins.
        self._draft.paths = [*path_changes(before.paths, final.ids), *self._draft.paths]
        self._draft.forgotten += ids_gone(before.paths, final.ids)
        self._stream = dataclasses.replace(self._stream, next_file_id=final.next_file_id)
        return final.ids

    def _unseen(self, listing: Listing) -> list[bytes]:
        """Where the newest snapshot stands whatever the walk found: what was hidden from it, and journals that captured
        databases need for their recovery, each until its database is captured anew."""
        return [*listing.hidden, *self._journals(listing)]

    def _journals(self, listing: Listing) -> Iterator[bytes]:
        for database in listing.databases:
            row = self._before.files.get(self._before.paths.get(database.found.path, 0))
            if row is not None and decode_record(row.record).flags & NEEDS_RECOVERY:
                yield database.found.path + JOURNAL

    def _databases(self, tree: SourceTree, listing: Listing, assignment: Assignment, level: int | None) -> DatabasePass:
        stream = self._stream.stream
        settler = Settler(
            self._writer,
            self._draft,
            self._before,
            stream,
            lambda found, file_id: self._record(tree, found, file_id),
            assignment.allocate,
        )
        databases = DatabasePass(
            self._writer,
            self._sealer,
            self._before,
            self._works,
            settler,
            compress=level is not None,
            source=self._source.name,
        )
        databases.run(tree, listing.databases, assignment, stream)
        return databases

    def _contents(self, tree: SourceTree, level: int | None) -> ContentPass:
        return ContentPass(
            tree,
            self._sealer,
            self._ids,
            self._draft,
            lambda found, file_id: self._record(tree, found, file_id),
            lambda _: self._writer.check_cancelled(),
            self._works.restarts,
            level=level,
            budget=self._writer.budget,
        )

    def _files(self, tree: SourceTree, found: Sequence[Found], ids: Mapping[bytes, int], contents: ContentPass) -> None:
        changed = [item for item in found if not self._is_settled(item, ids[item.path])]
        # Newest first: what a person would miss most is safe first.
        changed.sort(key=lambda item: (item.kind is Kind.FILE, -item.mtime_ns))
        partials = self._writer.state.partials(self._stream.stream)
        expected = sum(item.size for item in changed if item.kind is Kind.FILE)
        done = 0
        seen: set[int] = set()
        for item in changed:
            self._writer.check_cancelled()
            file_id = ids[item.path]
            if file_id in seen:
                continue  # another hard link of the same file
            seen.add(file_id)
            self._file(tree, item, file_id, contents, partials.get(item.path))
            done += item.size if item.kind is Kind.FILE else 0
            self._writer.report(Progress(self._source.name, "files", done, expected))

    def _is_settled(self, item: Found, file_id: int) -> bool:
        row = self._before.files.get(file_id)
        return row is not None and is_proven(row, item)

    def _file(
        self, tree: SourceTree, item: Found, file_id: int, contents: ContentPass, partial: PartialRow | None
    ) -> None:
        row = self._before.files.get(file_id)
        old_record = None if row is None else row.record
        if contents.spent and old_record is not None and _waits(decode_record(old_record), item):
            return  # it was pending before and stays so: nothing new to say, and no time to lose on its attributes
        try:
            if item.kind is Kind.FILE:
                old = None if row is None or row.content is None else tuple(decode_content(row.content))
                contents.read(Wanted(file_id, item, old, old_record), partial)
                return
            record = self._record(tree, item, file_id)
        except EntryVanished:
            return
        except EntryUnreadable as error:
            number = error.params.get("errno")
            reason = Problem(item.path, Reason.UNREADABLE, number if isinstance(number, int) else 0)
            self._result.problems.append(reason)
            return
        if encode_record(record) != old_record:
            self._draft.spoken[file_id] = record
        identity = encode_identity(FileIdentity.of(item), self._writer.clock())
        self._draft.files[file_id] = DraftFile(identity, record, None)

    def _record(self, tree: SourceTree, item: Found, file_id: int) -> FileRecord:
        more = attributes(tree, item, self._names)
        return FileRecord(
            file_id=file_id,
            kind=FileKind(int(item.kind)),
            mode=item.mode,
            uid=item.uid,
            gid=item.gid,
            user=more.user,
            group=more.group,
            mtime=item.mtime_ns,
            size=item.size if item.kind is Kind.FILE else 0,
            flags=0,
            target=more.target,
            xattrs=more.xattrs,
        )

    def _commit(self, listing: Listing, clock: int, *, group: bool, read: int) -> Published | None:
        draft = self._draft
        draft.drop_paths_without_record(self._before.paths.keys(), self._before.files.keys())
        draft.demote(self._before.databases.keys())
        self._count(listing)
        self._result.last_seq = self._stream.seq
        if not draft.says_something():
            # Not empty if something was read in vain: a file that changed meanwhile and is marked as busy already.
            self._sealer.abort()
            self._writer.state.refresh(self._stream.stream, draft.file_rows(), list(draft.databases.values()))
            return None
        self._writer.check_cancelled()
        result = self._result
        outline = Outline(
            source=self._source.name,
            path=os.fsencode(self._source.path),
            clock=clock,
            group=group,
            pending=result.pending,
            busy=result.busy,
            files=result.files,
            source_bytes=result.source_bytes,
            bytes_read=read,
            compress=self._source.compression != "off",
        )
        published = publish(self._writer, self._stream, draft, self._sealer, outline)
        self._sealer.shutdown()
        replay_redo(self._writer.state, self._stream.stream)
        remove_tables(self._writer.state, self._stream.stream, [*draft.forgotten, *draft.demoted])
        result.last_seq = published.seq
        result.snapshots.append(published)
        return published

    def _count(self, listing: Listing) -> None:
        """Files and flags of the whole source as this snapshot leaves it."""
        flags = {file_id: decode_record(row.record).flags for file_id, row in self._before.files.items()}
        flags.update({file_id: file.record.flags for file_id, file in self._draft.files.items()})
        for file_id in self._draft.forgotten:
            flags.pop(file_id, None)
        result = self._result
        result.pending = sum(1 for value in flags.values() if value & PENDING)
        result.busy = sum(1 for value in flags.values() if value & BUSY)
        everything = [item for item in listing.everything if item.kind is Kind.FILE]
        result.files = len(everything)
        result.source_bytes = sum(item.size for item in everything)


def _waits(record: FileRecord, item: Found) -> bool:
    return bool(record.flags & PENDING) and int(record.kind) == int(item.kind)


def _identity(raw: bytes) -> FileIdentity | None:
    return decode_identity(raw)[0] if raw else None
