"""What a drill finds in a database that is byte for byte what was captured.

DrillError
  CapturedDamaged     it was damaged when it was captured: the application's own database is
  CheckUnfinished     it could not be looked at to the end
"""

from __future__ import annotations

from chatkeep.config.errors import ChatkeepError


class DrillError(ChatkeepError):
    """A restored database that SQLite does not find whole. The backup is what was captured."""

    code = "drill-error"


class CapturedDamaged(DrillError):
    """SQLite finds it damaged. Parameters: path; problems, what SQLite says, bounded: its text is the database's."""

    code = "captured-damaged"


class CheckUnfinished(DrillError):
    """Parameters: path; reason: `time` or `memory` (more than a database of its size can need), `crashed` (SQLite gave
    up), `journal` (its journal names other files, and was not played back)."""

    code = "check-unfinished"
