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
    """The state database cannot be read (params: path, reason)."""

    code = "state-damaged"
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
