"""What `status` still says while the configuration cannot be read: a daemon that runs goes on with the one before."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from chatkeep.config.places import default_file, default_state_dir
from chatkeep.daemon.cli import status_daemon
from chatkeep.daemon.cli.measures import age, printable
from chatkeep.daemon.cli.output import Output, fields
from chatkeep.daemon.cli.status_command import Screen

_LINE: Final = re.compile(r"^state_dir:[ \t]*([\"']?)(?P<path>[^\"'#\n]+?)\1[ \t]*(?:#.*)?$", re.MULTILINE)
_MOST: Final = 256 * 1024  # characters of the file that are looked at


def show(out: Output, file: Path | None) -> None:
    """What the daemon says of itself, if one runs."""
    screen = Screen(time.time_ns())
    found = status_daemon.look(screen, state_dir(file if file is not None else default_file()))
    if found is None and not screen.silent:
        return
    rows = [*screen.rows, *_rows(found or {}, screen.now)]
    lines = fields([(out.styled(label, "head"), text) for label, text in rows], indent=0)
    out.write("".join(f"{line}\n" for line in (*lines, "")))


def state_dir(file: Path) -> Path:
    """Where the records are, as far as a file says it that is wrong elsewhere; else where they usually are."""
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            found = _LINE.search(stream.read(_MOST))
    except OSError:
        found = None
    path = Path(found["path"].strip()).expanduser() if found is not None else None
    return path if path is not None and path.is_absolute() else default_state_dir()


def _rows(found: Mapping[str, Any], now: int) -> Iterator[tuple[str, str]]:
    sources, providers = status_daemon.sources(found, now), status_daemon.providers(found, now)
    for one in found.get("sources", ()):
        looked = "not looked at yet" if one["looked_ns"] is None else f"looked at {age(one['looked_ns'], now)}"
        yield printable(one["name"]), "\n".join([looked, *sources.get(one["name"], [])])
    for one in found.get("providers", ()):
        words = "has everything" if not one["waiting"] else "lacks something"
        yield printable(one["name"]), "\n".join([words, *providers.get(one["name"], [])])
