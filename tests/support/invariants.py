"""What must be true of a device's state after every backup, whatever happened in it."""

from __future__ import annotations

import hashlib
import os

from chatkeep.daemon.backup.draft import Piece as StatePiece
from chatkeep.daemon.backup.draft import decode_content, decode_record, encode_content, total
from chatkeep.daemon.backup.publish import set_digest, stored_layer
from chatkeep.daemon.backup.tables import open_table
from chatkeep.daemon.capture.digests import page_table_digest
from chatkeep.daemon.state import State, StreamRow
from chatkeep.daemon.vault.blob import IdKeys
from chatkeep.daemon.vault.layers import BUSY, PENDING, FileKind
from chatkeep.daemon.vault.resolve import Tree, check_databases, resolve_database, resolve_tree


def check_state(state: State, ids: IdKeys) -> None:
    """Raises AssertionError with the first thing that is wrong in any active stream, or in the outbox."""
    connection = state._connection
    for source in [row[0] for row in connection.rows("SELECT source FROM streams WHERE active=1")]:
        _check_stream(state, state.stream(source), ids)
    for sha, size in connection.rows("SELECT sha256, size FROM objects WHERE released=0"):
        body = (state.outbox.directory / sha.hex()).read_bytes()
        assert len(body) == size
        assert hashlib.sha256(body).digest() == sha
    assert os.listdir(state.outbox.staging) == [], "something was left in the staging directory"


def _check_stream(state: State, stream: StreamRow, ids: IdKeys) -> None:
    numbers = [row.seq for row in state.snapshots(stream.stream)]
    every = list(range(stream.seq, 0, -1))
    if state.pruning.checkpoints():  # what was pruned and deleted everywhere is forgotten; the newest never
        assert numbers == sorted(set(numbers) & set(every), reverse=True), "rows twice, or of no snapshot"
        assert numbers[:1] == every[:1], "the newest snapshot without a row"
    else:
        assert numbers == every, "a snapshot without a row, or a row without a snapshot"
    stack = state.stack(stream.stream)
    reach = stream.seq + 1
    for row in stack:
        assert 1 <= row.first_seq <= row.last_seq < reach, "layers overlap, or are not newest first"
        reach = row.first_seq
    assert len(stack) <= 120
    tree = resolve_tree([stored_layer(row) for row in stack])
    assert not tree.faults
    _check_files(state, stream, tree)
    _check_databases(state, stream, tree, ids)


def _check_files(state: State, stream: StreamRow, tree: Tree) -> None:
    paths = state.paths(stream.stream)
    assert paths == tree.paths, "the rows name other paths than the layers"
    files = {row.file_id: row for row in state.files(stream.stream)}
    assert files.keys() == set(paths.values()), "a path without a file row, or a file row without a path"
    assert all(file_id < stream.next_file_id for file_id in files)
    for file_id, row in files.items():
        record = decode_record(row.record)
        assert record == tree.files[file_id], "the rows have another record than the layers"
        assert record.kind is FileKind.FILE or row.content is None
        if record.kind is not FileKind.FILE:
            continue
        if row.content is None:
            assert record.flags & PENDING, "no content, and not pending"
            continue
        found = [StatePiece(extent.length, extent.reference) for extent in tree.extents(file_id)]
        assert encode_content(found) == row.content, "the rows have another content than the layers"
        assert record.flags & (BUSY | PENDING) or total(decode_content(row.content)) == record.size


def _check_databases(state: State, stream: StreamRow, tree: Tree, ids: IdKeys) -> None:
    rows = state.databases(stream.stream)
    kinds = {file_id for file_id, record in tree.files.items() if record.kind is FileKind.DATABASE}
    assert rows.keys() == kinds, "database rows are not those of the databases"
    count, digest = set_digest(rows.values(), ids.set_key)
    assert check_databases(tree, ids.set_key, count, digest) is None, "readers compute another set digest"
    redo = {row.file_id for row in state.redo(stream.stream)}
    known = {row[0] for row in state._connection.rows("SELECT sha256 FROM objects")}
    for file_id, row in rows.items():
        runs = state.runs(stream.stream, file_id)
        assert all(run.pack in known for run in runs)
        assert row.digest is not None or tree.files[file_id].flags & PENDING
        if row.digest is None:
            continue
        plan = resolve_database(tree.sections[file_id])  # every page is somewhere, or this raises
        assert (plan.page_size, plan.page_count, plan.digest) == (row.page_size, row.page_count, row.digest)
        if not runs and file_id not in redo and not tree.files[file_id].flags & (PENDING | BUSY):
            with open_table(state, stream.stream, file_id, row.page_size) as table:
                assert table.count >= row.page_count
                pieces = (table.read(page, 1) for page in range(1, row.page_count + 1))
                found = page_table_digest(pieces, row.page_size, row.page_count, ids.page_table_key, ids.page_seed)
            assert found == row.digest, "the digest table is not of the newest capture"
    orphans = state._connection.rows("SELECT DISTINCT file_id FROM runs WHERE stream=?", stream.stream)
    assert {row[0] for row in orphans} <= rows.keys(), "runs of what is no database"
