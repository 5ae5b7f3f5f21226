"""Exclude patterns: globs on paths relative to the source. Pure.

    *     any bytes within one component          **    as a whole component: any number of components
    ?     one character within one component      a/    a directory only

A pattern is anchored at the source: `*.tmp` is about the top only, `**/*.tmp` about every level. A directory that
matches takes everything below it with it; `cache/**` leaves the directory itself. Everything else stands for itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

# One UTF-8 character, or one byte that is not part of any: names are bytes, but people count characters.
_CHARACTER = rb"(?:[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}|[^/])"
_TOKEN = re.compile(rb"\*+|\?|[^*?]+")


class Exclusions:
    """Compiled patterns; false when there are none, so that a walk can leave the question out."""

    def __init__(self, patterns: Iterable[str | bytes] = ()) -> None:
        either: list[bytes] = []
        directories: list[bytes] = []
        for pattern in map(os.fsencode, patterns):
            bare = pattern.strip(b"/")
            if bare:
                (directories if pattern.endswith(b"/") else either).append(_expression(bare))
        self._file = _alternatives(either)
        self._directory = _alternatives(either + directories)

    def __bool__(self) -> bool:
        return self._directory is not None

    def match(self, path: bytes, directory: bool) -> bool:
        """Whether the entry itself is excluded. The caller does not ask about what lies below an excluded directory."""
        expression = self._directory if directory else self._file
        return expression is not None and expression.fullmatch(path) is not None


def _expression(pattern: bytes) -> bytes:
    *inner, last = pattern.split(b"/")
    # A `**` before a slash may be no component at all, so it brings its slash with it; at the end it needs at least
    # one.
    parts = [rb"(?:[^/]+/)*" if part == b"**" else _component(part) + b"/" for part in inner]
    return b"".join(parts) + (rb".+" if last == b"**" else _component(last))


def _component(part: bytes) -> bytes:
    tokens: list[bytes] = _TOKEN.findall(part)
    return b"".join(rb"[^/]*" if t[:1] == b"*" else _CHARACTER if t == b"?" else re.escape(t) for t in tokens)


def _alternatives(expressions: list[bytes]) -> re.Pattern[bytes] | None:
    if not expressions:
        return None
    # DOTALL: a name may hold a newline
    return re.compile(b"|".join(b"(?:%s)" % one for one in expressions), re.DOTALL)
