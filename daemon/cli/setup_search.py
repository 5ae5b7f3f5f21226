"""Looking for chat applications on this machine: only where they are known to be, and only at names and sizes.

No file is opened, no link is followed out of the directories that belong to the user, and each look has a bound: a
person waits for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import platformdirs

from chatkeep.config.applications import APPLICATIONS, Application, Base, Place, known_as, recognised, worth_listing
from chatkeep.daemon.capture.exclude import Exclusions

MOST_LISTED: Final = 20_000  # entries looked at to tell what a directory is; downloads can be many
MOST_COUNTED: Final = 500_000  # entries added up for a size
MOST_SECONDS: Final = 3.0  # for one size


@dataclass(frozen=True, slots=True)
class Amount:
    """What a directory holds without what is left out. `whole`: everything was counted, and could be."""

    files: int
    bytes: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """A directory, and the application whose it is; None for one that only the person knows."""

    path: Path
    application: Application | None
    place: Place | None = None

    @property
    def exclude(self) -> tuple[str, ...]:
        """What is left out of it."""
        return self.application.exclude if self.application is not None else ()


def bases() -> dict[Base, Path]:
    """The directories from which places are counted, as they are for this user."""
    home = Path.home()
    found = {
        Base.HOME: home,
        Base.CONFIG: platformdirs.user_config_path(),
        Base.DATA: platformdirs.user_data_path(),
        Base.DOWNLOADS: platformdirs.user_downloads_path(),
        Base.DOCUMENTS: platformdirs.user_documents_path(),
    }
    usual = {Base.CONFIG: ".config", Base.DATA: ".local/share"}
    # A relative path in these variables is to be ignored: the XDG base directory specification.
    return {base: path if path.is_absolute() else home / usual.get(base, "") for base, path in found.items()}


def find(where: Mapping[Base, Path]) -> list[Finding]:
    """Every application that is there for certain, each directory once, in the order of the table."""
    own = [os.path.realpath(path) for path in where.values()]
    found: list[Finding] = []
    seen: set[str] = set()
    for application in APPLICATIONS:
        for place in application.places:
            for path in _candidates(where[place.base], place.path):
                real = os.path.realpath(path)
                if real in seen or not any(_below(real, top) for top in own) or not str(path).isprintable():
                    continue  # a name that cannot stand in the configuration must not keep the others out of it
                if recognised(application, listing(path, [application])):
                    seen.add(real)
                    found.append(Finding(path, application, place))
    return found


def look_at(path: Path) -> Finding:
    """A directory that a person named: an application's, wherever it stands, or just a directory."""
    return Finding(path, known_as(listing(path, APPLICATIONS)))


def listing(top: Path, applications: Sequence[Application]) -> dict[str, bool]:
    """What is in a directory as far as it tells what it is: path > whether it is a directory. Links are left out."""
    found: dict[str, bool] = {}
    pending = [""]
    while pending and len(found) < MOST_LISTED:
        inside = pending.pop()
        for entry in _entries(os.path.join(top, inside)):
            directory = entry.is_dir(follow_symlinks=False)
            if not directory and not entry.is_file(follow_symlinks=False):
                continue
            name = f"{inside}/{entry.name}" if inside else entry.name
            found[name] = directory
            if directory and worth_listing(applications, name):
                pending.append(name)
            if len(found) >= MOST_LISTED:
                break
    return found


def amount(top: Path, exclude: Sequence[str], *, seconds: float = MOST_SECONDS, most: int = MOST_COUNTED) -> Amount:
    """How much a directory holds, counted for so long and so far at most."""
    until = time.monotonic() + seconds
    left_out = Exclusions(exclude)
    files = size = seen = 0
    whole = True
    pending = [b""]
    while pending:
        inside = pending.pop()
        try:
            entries = os.scandir(os.path.join(os.fsencode(top), inside))
        except OSError:
            whole = False
            continue
        with entries:
            for entry in entries:
                seen += 1
                if seen > most or time.monotonic() > until:
                    return Amount(files, size, whole=False)
                path = os.path.join(inside, entry.name)
                directory = entry.is_dir(follow_symlinks=False)
                if left_out.match(path, directory):
                    continue
                if directory:
                    pending.append(path)
                elif entry.is_file(follow_symlinks=False):
                    files += 1
                    size += _size(entry)
    return Amount(files, size, whole)


def _size(entry: os.DirEntry[bytes]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:  # gone since
        return 0


def _candidates(base: Path, pattern: str) -> Iterator[Path]:
    parent, _, last = pattern.rpartition("/")
    if "*" not in last:
        path = base / pattern
        if path.is_dir() and not path.is_symlink():
            yield path
        return
    names = sorted(
        entry.name
        for entry in _entries(os.path.join(base, parent))
        if fnmatchcase(entry.name, last) and entry.is_dir(follow_symlinks=False)
    )
    yield from (base / parent / name for name in names)


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    """At most so many entries; none of a directory that cannot be listed."""
    try:
        with os.scandir(directory) as entries:
            for _, entry in zip(range(MOST_LISTED), entries, strict=False):
                yield entry
    except OSError:
        return


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")
