"""What the state database holds, as values. Everything that a vault format defines is opaque bytes here."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from chatkeep.daemon.state.known import KnownBlob

_STATISTICS: Final = struct.Struct(">7Q")


@dataclass(frozen=True, slots=True)
class StreamRow:
    """The chain of snapshots of one source. `seq` 0 and an empty `head`: no snapshot yet."""

    stream: bytes
    source: str
    seq: int
    head: bytes
    head_time: int
    next_file_id: int


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """A sealed object in the outbox; its file there is named by its hash.

    `proof`: what an unlock needs to prove its capsule (see capsules); empty: nothing is to be proven.
    """

    name: str
    sha256: bytes
    size: int
    is_manifest: bool
    proof: bytes = b""


@dataclass(frozen=True, slots=True)
class Queued:
    """An object that a provider still needs, with the place of its bytes."""

    name: str
    path: Path
    size: int
    sha256: bytes
    is_manifest: bool
    stream: bytes
    seq: int


@dataclass(frozen=True, slots=True)
class StackRow:
    """One layer of the newest stack. `parts` is where it is, `body` what it says (for folding while locked)."""

    level: int
    first_seq: int
    last_seq: int
    first_time: int
    last_time: int
    parts: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file as the newest snapshot has it. `content` is None when no content of it is in the vault."""

    file_id: int
    identity: bytes
    record: bytes
    content: bytes | None


@dataclass(frozen=True, slots=True)
class DatabaseRow:
    """A database's cursor. `digest` is None until its first consistent capture is committed."""

    file_id: int
    page_size: int
    page_count: int
    signature: bytes
    digest: bytes | None


@dataclass(frozen=True, slots=True)
class RunRow:
    """Pages sealed ahead of the consistent capture that will publish them."""

    file_id: int
    page_size: int
    pages: bytes
    pack: bytes
    slot: int
    blob: bytes


@dataclass(frozen=True, slots=True)
class RedoRow:
    """Digests of pages that a commit sealed: applied to the digest table after it, again after a crash.

    The table is cut to `reach` pages first. `runs` is u32 first page | u32 pages | 16 bytes for each, repeated.
    """

    file_id: int
    page_size: int
    reach: int
    runs: bytes


@dataclass(frozen=True, slots=True)
class PartialRow:
    """The sealed beginning of a file too large for one snapshot."""

    path: bytes
    identity: bytes
    content: bytes


class SnapshotStatistics(NamedTuple):
    """What a snapshot holds (numbers of files, bytes) and what it cost (bytes), as the rows of this device keep it."""

    files: int
    source_bytes: int
    pending: int
    busy: int
    bytes_read: int
    new_plaintext: int
    stored: int

    def encode(self) -> bytes:
        """Seven u64."""
        return _STATISTICS.pack(*self)

    @classmethod
    def decode(cls, raw: bytes) -> SnapshotStatistics:
        """The inverse of `encode`."""
        return cls(*_STATISTICS.unpack(raw))


class BackupNote(NamedTuple):
    """How the last backup of a source ended. Times in ns; `problems`: remarks about paths; `error`: code of what ended
    the last one, None after one that reached its end."""

    last_success: int | None
    problems: int
    error: str | None
    error_at: int | None


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """A snapshot this device made."""

    seq: int
    name: str
    time: int
    clock: int
    complete: bool
    statistics: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that makes one snapshot exist, applied in one transaction or not at all.

    `files` and `paths` are the changes; a None in `paths` removes the path. `stack` is the whole new stack, newest
    first. `published` names databases whose runs sealed ahead are now in a layer: their run rows go. `forgotten` are
    files that are gone, `demoted` databases that are ordinary files now. `reused`: known blobs that it refers to, which
    are taken.
    """

    stream: bytes
    source: str
    next_file_id: int
    snapshot: SnapshotRow
    head: bytes
    objects: Sequence[ObjectRow]
    stack: Sequence[StackRow]
    paths: Sequence[tuple[bytes, int | None]] = ()
    files: Sequence[FileRow] = ()
    databases: Sequence[DatabaseRow] = ()
    runs: Sequence[RunRow] = ()
    published: Sequence[int] = ()
    forgotten: Sequence[int] = ()
    demoted: Sequence[int] = ()
    redo: Sequence[RedoRow] = ()
    partials: Sequence[PartialRow] = ()
    finished_partials: Sequence[bytes] = field(default=())
    reused: Sequence[KnownBlob] = ()
