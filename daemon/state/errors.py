"""Errors of this device's own records."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from chatkeep.config.errors import ChatkeepError, Disposition

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class StateError(ChatkeepError):
    """This device's own records: busy, damaged, or not of this vault."""

    code = "state"


class StateBusy(StateError):
    """Another process holds the state directory (params: path)."""

    code = "state-busy"
    disposition = Disposition.RETRY


class StateUnusable(StateError):
    """The system refuses the state directory (params: path, errno)."""

    code = "state-unusable"
    disposition = Disposition.NEEDS_USER


class StateDamaged(StateError):
    """The state database cannot be read (params: path, reason; for_good: what SQLite found is no longer a database)."""

    code = "state-damaged"
    disposition = Disposition.NEEDS_USER


class StateMovedAside(StateError):
    """The state database was damaged for good and has another name now (params: path, the new one)."""

    code = "state-moved-aside"
    disposition = Disposition.REBUILD


class StateLost(StateError):
    """This device has written a vault, and has no records of that (params: since, patience: seconds, until: when it
    sends everything again by itself, both ns). Its snapshots stand."""

    code = "state-lost"
    disposition = Disposition.NEEDS_USER


class StateRolledBack(StateError):
    """The records are older than what this device pruned, so nothing in them can be relied on (params as StateLost)."""

    code = "state-rolled-back"
    disposition = Disposition.NEEDS_USER


class StateCopied(StateError):
    """There is another copy of these records, or they are an older one of themselves (params: reason: `ahead`,
    `rival`, `machine`, `stranger`, `checkpoint`). Not in the way: what could fork begins anew."""

    code = "state-copied"
    disposition = Disposition.NEEDS_USER


class StateForeign(StateError):
    """The state belongs to another vault or device, or to a newer version (params: path, found, expected)."""

    code = "state-foreign"
    disposition = Disposition.NEEDS_USER


class StateFull(StateError):
    """The disk that holds the state has no room; nothing was committed (params: path)."""

    code = "state-full"
    disposition = Disposition.NEEDS_USER


class OutboxLost(StateError):
    """A committed object that no provider has is gone from the outbox (params: name)."""

    code = "outbox-lost"
    disposition = Disposition.REBUILD


@contextlib.contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turns what the system refuses below the state directory into StateFull or StateUnusable."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StateFull(path=str(path)) from error
        raise StateUnusable(path=str(path), errno=error.errno) from error
