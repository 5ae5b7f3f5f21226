"""The unit of systemd that keeps the daemon running for one user: what is in the file, and whose file it is.

Pure, but for reading what is shipped.

The file says in its first line what was written into it, so that one that somebody changed is told from an older one
of ours, and left alone.
"""

from __future__ import annotations

import enum
import hashlib
import importlib.resources
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

UNIT: Final = "chatkeep.service"
PACKAGE: Final = "chatkeep.systemd"
NONE: Final = "#"  # no unit: what is there cannot be the same
_WRITABLE: Final = ("/media", "/mnt", "/run/media", "/srv")  # besides the home directory: as the unit has it
_MADE: Final = "# Written by chatkeep setup ({digest}). For changes of your own: systemctl --user edit chatkeep\n"
_FIRST_LINE: Final = re.compile(rb"# Written by chatkeep setup \(([0-9a-f]{16})\)[^\n]*\n")
_PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9_./:=@+,%$-]+", re.ASCII)


class Standing(enum.StrEnum):
    """What lies where the unit belongs."""

    ABSENT = "absent"
    SAME = "same"
    OLDER = "older"  # ours, as we wrote it
    EDITED = "edited"  # ours, changed by somebody
    FOREIGN = "foreign"


def shipped() -> str:
    """The unit as it comes with the program."""
    return importlib.resources.files(PACKAGE).joinpath(UNIT).read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class ForUser:
    """What a unit has to know of its user.

    Attributes:
        command: how `chatkeep` is started, the program by its absolute path. config: None for the usual file.
        writable: directories that it writes to beside those of which the unit knows.
        environment: variables that the service manager may not have.
    """

    command: Sequence[str]
    config: Path | None = None
    writable: Sequence[Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def rendered(unit: str, user: ForUser) -> str:
    """The unit for one user: the program in ExecStart= is his, and what he needs besides stands behind that line."""
    begin = " ".join(quoted(word) for word in user.command)
    end = "" if user.config is None else f" --config {quoted(str(user.config))}"
    lines = []
    for line in unit.splitlines():
        if not line.startswith("ExecStart="):
            lines.append(line)
            continue
        _, _, rest = line.removeprefix("ExecStart=").partition(" ")
        lines.append(f"ExecStart={begin} {rest.strip()}{end}")
        lines += [f"Environment={_in_quotes(f'{name}={value}')}" for name, value in user.environment.items()]
        # What is not there is passed over: a disk that is mounted later is seen then.
        lines += [f"ReadWritePaths={_in_quotes(f'-{path}')}" for path in user.writable]
    body = "\n".join(lines) + "\n"
    return _MADE.format(digest=_digest(body.encode())) + body


def out_of_reach(paths: Iterable[Path], home: Path) -> list[Path]:
    """Of directories that are written to, those which the unit as it is shipped may only read."""
    within = (home, *(Path(top) for top in _WRITABLE))
    return sorted({path for path in paths if not any(path.is_relative_to(top) for top in within)})


def quoted(word: str) -> str:
    """A word of a command line as systemd.service(5) reads it: nothing in it stands for anything else."""
    word = word.replace("$", "$$")
    return word.replace("%", "%%") if _PLAIN_WORD.fullmatch(word) else _in_quotes(word)


def _in_quotes(word: str) -> str:
    escaped = word.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def standing(there: bytes | None, wanted: str) -> Standing:
    """Whose file it is that lies there; None when there is none."""
    if there is None:
        return Standing.ABSENT
    if there == wanted.encode():
        return Standing.SAME
    first = _FIRST_LINE.match(there)
    if first is None:
        return Standing.FOREIGN
    return Standing.OLDER if _digest(there[first.end() :]) == first[1].decode() else Standing.EDITED


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]
