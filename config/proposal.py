"""A configuration file, written for somebody. Pure; what is written loads as what was asked for."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_WIDTH: Final = 77  # shown indented by two, on a terminal of 80
# A word that YAML 1.2 and this file's loader take for text as it stands, whatever is around it.
_PLAIN: Final = re.compile(r"(?:~/|/|[A-Za-z])[A-Za-z0-9_./+@-]*(?: [A-Za-z0-9_./+@-]+)*", re.ASCII)
_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_HEAD: Final = """\
# The configuration of Chatkeep. Every key, explained: chatkeep config example
# After a change: chatkeep config check
"""


@dataclass(frozen=True, slots=True)
class ProposedSource:
    """A directory to be kept. `note`: what a person has to know about it."""

    name: str
    path: Path
    exclude: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class ProposedProvider:
    """A place to store the vault: its type, and the keys that this type needs. A path may be written with ~."""

    name: str
    type: str
    options: Mapping[str, str | bool | Path | Mapping[str, str]]


def text(sources: Sequence[ProposedSource], provider: ProposedProvider, home: Path, state_dir: Path | None) -> str:
    """The file. `home`: what `~` stands for. `state_dir`: None for the usual one."""
    lines = [_HEAD, "sources:"]
    for source in sources:
        lines += _source(source, home)
    lines += ["", "providers:", f"  - name: {scalar(provider.name)}", f"    type: {scalar(provider.type)}"]
    for key, value in provider.options.items():
        lines += _option(key, value, home)
    if state_dir is not None:
        lines += ["", f"state_dir: {scalar(short(state_dir, home))}"]
    return "\n".join(lines) + "\n"


def _option(key: str, value: str | bool | Path | Mapping[str, str], home: Path) -> Iterator[str]:
    match value:
        case bool():
            yield f"    {key}: {str(value).lower()}"
        case str():
            yield f"    {key}: {scalar(value)}"
        case Path():
            yield f"    {key}: {scalar(short(value, home))}"
        case _:
            yield f"    {key}:"
            yield from (f"      {scalar(name)}: {scalar(text)}" for name, text in value.items())


def _source(source: ProposedSource, home: Path) -> Iterator[str]:
    yield from (f"  # {line}" for line in textwrap.wrap(source.note, _WIDTH - 4))
    yield f"  - name: {scalar(source.name)}"
    yield f"    path: {scalar(short(source.path, home))}"
    if source.exclude:
        yield "    exclude:"
        yield from _patterns(source.exclude)


def _patterns(patterns: Iterable[str]) -> Iterator[str]:
    """Several on one line: thirty lines of caches would hide the four that matter."""
    # In quotes, all of them: most would be something else in YAML, and a list of which half is quoted reads badly.
    line = "      ["
    for pattern in patterns:
        word = f"{_quoted(pattern)},"
        if len(line) + len(word) > _WIDTH:
            yield line.rstrip()
            line = "       "
        line += f"{word} "
    yield line.rstrip(" ,") + "]"


def short(path: Path, home: Path) -> str:
    """A path as people write it: with ~ for the home directory."""
    try:
        below = path.relative_to(home)
    except ValueError:
        return str(path)
    return f"~/{below}" if below.parts else "~"


def scalar(value: str) -> str:
    """Text as a YAML value, in quotes where it needs them."""
    return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else _quoted(value)


def _quoted(value: str) -> str:
    # JSON's strings are YAML's, as long as what lies beyond 16 bits is not written as two escapes.
    return json.dumps(value, ensure_ascii=False)
