"""Digest tables and their redo: a table says what the vault has, so it changes only after the commit that made it so.

Changed first, and the machine dies before the commit, and the page goes back to its old content: the table would call
it clean while the newest layer in the vault holds the other version. So digests travel as redo rows in the commit and
are applied after it; applying twice is the same as once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from chatkeep.daemon.capture.digests import DIGEST_SIZE, DigestTable, Overlay
from chatkeep.daemon.state import RedoRow, State, refusals

_RUN: Final = struct.Struct(">II")


def open_table(state: State, stream: bytes, file_id: int, page_size: int) -> DigestTable:
    """The digest table of one database; empty when it is new, or of another page size or another life of the state."""
    with refusals(state.tables):
        return DigestTable(_path(state, stream, file_id), page_size, state.generation)


def redo_of(file_id: int, overlay: Overlay) -> RedoRow:
    """What the table must learn once the commit stands."""
    out = bytearray()
    for first, digests in overlay.runs():
        out += _RUN.pack(first, len(digests) // DIGEST_SIZE)
        out += digests
    return RedoRow(file_id, overlay.page_size, overlay.reach, bytes(out))


def replay_redo(state: State, stream: bytes) -> None:
    """Bring the tables up to the last commit. Must run before anything is compared with them."""
    rows = state.redo(stream)
    for row in rows:
        with refusals(state.tables), open_table(state, stream, row.file_id, row.page_size) as table:
            table.truncate(row.reach)
            table.apply(_runs(row.runs))
            table.sync()
    if rows:
        state.redo_done(stream)


def remove_tables(state: State, stream: bytes, file_ids: Iterable[int] | None = None) -> None:
    """Drop the tables of databases that are gone, or all of a stream's."""
    every = state.tables.glob(f"{stream.hex()}-*")
    with refusals(state.tables):
        for path in every if file_ids is None else [_path(state, stream, file_id) for file_id in file_ids]:
            path.unlink(missing_ok=True)


def _runs(raw: bytes) -> Iterable[tuple[int, bytes]]:
    at = 0
    while at < len(raw):
        first, count = _RUN.unpack_from(raw, at)
        at += _RUN.size
        yield first, raw[at : at + count * DIGEST_SIZE]
        at += count * DIGEST_SIZE


def _path(state: State, stream: bytes, file_id: int) -> Path:
    return state.tables / f"{stream.hex()}-{file_id}"
