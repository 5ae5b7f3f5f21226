"""What is asked of the control socket, read strictly: a path as it is written, a body with the keys it has and no
others. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeVar

import msgspec

from chatkeep.daemon.control.errors import DaemonRefused

MOST_SOURCES: Final = 1000
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """No keys."""


class Backup(Nothing):
    """`sources`: their names; none: all."""

    sources: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=200)], ...], msgspec.Meta(max_length=MOST_SOURCES)
    ] = ()


class Lend(Nothing):
    """`command`: who borrows, as it is shown."""

    command: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z -]{0,39}$")]


Body = TypeVar("Body", bound=Nothing)


def read(raw: bytes, kind: type[Body]) -> Body:
    """A body of this kind; an empty one has no keys. Raises DaemonRefused."""
    try:
        value = msgspec.json.decode(raw or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise DaemonRefused(reason="body") from exc
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as exc:
        raise DaemonRefused(reason="keys") from exc


def match(pattern: str, path: str) -> dict[str, str] | None:
    """The names in a path, if it is one of this pattern: `/v1/jobs/{name}/run`. None: it is another."""
    wanted, given = pattern.split("/"), path.split("/")
    if len(wanted) != len(given):
        return None
    names = {}
    for one, other in zip(wanted, given, strict=True):
        if one.startswith("{"):
            if not _NAME.fullmatch(other):
                return None
            names[one.strip("{}")] = other
        elif one != other:
            return None
    return names
