"""What a backup did, as values: no words, and nothing that could not be sent to another process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from chatkeep.config.errors import ChatkeepError

if TYPE_CHECKING:
    from chatkeep.daemon.backup.databases import DatabaseProblem
    from chatkeep.daemon.backup.publish import Published
    from chatkeep.daemon.backup.run import SourceResult
    from chatkeep.daemon.capture.walk import Problem
    from chatkeep.daemon.sync.upload import UploadResult

KINDS = ("databases", "files", "attributes", "removed")


@dataclass(frozen=True)
class Made:
    """A snapshot: its number and id, when it was taken (UNIX ns), whether nothing is pending after it."""

    seq: int
    id: str
    clock: int
    complete: bool


@dataclass(frozen=True)
class Remark:
    """Why a path is not, or not as it is now, in the backup: a reason of the walk, with the errno if there is one, or
    an error."""

    path: bytes
    reason: str
    errno: int = 0
    error: ChatkeepError | None = None


@dataclass(frozen=True)
class Captured:
    """What was done of one source, in all its new snapshots together.

    Attributes:
        last_seq, newest: number of its newest snapshot, and that snapshot if it is new.
        snapshots: how many are new.
        changed: by kind (`KINDS`), how many files.
        new_bytes, stored_bytes: new content before compression; what was sealed of it, manifests too.
        read_bytes: read of the source.
        files, source_bytes: all there is of it.
        pending, busy: files that are not in the vault yet; of which an older version stands.
    """

    last_seq: int = 0
    newest: Made | None = None
    snapshots: int = 0
    changed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    new_bytes: int = 0
    stored_bytes: int = 0
    read_bytes: int = 0
    files: int = 0
    source_bytes: int = 0
    pending: int = 0
    busy: int = 0
    remarks: tuple[Remark, ...] = ()

    @classmethod
    def of(cls, result: SourceResult) -> Self:
        """From what the backup of the source returned."""
        made = result.snapshots
        return cls(
            result.last_seq,
            _made(made[-1]) if made else None,
            len(made),
            {kind: sum(getattr(one.changes, kind) for one in made) for kind in KINDS},
            sum(one.new_plaintext for one in made),
            sum(one.stored for one in made),
            result.bytes_read,
            result.files,
            result.source_bytes,
            result.pending,
            result.busy,
            tuple(_remark(problem) for problem in result.problems),
        )


@dataclass(frozen=True)
class SourceReport:
    """What became of one source: `made` snapshots, and either what was captured, an error, or neither when it was
    cancelled."""

    name: str
    captured: Captured | None
    error: ChatkeepError | None
    made: int
    seconds: float


@dataclass(frozen=True)
class ProviderReport:
    """What an upload did; `waiting`: objects and bytes that this provider still lacks."""

    name: str
    required: bool
    objects: int
    bytes: int
    problems: tuple[ChatkeepError, ...]
    waiting: tuple[int, int]
    seconds: float

    @classmethod
    def of(cls, result: UploadResult, *, required: bool, waiting: tuple[int, int], seconds: float) -> Self:
        """From what the upload returned."""
        return cls(result.provider, required, result.objects, result.bytes, result.problems, waiting, seconds)


@dataclass
class Report:
    """What a backup did. `renewed`: sources whose chain of snapshots could not go on and begins anew; `waiting`:
    objects and bytes in the outbox; `findings`: what is wrong with the vault's own records in storage; `epoch`: the one
    this device went on to now, None if it stayed; `notices`: what became of this device's own records."""

    sources: list[SourceReport] = field(default_factory=list)
    providers: list[ProviderReport] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    waiting: tuple[int, int] = (0, 0)
    cancelled: bool = False
    findings: list[ChatkeepError] = field(default_factory=list)
    epoch: int | None = None
    notices: list[ChatkeepError] = field(default_factory=list)


def _made(one: Published) -> Made:
    return Made(one.seq, one.name.rpartition("-")[2], one.clock, one.complete)


def _remark(problem: Problem | DatabaseProblem) -> Remark:
    error = getattr(problem, "error", None)
    if isinstance(error, ChatkeepError):
        return Remark(problem.path, error.code, error=error)
    reason = getattr(problem, "reason")  # noqa: B009  # the other of the two, which has it
    return Remark(problem.path, reason.value, getattr(problem, "errno", 0))
