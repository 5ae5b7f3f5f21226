"""What goes over the control socket: paths, keys, shapes, errors, as docs/control.md has them. Pure, and quick to
import: `status` needs it.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control.errors import ControlError

VERSION: Final = "1"
"""Of all of this. It is in every path and in every answer; another one is another language."""

HEADER: Final = "Chatkeep-Control"
"""The field of every answer that names the version."""

HOST: Final = "chatkeep"
"""What every request names as its host: no page of a browser can."""

JSON: Final = "application/json"
LINES: Final = "application/x-ndjson"
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"  # what Prometheus calls its text format

BODY_LIMIT: Final = 16 * 1024
ALIVE_SECONDS: Final = 5.0
"""A stream says at least this often that it goes on."""


class Route(NamedTuple):
    """One thing that can be asked. `keys`: of its body; `streams`: answered line by line, until one of `ENDS`."""

    method: str
    path: str
    keys: tuple[str, ...] = ()
    streams: bool = False


STATUS: Final = Route("GET", "/v1/status")
EVENTS: Final = Route("GET", "/v1/events", streams=True)
METRICS: Final = Route("GET", "/v1/metrics")
BACKUP: Final = Route("POST", "/v1/backup", ("sources",), streams=True)
SESSION: Final = Route("POST", "/v1/session")
LOCK: Final = Route("POST", "/v1/lock")
RUN_JOB: Final = Route("POST", "/v1/jobs/{name}/run")
RELOAD: Final = Route("POST", "/v1/reload")
LEND: Final = Route("POST", "/v1/lend", ("command",), streams=True)
ROUTES: Final = (STATUS, EVENTS, METRICS, BACKUP, SESSION, LOCK, RUN_JOB, RELOAD, LEND)


class Line(enum.StrEnum):
    """What a line of a stream is, in its `line`."""

    ALIVE = "alive"  # nothing new, and it goes on
    EVENT = "event"  # `event`: as `Event.plain` has it
    DROPPED = "dropped"  # `count`: events before this line that the reader was too slow for
    PROGRESS = "progress"  # `what`, `done`, `total`
    RESULT = "result"  # `report`; the last line
    LENT = "lent"  # the state directory is the command's until it closes the connection
    ERROR = "error"  # `error`: code, params; the last line
    END = "end"  # the daemon ends, and with it the stream; the last line


ENDS: Final = frozenset({Line.RESULT, Line.ERROR, Line.END})

REASONS: Final[Mapping[str, int]] = {
    "path": 404,
    "method": 405,
    "host": 421,
    "type": 415,
    "size": 413,
    "body": 400,
    "keys": 400,
    "busy": 503,
    "slow": 504,
}
"""Why a request is refused before the daemon is asked (error `daemon-refused`), and the status of the answer."""


class Remembered(ControlError):
    """An error of the daemon, where it was told. It has the code of the one that was raised there."""


def fault(error: ChatkeepError) -> dict[str, Any]:
    """An error, as it goes over the socket: code and parameters, without words."""
    return {"code": error.code, "params": plain(error.params)}


def revived(value: object) -> ChatkeepError:
    """The error that was told. Of what is no error of this form: the root of all."""
    code = value.get("code") if isinstance(value, Mapping) else None
    params = value.get("params") if isinstance(value, Mapping) else None
    if not isinstance(code, str) or not isinstance(params, Mapping):
        return Remembered()
    # A class of its own, since codes are of classes: what tells an error looks there. It is of no module of ours.
    error = type("Told", (Remembered,), {"code": code, "__module__": "told"})(
        **{str(name): one for name, one in params.items()}
    )
    assert isinstance(error, ChatkeepError)
    return error


def plain(value: object) -> Any:
    """Values as JSON has them: dataclasses and mappings as objects, names and paths as text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes | os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, ChatkeepError):
        return fault(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    return str(value)


def socket_name(state_dir: Path) -> str:
    """The name of the socket of the daemon that has this state directory: as many may run as there are such."""
    # By what it is, not how it was written: two spellings must not have two daemons look past each other.
    return f"control-{hashlib.sha256(os.fsencode(os.path.realpath(state_dir))).hexdigest()[:16]}.sock"
