"""One source: a backup of it, and how it ended on record."""

from __future__ import annotations

import time

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.config.model import Source
from chatkeep.daemon.backup.run import SourceResult, back_up
from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.service.engine.report import Captured, SourceReport
from chatkeep.daemon.state import StateDamaged


def capture(writer: Writer, source: Source, result: SourceResult | None = None) -> SourceReport:
    """Snapshots of a source until the vault has all of it; what goes wrong is in the report, and noted for `status`.

    `result`: what an earlier call had made, which `Captured` then counts too; `made` and `seconds` are of this one.

    Raises:
        StateDamaged: the records are damaged for good: nothing can be noted in them, they are to be moved aside.
        StateError: it cannot be noted how it ended.
    """
    begun = time.monotonic()
    before = writer.state.stream(source.name).seq
    captured, error = None, None
    try:
        result = back_up(writer, source, result)
        captured = Captured.of(result)
        writer.state.note_backup(source.name, writer.clock(), len(result.problems), None)
    except Cancelled:
        pass
    except ChatkeepError as exc:
        if isinstance(exc, StateDamaged) and exc.params.get("for_good"):
            raise
        error = exc
        writer.state.note_backup(source.name, writer.clock(), 0, exc.code)
    seconds = time.monotonic() - begun
    made = writer.state.stream(source.name).seq - before
    return SourceReport(source.name, captured, error, made, seconds)
