"""What is said about a key of the file besides its type."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final

from chatkeep.config.amounts import Duration, at_least
from chatkeep.config.problems import Reason

CREDENTIAL: Final = "credential:"
"""In front of the name of a systemd credential, in place of the path of a secret file."""

# What systemd takes as the name of a credential (systemd.exec(5)) and no path can be made of.
CREDENTIAL_NAME: Final = f"^{CREDENTIAL}(?!\\.)[A-Za-z0-9._-]{{1,200}}$"


@dataclass(frozen=True, slots=True)
class Key:
    """What is said about a field besides its type: its documentation, a value for the example, a rule for text."""

    doc: str
    example: str = ""
    pattern: str = ""
    refused: Reason = Reason.BAD_FORM  # the reason given when `pattern` does not match
    least: Duration = Duration(0)  # of a duration: 0 seconds, 1 second or 1 minute
    secret: bool = False  # of a path: the file holds a secret, and may be a credential of systemd as well
    secrets: str = ""  # of a mapping: the key of the file that its secret ones belong into

    def accepts(self, text: str) -> bool:
        """Whether a text obeys the rule of this key."""
        return not self.pattern or re.search(self.pattern, text) is not None

    @property
    def lasting(self) -> str:
        """The pattern of a duration that this key takes."""
        return at_least(self.least)


@dataclass(frozen=True, slots=True)
class Choose:
    """The keys of this field stand beside those of its owner; which ones they are, another key says."""

    by: str
    table: Mapping[str, type]


def unwrap(hint: Any) -> tuple[Any, Key | None]:
    """A type without its annotations and without None, which only says that the key may be left out; and its `Key` if
    it has one."""
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, Key):
            return _there(hint.__origin__), extra
    return _there(hint), None


def _there(hint: Any) -> Any:
    parts = typing.get_args(hint)
    rest = [part for part in parts if part is not NoneType]
    return rest[0] if len(rest) == 1 < len(parts) else hint
