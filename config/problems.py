"""What can be wrong with the configuration file.

ConfigError
  ConfigMissing      there is no such file
  ConfigUnreadable   it is there and cannot be read
  ConfigInvalid      it was read; `problems` holds everything that is wrong with it, not only the first
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
from collections.abc import Iterable
from pathlib import Path

from chatkeep.config.errors import ChatkeepError, Disposition


class Reason(enum.StrEnum):
    """Why a place in the file is refused. The words for each stand with the command line."""

    # the file as a whole
    TOO_LARGE = "too-large"
    NOT_UTF8 = "not-utf8"
    SYNTAX = "syntax"
    EMPTY = "empty"
    ALIAS = "alias"
    TOO_DEEP = "too-deep"
    # one value
    WRONG_TYPE = "wrong-type"
    UNKNOWN_KEY = "unknown-key"
    DUPLICATE_KEY = "duplicate-key"
    MISSING_KEY = "missing-key"
    NO_VALUE = "no-value"
    UNKNOWN_WORD = "unknown-word"
    BAD_TEXT = "bad-text"
    BAD_FORM = "bad-form"
    BAD_NAME = "bad-name"
    BAD_URL = "bad-url"
    TYPE_UNUSABLE = "type-unusable"
    SECRET_HERE = "secret-here"  # noqa: S105  # a reason
    BAD_SECRET_FILE = "bad-secret-file"  # noqa: S105  # a reason
    BAD_PATTERN = "bad-pattern"
    NOT_ABSOLUTE = "not-absolute"
    NO_HOME = "no-home"
    BAD_DURATION = "bad-duration"
    BAD_EVERY = "bad-every"
    ZERO_DURATION = "zero-duration"
    TOO_SHORT = "too-short"
    BAD_AMOUNT = "bad-amount"
    BAD_SIZE = "bad-size"
    BAD_SHARE = "bad-share"
    BAD_RATE = "bad-rate"
    BAD_TIME = "bad-time"
    BAD_AT_ONCE = "bad-at-once"
    # several values together
    DUPLICATE_NAME = "duplicate-name"
    SAME_DIRECTORY = "same-directory"
    SAME_STORAGE = "same-storage"
    NESTED_DIRECTORY = "nested-directory"
    STATE_IN_SOURCE = "state-in-source"
    STATE_IN_PROVIDER = "state-in-provider"
    PROVIDER_IN_SOURCE = "provider-in-source"
    SECRET_IN_PROVIDER = "secret-in-provider"  # noqa: S105  # a reason
    LONGER_THAN = "longer-than"
    ALARM_TOO_SOON = "alarm-too-soon"
    # the disk
    PATH_MISSING = "path-missing"
    PLACE_MISSING = "place-missing"  # of a provider, on a device whose vault is elsewhere too
    NOT_A_DIRECTORY = "not-a-directory"
    NOT_READABLE = "not-readable"
    NOT_WRITABLE = "not-writable"


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where. Everything is a plain value, for a person and for `--json`."""

    file: str
    line: int | None  # from 1; None when the whole file is meant
    column: int | None  # from 1
    key: str  # "sources[0].path"; empty for the whole file
    reason: Reason
    found: str = ""  # what stands there
    wanted: str = ""  # what is accepted, when that is short
    other: str = ""  # the key of the second value of a clash
    nearest: str = ""  # the right word that was probably meant

    def plain(self) -> dict[str, str | int | None]:
        """The same as a JSON object: reason as text, nothing left out."""
        return {**dataclasses.asdict(self), "reason": self.reason.value}


class ConfigError(ChatkeepError):
    """The configuration cannot be used until a person changes it."""

    code = "config"
    disposition = Disposition.NEEDS_USER


class ConfigMissing(ConfigError):
    """There is no configuration file. `file`: where it was looked for."""

    code = "config-missing"


class ConfigUnreadable(ConfigError):
    """The file exists and the system refuses to give it. `file`, and `cause` as the system says it."""

    code = "config-unreadable"


class ConfigInvalid(ConfigError):
    """The file is wrong in one or more places: all of them, in the order of the file."""

    code = "config-invalid"

    def __init__(self, file: Path, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.line or 0, p.column or 0, p.key)))
        super().__init__(file=str(file), problems=[problem.plain() for problem in self.problems])


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like this one, or nothing when none is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else ""
