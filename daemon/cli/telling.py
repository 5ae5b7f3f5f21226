"""From an error to what is said about it. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.problems import ConfigInvalid, Problem
from chatkeep.daemon.cli import words_of_setup
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.words import WORDS
from chatkeep.daemon.cli.words_of_cases import CASES, MORE, PROBLEMS

PROPOSED: Final = "proposed"  # a parameter: it is about storage that no configuration names yet
MOST_SLOTS: Final = 8  # shown of those that are damaged: whoever writes to storage can plant as many as he likes


class Told(NamedTuple):
    """An error in words, ready for a person or for `--json`."""

    code: str
    text: str
    remedy: str
    exit: Exit
    params: Mapping[str, object]


class _Values(dict[str, str]):
    """Parameters in words. One that is missing shows as a question mark: an error must never hide behind another."""

    def __missing__(self, key: str) -> str:
        return "?"


def tell(error: ChatkeepError, *, name_provider: bool = True) -> Told:
    """The words for an error: those of its code and reason, else of its code, else of the branch it belongs to.

    `name_provider`: begin with the provider's name; not where it stands beside.
    """
    codes = (getattr(cls, "code", "") for cls in type(error).__mro__)
    words = CASES.get((error.code, str(error.params.get("reason")))) or next(
        WORDS[code] for code in codes if code in WORDS
    )
    values = _Values({name: _said(name, value) for name, value in error.params.items()})
    text = words.text
    for name in {"errno", "path"} - values.keys():
        # What the system said, and where, is not always on record; the sentence ends before it then.
        text = text.replace(f": {{{name}}}", "")
    text = text.format_map(values)
    said = words.remedy
    if error.params.get(PROPOSED):
        said = words_of_setup.remedy(error.code, str(error.params.get("reason")), said)
    remedy = said.format_map(values)
    for name, more in MORE.items():
        if error.params.get(name):
            text += f" {more.text.format_map(values)}"
            remedy = "\n".join(filter(None, (remedy, more.remedy.format_map(values))))
    if isinstance(error, ConfigInvalid):
        text = "\n".join([text, *(problem_line(problem) for problem in error.problems)])
    elif name_provider and (where := error.params.get("provider")):
        text = f"{_said('provider', where)}: {text}"
    if text.endswith(":"):  # what should follow was not remembered
        text = f"{text[:-1]}."
    return Told(error.code, text, remedy, words.exit, error.params)


def tell_code(code: str, *, name_provider: bool = True, **params: object) -> Told:
    """The words for a code that was remembered, with as many parameters as are known now."""
    error = type("Remembered", (ChatkeepError,), {"code": code if code in WORDS else ChatkeepError.code})(**params)
    return tell(error, name_provider=name_provider)._replace(code=code)


def plain_error(error: ChatkeepError) -> dict[str, object]:
    """An error as --json has it."""
    told = tell(error)
    return {"code": told.code, "text": told.text, "remedy": told.remedy, "params": told.params}


def problem_line(problem: Problem) -> str:
    """One problem of the configuration as compilers write it: `file:line:column: key: reason`."""
    place = ":".join(str(part) for part in (problem.file, problem.line, problem.column) if part is not None)
    values = {name: printable(str(value)) for name, value in problem.plain().items()}
    reason = PROBLEMS[problem.reason].format_map(values)
    meant = f"; did you mean '{printable(problem.nearest)}'?" if problem.nearest else ""
    return f"{printable(place)}: " + (f"{printable(problem.key)}: " if problem.key else "") + reason + meant


def _said(name: str, value: Any) -> str:
    if name == "errno" and isinstance(value, int):
        return os.strerror(value)
    if name in {"reason", "what"} and isinstance(value, str):
        return printable(value.replace("-", " "))
    if name == "damaged_slots" and isinstance(value, list):
        shown = [str(slot)[:8] for slot in value[:MOST_SLOTS]]  # as `key list` shows them
        value = [*shown, *([f"and {len(value) - MOST_SLOTS} more"] if len(value) > MOST_SLOTS else [])]
    if isinstance(value, list | tuple):
        return ", ".join(_said("", item) for item in value)
    return printable(value if isinstance(value, bytes) else str(value))
