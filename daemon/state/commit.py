"""One snapshot's rows, written inside the transaction that makes it exist."""

from __future__ import annotations

import sqlite3

from chatkeep.daemon.state.rows import Commit


def apply_commit(db: sqlite3.Connection, commit: Commit) -> None:
    """Write every row of `commit`. The caller holds the transaction; any failure must roll all of it back."""
    _advance(db, commit)
    stream = commit.stream
    db.executemany(
        "INSERT INTO objects(name, stream, seq, is_manifest, sha256, size) VALUES(?,?,?,?,?,?)",
        [(o.name, stream, commit.snapshot.seq, o.is_manifest, o.sha256, o.size) for o in commit.objects],
    )
    db.executemany(
        "INSERT INTO capsules(name, proof) VALUES(?,?)", [(o.name, o.proof) for o in commit.objects if o.proof]
    )
    db.executemany("DELETE FROM known WHERE blob=? AND pack=? AND slot=?", commit.reused)
    _replace_stack(db, commit)
    _tree(db, commit)
    _databases(db, commit)
    db.executemany(
        "INSERT OR REPLACE INTO partials VALUES(?,?,?,?)",
        [(stream, p.path, p.identity, p.content) for p in commit.partials],
    )
    db.executemany(
        "DELETE FROM partials WHERE stream=? AND path=?", [(stream, path) for path in commit.finished_partials]
    )


def _advance(db: sqlite3.Connection, commit: Commit) -> None:
    s = commit.snapshot
    done = db.execute(
        "UPDATE streams SET seq=?, head=?, head_time=?, next_file_id=? WHERE stream=? AND active=1 AND seq=?",
        (s.seq, commit.head, s.time, commit.next_file_id, commit.stream, s.seq - 1),
    )
    # Two snapshots with one seq would fork the chain, which readers report as an attack.
    assert done.rowcount == 1, "the stream did not stand where this snapshot continues it"
    db.execute(
        "INSERT INTO snapshots VALUES(?,?,?,?,?,?,?)",
        (commit.stream, s.seq, s.name, s.time, s.clock, s.complete, s.statistics),
    )


def _replace_stack(db: sqlite3.Connection, commit: Commit) -> None:
    query = "SELECT level, first_seq, last_seq FROM stack WHERE stream=?"
    old = set(db.execute(query, (commit.stream,)).fetchall())
    new = {(row.level, row.first_seq, row.last_seq) for row in commit.stack}
    db.executemany(
        "DELETE FROM stack WHERE stream=? AND last_seq=?", [(commit.stream, last) for _, _, last in old - new]
    )
    db.executemany(
        "INSERT INTO stack VALUES(?,?,?,?,?,?,?,?)",
        [
            (commit.stream, row.last_seq, row.level, row.first_seq, row.first_time, row.last_time, row.parts, row.body)
            for row in commit.stack
            if (row.level, row.first_seq, row.last_seq) not in old
        ],
    )


def _tree(db: sqlite3.Connection, commit: Commit) -> None:
    stream = commit.stream
    gone = [(stream, path) for path, file_id in commit.paths if file_id is None]
    kept = [(stream, path, file_id) for path, file_id in commit.paths if file_id is not None]
    for table in ("paths", "partials"):
        db.executemany(f"DELETE FROM {table} WHERE stream=? AND path=?", gone)  # noqa: S608 the names stand one line above
    db.executemany("INSERT OR REPLACE INTO paths VALUES(?,?,?)", kept)
    db.executemany(
        "INSERT OR REPLACE INTO files VALUES(?,?,?,?,?)",
        [(stream, row.file_id, row.identity, row.record, row.content) for row in commit.files],
    )
    for table in ("files", "databases", "runs"):
        statement = f"DELETE FROM {table} WHERE stream=? AND file_id=?"  # noqa: S608 the names stand one line above
        gone_ids = commit.forgotten if table == "files" else [*commit.forgotten, *commit.demoted]
        db.executemany(statement, [(stream, file_id) for file_id in gone_ids])


def _databases(db: sqlite3.Connection, commit: Commit) -> None:
    stream = commit.stream
    db.executemany(
        "INSERT OR REPLACE INTO databases VALUES(?,?,?,?,?,?)",
        [(stream, row.file_id, row.page_size, row.page_count, row.signature, row.digest) for row in commit.databases],
    )
    db.executemany("DELETE FROM runs WHERE stream=? AND file_id=?", [(stream, file_id) for file_id in commit.published])
    db.executemany(
        "INSERT INTO runs(stream, file_id, page_size, pages, pack, slot, blob) VALUES(?,?,?,?,?,?,?)",
        [(stream, run.file_id, run.page_size, run.pages, run.pack, run.slot, run.blob) for run in commit.runs],
    )
    db.executemany(
        "INSERT INTO redo(stream, file_id, page_size, reach, runs) VALUES(?,?,?,?,?)",
        [(stream, row.file_id, row.page_size, row.reach, row.runs) for row in commit.redo],
    )
