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
from collections.abc import Sequence
from pathlib import Path
from typing import Final

UNIT: Final = "chatkeep.service"
PACKAGE: Final = "chatkeep.systemd"
NONE: Final = "#"  # no unit: what is there cannot be the same
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


def rendered(unit: str, command: Sequence[str], config: Path | None) -> str:
    """The unit for one user. `command`: how `chatkeep` is started, absolute. `config`: None for the usual file.

    Of every line ExecStart= the first word is replaced, and the configuration is added behind the last.
    """
    begin = " ".join(quoted(word) for word in command)
    end = "" if config is None else f" --config {quoted(str(config))}"
    lines = []
    for line in unit.splitlines():
        if line.startswith("ExecStart="):
            _, _, rest = line.removeprefix("ExecStart=").partition(" ")
            line = f"ExecStart={begin} {rest.strip()}{end}"
        lines.append(line)
    body = "\n".join(lines) + "\n"
    return _MADE.format(digest=_digest(body.encode())) + body


def quoted(word: str) -> str:
    """A word of a command line as systemd.service(5) reads it: nothing in it stands for anything else."""
    word = word.replace("%", "%%").replace("$", "$$")
    if _PLAIN_WORD.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
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
