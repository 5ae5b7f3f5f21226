"""What the disk says about a configuration: the half of the judgement that can change without the file changing."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chatkeep.config.model import Config, FolderOptions
from chatkeep.config.problems import ConfigInvalid, Problem, Reason, nearest
from chatkeep.config.relations import Clash, clashes

_NEIGHBOURS: Final = 2000  # names looked at to find the one that was meant; a mail folder can hold a million


def check_paths(config: Config) -> None:
    """Raises ConfigInvalid when a directory is missing, unusable, or another one's in disguise (a symbolic link).

    Nothing is created or written. A state directory that does not exist yet is right when it could be made.
    """
    problems = [_problem(config, clash) for clash in _findings(config)]
    if problems:
        raise ConfigInvalid(config.origin.file, problems)


def _findings(config: Config) -> Iterator[Clash]:
    sources = [(f"sources[{i}]", source) for i, source in enumerate(config.sources)]
    providers = [(f"providers[{i}]", provider) for i, provider in enumerate(config.providers)]
    for key, source in sources:
        yield from _directory(f"{key}.path", source.path, os.R_OK | os.X_OK)
    for key, provider in providers:
        if isinstance(provider.options, FolderOptions):
            yield from _directory(f"{key}.path", provider.options.path, os.R_OK | os.W_OK | os.X_OK)
    state = next(path for path in (config.state_dir, *config.state_dir.parents) if _there(path))
    yield from _directory("state_dir", state, os.W_OK | os.X_OK)
    yield from clashes(sources, providers, config.state_dir, _resolve)
    yield from _same_inode([(f"{key}.path", source.path) for key, source in sources])


def _directory(key: str, path: Path, access: int) -> Iterator[Clash]:
    if not _there(path):
        yield Clash(Reason.PATH_MISSING, key, str(path))
    elif not os.path.isdir(path):
        yield Clash(Reason.NOT_A_DIRECTORY, key, str(path))
    elif not os.access(path, access & ~os.W_OK):
        yield Clash(Reason.NOT_READABLE, key, str(path))
    elif not os.access(path, access):
        yield Clash(Reason.NOT_WRITABLE, key, str(path))


def _same_inode(places: list[tuple[str, Path]]) -> Iterator[Clash]:
    """Directories that are one although their real paths differ: bind mounts."""
    first: dict[tuple[int, int], tuple[str, Path]] = {}
    for key, path in places:
        try:
            found = os.stat(path)
        except OSError:
            continue  # reported as missing
        other, other_path = first.setdefault((found.st_dev, found.st_ino), (key, path))
        if other != key and _resolve(path) != _resolve(other_path):
            yield Clash(Reason.SAME_DIRECTORY, key, str(path), other)


def _problem(config: Config, clash: Clash) -> Problem:
    line, column = config.origin.mark(clash.key)
    meant = _neighbour(Path(clash.found)) if clash.reason is Reason.PATH_MISSING else ""
    return Problem(
        str(config.origin.file), line, column, clash.key, clash.reason, clash.found, other=clash.other, nearest=meant
    )


def _neighbour(path: Path) -> str:
    """The existing path most like a missing one: the same parent, another spelling."""
    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in itertools.islice(entries, _NEIGHBOURS) if entry.is_dir()]
    except OSError:
        return ""
    close = nearest(path.name, names)
    return str(path.parent / close) if close else ""


def _there(path: Path) -> bool:
    """Whether something stands at a path. A parent that may not be entered counts as nothing there."""
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def _resolve(path: Path) -> Path:
    return Path(os.path.realpath(path))
