"""A backup of one source: snapshots, one after the other, until nothing is pending.

Every round walks the source anew, so new messages never wait behind the video that makes a round necessary: databases
come first in each, then files, newest first.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
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
from chatkeep.daemon.backup.tree import Assignment, Known, assign_ids
from chatkeep.daemon.backup.works import Works
from chatkeep.daemon.backup.writer import Progress, Writer
from chatkeep.daemon.capture.errors import EntryUnreadable, EntryVanished
from chatkeep.daemon.capture.exclude import Exclusions
from chatkeep.daemon.capture.files import FileIdentity, OwnerNames, attributes
from chatkeep.daemon.capture.tree import Found, Kind, SourceTree
from chatkeep.daemon.capture.walk import Problem, Reason
from chatkeep.daemon.state import PartialRow, StreamRow
from chatkeep.daemon.vault.layers import BUSY, PENDING, FileKind, FileRecord

MAX_ROUNDS: Final = 1_000_000  # 256 TiB


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


def back_up(writer: Writer, source: Source) -> SourceResult:
    """Make snapshots of `source` until the vault has all of it. Raises CaptureError, StateError, VaultError, Cancelled.

    Whatever ends it early, every snapshot committed before stands and the next call continues.
    """
    result = SourceResult(source.name)
    works = Works()
    try:
        for _ in range(MAX_ROUNDS):
            this = _Round(writer, source, works, result)
            # Only the budget is a reason to go on at once: what else is pending waits for the next backup.
            if this.run() is None or not this.spent:
                break
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
        self._sealer = Sealer(writer.state.outbox.staging, writer.new_pack, self._ids)

    def run(self) -> Published | None:
        """Capture, seal, commit. None when there was nothing to say."""
        clock = self._writer.clock()
        level = None if self._source.compression == "off" else FILE_LEVEL
        try:
            with SourceTree(os.fsencode(self._source.path)) as tree:
                listing = list_source(tree, Exclusions(self._source.exclude), self._before)
                assignment = self._assign(listing)
                group, read = self._capture(tree, listing, assignment, level)
            return self._commit(listing, clock, group=group, read=read)
        except BaseException:
            self._sealer.abort()
            raise

    def _assign(self, listing: Listing) -> Assignment:
        inodes = {}
        for file_id, row in self._before.files.items():
            identity = _identity(row.identity)
            if identity is not None and identity.ino:
                inodes[identity.dev, identity.ino] = file_id
        known = Known(self._before.paths, inodes, self._stream.next_file_id)
        assignment = assign_ids(listing.everything, known, listing.hidden)
        self._draft.paths = assignment.changed_paths
        self._draft.forgotten = assignment.forgotten
        return assignment

    def _capture(
        self, tree: SourceTree, listing: Listing, assignment: Assignment, level: int | None
    ) -> tuple[bool, int]:
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
        group = databases.run(tree, listing.databases, assignment, stream)
        self._result.problems = [*listing.problems, *databases.problems]
        contents = ContentPass(tree, self._sealer, self._ids, self._draft, level=level, budget=self._writer.budget)
        self._files(tree, [*listing.ordinary, *databases.plain], assignment, contents)
        self.spent = contents.spent
        self._stream = dataclasses.replace(self._stream, next_file_id=assignment.next_file_id)
        read = databases.bytes_read + contents.bytes_read
        self._result.bytes_read += read
        return group, read

    def _files(self, tree: SourceTree, found: Sequence[Found], assignment: Assignment, contents: ContentPass) -> None:
        changed = [item for item in found if not self._is_settled(item, assignment.ids[item.path])]
        # Newest first: what a person would miss most is safe first.
        changed.sort(key=lambda item: (item.kind is Kind.FILE, -item.mtime_ns))
        partials = self._writer.state.partials(self._stream.stream)
        expected = sum(item.size for item in changed if item.kind is Kind.FILE)
        done = 0
        seen: set[int] = set()
        for item in changed:
            self._writer.check_cancelled()
            file_id = assignment.ids[item.path]
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
        if file_id in self._before.databases:
            self._draft.demoted.append(file_id)
        row = self._before.files.get(file_id)
        old_record = None if row is None else row.record
        if contents.spent and old_record is not None and decode_record(old_record).flags & PENDING:
            return  # it was pending before and stays so: nothing new to say, and no time to lose on its attributes
        try:
            record = self._record(tree, item, file_id)
            if item.kind is Kind.FILE:
                old = None if row is None or row.content is None else tuple(decode_content(row.content))
                contents.read(Wanted(file_id, item.path, record, old, old_record), partial)
                return
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
        draft.drop_paths_without_record(self._before.files.keys())
        self._count(listing)
        self._result.last_seq = self._stream.seq
        if not draft.says_something():
            self._sealer.close()
            self._sealer.shutdown()
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


def _identity(raw: bytes) -> FileIdentity | None:
    return decode_identity(raw)[0] if raw else None
