"""What setup shows: what it would do, what it did, and what to do next. Pure, but for the paths it names."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from chatkeep.config import proposal
from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli import setup_draft
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.measures import printable, size
from chatkeep.daemon.cli.output import WIDTH, Output, fields, paragraph
from chatkeep.daemon.cli.provider_places import place
from chatkeep.daemon.cli.setup_draft import Candidate
from chatkeep.daemon.cli.setup_plan import Name, State, Step, Why
from chatkeep.daemon.cli.telling import plain_error, tell

if TYPE_CHECKING:
    from chatkeep.config.model import Config
    from chatkeep.daemon.cli.setup_work import Work

_LABELS: Final = {
    Name.CONFIGURATION: "configuration",
    Name.VAULT: "vault",
    Name.SNAPSHOT: "first snapshot",
    Name.SERVICE: "service",
}
_PLANNED: Final = {
    (Name.CONFIGURATION, None): "is written to {file}",
    (Name.CONFIGURATION, Why.REPLACED): "is written anew to {file}; the old one is kept beside it",
    (Name.VAULT, None): "is made, with a recovery key for you to keep, and a passkey if you like",
    (Name.SNAPSHOT, None): "is taken now{size}, and can be interrupted",
    (Name.SERVICE, None): "is installed, and backs up by itself from then on",
    (Name.SERVICE, Why.REPLACED): "is brought up to date, and backs up by itself from then on",
    (Name.SERVICE, Why.EDITED): "is started with the unit that you changed",
}
_ALREADY: Final = {
    Name.CONFIGURATION: "is there: {file}",
    Name.VAULT: "is made",
    Name.SNAPSHOT: "was taken",
    Name.SERVICE: "runs, and starts at every login",
}
_DONE: Final = {
    Name.CONFIGURATION: "written to {file}",
    Name.VAULT: "made",
    Name.SNAPSHOT: "taken",
    Name.SERVICE: "runs, and starts at every login",
}
_REASONS: Final = {
    Why.NOT_WANTED: "left out, as you asked",
    Why.NO_MANAGER: "not here: there is no systemd of this user",
    Why.NOT_OURS: "left alone: a unit of that name is there which setup did not write",
}
_ENDED: Final = {State.FAILED: "not done", State.CANCELLED: "interrupted", State.TO_DO: "still to be done"}


@dataclass(frozen=True, slots=True)
class Shown:
    """What setup is about. `text`: the configuration to be written, None when there is one; `seen`: the applications
    that were found."""

    config: Config
    file: Path
    text: str | None
    seen: Sequence[Candidate]

    def keeps(self, one: Candidate) -> bool:
        """Whether the configuration keeps what was found, by itself or with what is around it."""
        tops = [os.path.realpath(source.path) for source in self.config.sources]
        found = os.path.realpath(one.finding.path)
        return any(found == top or found.startswith(top.rstrip("/") + "/") for top in tops)


def planned(shown: Shown, steps: Sequence[Step]) -> dict[str, Any]:
    """A plan, for --json."""
    return {**_about(shown), "dry_run": True, "steps": [_step(step) for step in steps]}


def value(shown: Shown, work: Work) -> dict[str, Any]:
    """What was done, for --json."""
    return {
        **_about(shown),
        "dry_run": False,
        "steps": [_step(step) for step in work.steps],
        "old_configuration": work.kept_old,
        "init": work.values.get(Name.VAULT),
        "backup": work.values.get(Name.SNAPSHOT),
        "service": work.values.get(Name.SERVICE),
        "error": _error(work.error),
        "next": [{"command": command, "why": why} for command, why in following(shown, work)],
    }


def plan_lines(out: Output, shown: Shown, steps: Sequence[Step]) -> Iterator[str]:
    """A plan, for a person: the configuration word for word, then the steps."""
    if shown.text is not None:
        yield ""
        yield out.remark(f"The configuration, {_path(shown.file)}:", "head")
        yield ""
        yield from (f"  {printable(line)}".rstrip() for line in shown.text.rstrip("\n").split("\n"))
    yield ""
    done = all(step.state is not State.TO_DO for step in steps)
    yield out.remark("There is nothing left to set up." if done else "What will be done:", "head")
    yield ""
    yield from fields([(_LABELS[step.name], _wrapped(_words(shown, step, _PLANNED_WORDS))) for step in steps])
    yield from _not_kept(out, shown)


def lines(out: Output, shown: Shown, work: Work) -> Iterator[str]:
    """What was done, for a person, and what to do next."""
    yield ""
    if work.error is not None:
        yield out.styled("Setup is not finished.", "bad")
    elif work.exit() is not Exit.DONE:
        yield out.styled("Everything is set up, but for what is told above.", "warn")
    else:
        yield out.styled("Everything is set up.", "head")
    yield ""
    rows = [(_LABELS[step.name], _wrapped(_words(shown, step, _DONE_WORDS))) for step in work.steps]
    if work.kept_old is not None:
        rows.insert(1, ("", f"the old one is {_path(work.kept_old)}"))
    rows.append(("keeps", _wrapped(", ".join(printable(source.name) for source in shown.config.sources))))
    rows.append(("stored in", "\n".join(_stores(shown.config))))
    if titles := _with_notes(shown):
        rows.append(("to know", _wrapped(f"{titles}: what a restore needs besides stands in the configuration")))
    yield from fields(rows)
    if work.error is not None:
        yield ""
        yield from _told(out, work.error)
    yield from _not_kept(out, shown)
    yield ""
    yield out.styled("What to do next", "head")
    yield ""
    for command, why in following(shown, work):
        yield f"  {out.styled(command, 'head')}"
        yield from textwrap.wrap(why, WIDTH, initial_indent="      ", subsequent_indent="      ")


def following(shown: Shown, work: Work) -> Iterator[tuple[str, str]]:
    """Commands, and why: the first is what comes first."""
    states = {step.name: step for step in work.steps}
    if work.error is not None:
        yield "chatkeep setup", "goes on from here. What is done stays as it is."
        return
    service = states[Name.SERVICE]
    serves = service.state in {State.DONE, State.ALREADY}
    if (serves and shown.config.session.require_unlock) or _held(work):
        yield (
            "chatkeep unlock",
            "once after each login. Until then snapshots are taken, and wait on this machine to be sent.",
        )
    if not serves:
        yield _in_its_place(service)
    if "few-ways" in work.values.get(Name.VAULT, {}).get("warnings", ()):
        yield "chatkeep key add passkey", "a second way in. With one alone, losing it loses the backup."
    yield "chatkeep status", "how things stand, at any time."
    yield "chatkeep drill", "restores on trial, and proves that what comes back is right. Do it once now."
    if setup_draft.same_disk(shown.config):
        yield (
            "chatkeep config example",
            "shows how to add a second place. This one is on the disk of what it keeps: if that breaks, both are gone.",
        )


def _in_its_place(service: Step) -> tuple[str, str]:
    """What backs up where no service does."""
    if service.why is Why.NO_MANAGER:
        return "chatkeep run", "keeps backing up for as long as it runs: start it with whatever starts programs here."
    if service.why is Why.NOT_OURS:
        return "systemctl --user cat chatkeep", "shows the unit that is there. Setup did not write it, and let it be."
    return "chatkeep backup", "whenever something is to be backed up. Nothing happens by itself."


def _held(work: Work) -> bool:
    """Whether a daemon that runs took the snapshot, and may not send it before somebody unlocks."""
    providers = work.values.get(Name.SNAPSHOT, {}).get("providers", ())
    return any(error["code"] == "uploads-held" for provider in providers for error in provider["errors"])


def _about(shown: Shown) -> dict[str, Any]:
    return {
        "found": [
            {
                "application": one.finding.application.name if one.finding.application is not None else None,
                "title": one.finding.application.title if one.finding.application is not None else None,
                "path": one.finding.path,
                "files": one.amount.files,
                "bytes": one.amount.bytes,
                "counted_whole": one.amount.whole,
                "exclude": list(one.finding.exclude),
                "note": one.finding.application.note if one.finding.application is not None else "",
                "kept": shown.keeps(one),
            }
            for one in shown.seen
        ],
        "configuration": {"file": shown.file, "text": shown.text},
        "sources": [{"name": source.name, "path": source.path} for source in shown.config.sources],
        "providers": [{"name": provider.name, "type": provider.type} for provider in shown.config.providers],
    }


def _step(step: Step) -> dict[str, str | None]:
    return {"step": step.name.value, "state": step.state.value, "why": step.why.value if step.why is not None else None}


def _error(error: ChatkeepError | click.ClickException | None) -> dict[str, object] | None:
    if isinstance(error, click.ClickException):
        return {"code": "usage", "text": error.format_message(), "remedy": "", "params": {}}
    return None if error is None else plain_error(error)


def _told(out: Output, error: ChatkeepError | click.ClickException) -> Iterator[str]:
    if isinstance(error, click.ClickException):
        yield out.styled(error.format_message(), "bad")
        return
    told = tell(error)
    yield out.styled(told.text, "bad")
    if told.remedy:
        yield told.remedy


def _words(shown: Shown, step: Step, table: Mapping[State, Mapping[Any, str]]) -> str:
    if step.state in {State.LEFT_OUT, State.IMPOSSIBLE} and step.why is not None:
        return _REASONS[step.why]
    words = table[step.state]
    text = words.get((step.name, step.why)) or words.get((step.name, None)) or words[step.name]
    return text.format(file=_path(shown.file), size=_size(shown))


def _size(shown: Shown) -> str:
    """Of the first snapshot. What is kept besides applications, and large ones, are not counted to their end."""
    kept = [one for one in shown.seen if shown.keeps(one)]
    counted_whole = {os.path.realpath(one.finding.path) for one in kept if one.amount.whole}
    bytes_found = sum(one.amount.bytes for one in kept)
    if not bytes_found:
        return ""
    whole = all(os.path.realpath(source.path) in counted_whole for source in shown.config.sources)
    return f", of {'about' if whole else 'more than'} {size(bytes_found)}"


def _not_kept(out: Output, shown: Shown) -> Iterator[str]:
    """What was found and is not in a configuration that was there before: it may have come since."""
    if shown.text is not None:
        return
    for one in shown.seen:
        if not shown.keeps(one):
            yield ""
            yield out.styled("Found, and not kept:", "warn")
            yield from (f"  {line}" for line in setup_draft.described(one))
            yield f"  To keep it, add it to {_path(shown.file)}"


def _with_notes(shown: Shown) -> str:
    """The applications that are kept and of which a person has to know something."""
    known = (one.finding for one in shown.seen if shown.keeps(one))
    return ", ".join(dict.fromkeys(one.application.title for one in known if one.application and one.application.note))


def _stores(config: Config) -> Iterator[str]:
    for provider in config.providers:
        where = printable(place(provider, Path.home()))
        if provider.type != "folder":
            where = f"{printable(provider.name)}: {where}" if where else f"{printable(provider.name)} ({provider.type})"
        yield where


def _path(path: Path) -> str:
    return printable(proposal.short(path, Path.home()))


def _wrapped(text: str) -> str:
    return "\n".join(paragraph(text, WIDTH - 18))


_PLANNED_WORDS: Final[Mapping[State, Mapping[Any, str]]] = {State.TO_DO: _PLANNED, State.ALREADY: _ALREADY}
_DONE_WORDS: Final[Mapping[State, Mapping[Any, str]]] = {
    State.DONE: _DONE,
    State.ALREADY: _ALREADY,
    **{state: dict.fromkeys(Name, words) for state, words in _ENDED.items()},
}
