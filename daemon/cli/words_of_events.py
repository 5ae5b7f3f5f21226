"""What happens in the daemon, in words: for `status --watch`, and for its log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from chatkeep.daemon.cli.measures import printable, size
from chatkeep.daemon.cli.telling import tell_code
from chatkeep.daemon.cli.words_of_problems import problem_words
from chatkeep.daemon.service.events import Kind

EVENTS: Final[Mapping[Kind, str]] = {
    Kind.STARTED: "Chatkeep {version} runs.",
    Kind.STOPPING: "It ends ({reason}).",
    Kind.RELOADED: "The configuration was read again.",
    Kind.RELOAD_REFUSED: "The new configuration is refused; the one before goes on. {error}",
    Kind.SNAPSHOT_BEGUN: "{source}: looking for changes.",
    Kind.SNAPSHOT_MADE: "{source}: snapshot {snapshot}, {bytes} sealed.",
    Kind.SNAPSHOT_NOTHING: "{source}: nothing had changed.",
    Kind.SNAPSHOT_FAILED: "{source}: not backed up. {error}",
    Kind.UPLOAD_BEGUN: "{provider}: sending {waiting}.",
    Kind.UPLOAD_PROGRESS: "{provider}: {done} of {total} sent.",
    Kind.UPLOAD_DONE: "{provider}: {bytes} sent; {waiting} still wait.",
    Kind.UPLOAD_FAILED: "{provider}: the upload failed. {error}",
    Kind.PROVIDER_BACK: "{provider}: uploads get through again.",
    Kind.LEFT_BEHIND: "{provider}: not waited for any more. It is brought up from another provider when it is back.",
    Kind.CAUGHT_UP: "{provider}: brought up; it gets every upload again.",
    Kind.HELD: "Uploads wait until the vault is unlocked: chatkeep unlock",
    Kind.UNLOCKED: "The vault is unlocked.",
    Kind.LOCKED: "The vault is locked ({reason}).",
    Kind.SUSPENDED: "The machine goes to sleep.",
    Kind.RESUMED: "The machine woke up; everything is compared.",
    Kind.JOB_BEGUN: "{job}: begun.",
    Kind.JOB_DONE: "{job}: done.",
    Kind.JOB_FAILED: "{job}: failed. {error}",
    Kind.WATCH_DEGRADED: "{source}: changes cannot be watched ({reason}); it is looked at from time to time.",
    Kind.WATCH_RESTORED: "{source}: changes are watched again.",
    Kind.OVERFLOW: "More changed at once than the system tells; everything is compared.",
    Kind.OUTBOX_FULL: "{waiting} wait to be uploaded: nothing more is backed up until some of it is sent.",
    Kind.OUTBOX_FREED: "There is room again: backups go on.",
    Kind.PROBLEM: "Needs you: {phrase}",
    Kind.PROBLEM_OVER: "It is over: {phrase}",
    Kind.COMMAND_ENDED: "The program that is told of problems ended ({status}).",
    Kind.SENT_IN_CLEAR: "What is told to {channel} can be read on the way: its address is no https.",
    Kind.LIBRARY: "{library} complains.",
    Kind.LISTENER_LOST: "{listener} failed and hears no more.",
}
"""One sentence each. `{error}`: the words for its code. `{phrase}`: those for the problem."""

_SIZES: Final = frozenset({"bytes", "waiting", "done", "total", "limit"})


class _Values(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


def said(kind: str, values: Mapping[str, Any]) -> str:
    """An event in words; of a kind from another version, its name."""
    try:
        text = EVENTS[Kind(kind)]
    except (KeyError, ValueError):
        return printable(kind)
    shown = _Values({name: _shown(name, value) for name, value in values.items()})
    if "{error}" in text:
        shown["error"] = _error(values, name_provider="{provider}" not in text)
    if "{phrase}" in text:
        shown["phrase"] = _phrase(values, over=kind == Kind.PROBLEM_OVER)
    return text.format_map(shown).rstrip()


def _error(values: Mapping[str, Any], *, name_provider: bool) -> str:
    params = {name: value for name, value in values.items() if name not in {"code", "disposition"}}
    code = str(values.get("code", ""))
    text = tell_code(code, name_provider=name_provider, **params).text
    if "?" in text:  # a path is in no event, so a sentence that names one would have a gap
        text = tell_code(code, name_provider=name_provider, **{"path": "its path", **params}).text
    return text if "?" not in text else ""


def _phrase(values: Mapping[str, Any], *, over: bool) -> str:
    since = values.get("since_ns")
    told = problem_words(
        str(values.get("problem", "")),
        str(values.get("subject", "")),
        since if isinstance(since, int) else time.time_ns(),
        values,
        over=over,
    )
    return told.title if over else " ".join(f"{told.title}. {told.text} {told.remedy}".split())


def _shown(name: str, value: Any) -> str:
    if name in _SIZES and isinstance(value, int):
        return size(value)
    return printable(str(value).replace("-", " ") if name in {"reason", "problem"} else str(value))
