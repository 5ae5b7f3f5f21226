"""From a file to a tree of YAML nodes with their places. Nothing is ever constructed from a tag.

Only the core schema of YAML 1.2 gives a plain word another type than text. With PyYAML's own rules `compression: off`
is a truth value and `12:30` the number 750.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any, ClassVar, Final

import yaml

from chatkeep.config.problems import ConfigInvalid, ConfigMissing, ConfigUnreadable, Problem, Reason

MAX_BYTES: Final = 256 * 1024  # a thousand sources fit; the pure Python parser stays below a few seconds
MAX_DEPTH: Final = 16  # the model needs 4; deeper input would end in a RecursionError

_TAG: Final = "tag:yaml.org,2002:"
TYPE_NULL: Final = _TAG + "null"
TYPES: Final = {
    _TAG + "str": "text",
    _TAG + "bool": "true or false",
    _TAG + "int": "number",
    _TAG + "float": "number",
    _TAG + "null": "nothing",
    _TAG + "seq": "list",
    _TAG + "map": "mapping",
}


class _Refused(Exception):
    """Carries a reason and a place out of PyYAML's recursion."""

    def __init__(self, reason: Reason, mark: Any) -> None:
        super().__init__()
        self.reason, self.mark = reason, mark


class _Loader(yaml.SafeLoader):
    """Composes nodes; knows YAML 1.2's core types; refuses aliases and deep nesting."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # the stubs call it an instance variable
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            # Aliases let ten lines describe a billion values; nothing in this file needs them.
            raise _Refused(Reason.ALIAS, event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise _Refused(Reason.TOO_DEEP, event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_RESOLVED: Final = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    ("float", r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$", "-+.0123456789"),
)
for _name, _pattern, _first in _RESOLVED:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), list(_first))


def read(file: Path) -> str:
    """The text of the file, at most `MAX_BYTES`.

    Raises ConfigMissing, ConfigUnreadable, or ConfigInvalid (too large, not UTF-8).
    """
    try:
        with open(file, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as exc:
        raise ConfigMissing(file=str(file)) from exc
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        number = exc.errno if isinstance(exc, OSError) and exc.errno is not None else errno.EINVAL
        raise ConfigUnreadable(file=str(file), cause=os.strerror(number)) from exc
    if len(raw) > MAX_BYTES:
        problem = Problem(str(file), None, None, "", Reason.TOO_LARGE, wanted=f"{MAX_BYTES // 1024} KiB")
        raise ConfigInvalid(file, [problem])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line, column = _place(raw[: exc.start].decode("utf-8", "replace"))
        problem = Problem(str(file), line, column, "", Reason.NOT_UTF8, found=f"0x{raw[exc.start]:02x}")
        raise ConfigInvalid(file, [problem]) from exc


def compose(text: str, file: Path) -> yaml.Node:
    """The tree of the one document in `text`.

    Raises ConfigInvalid with a single problem: what follows a syntax error means nothing.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except _Refused as exc:
        raise ConfigInvalid(file, [_at(file, exc.mark, exc.reason)]) from exc
    except yaml.MarkedYAMLError as exc:
        problem = _at(file, exc.problem_mark or exc.context_mark, Reason.SYNTAX, exc.problem or exc.context or "")
        raise ConfigInvalid(file, [problem]) from exc
    except yaml.reader.ReaderError as exc:
        line, column = _place(text[: exc.position])
        problem = Problem(str(file), line, column, "", Reason.SYNTAX, found=f"character {text[exc.position]!r}")
        raise ConfigInvalid(file, [problem]) from exc
    except (ValueError, OverflowError) as exc:  # an escape such as "\UFFFFFFFF" that is no character
        raise ConfigInvalid(file, [Problem(str(file), None, None, "", Reason.SYNTAX, found=str(exc))]) from exc
    if node is None:
        raise ConfigInvalid(file, [Problem(str(file), None, None, "", Reason.EMPTY)])
    return node


def _at(file: Path, mark: Any, reason: Reason, found: str = "") -> Problem:
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (None, None)
    return Problem(str(file), line, column, "", reason, found=found)


def _place(before: str) -> tuple[int, int]:
    """Line and column, from 1, of what follows a text."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
