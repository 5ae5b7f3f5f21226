"""What a backup did, for a person and for a program."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli.exits import Exit, worst
from chatkeep.daemon.cli.measures import counted, duration, local_time, printable, size, stamp
from chatkeep.daemon.cli.output import Output, fields
from chatkeep.daemon.cli.telling import plain_error, tell

if TYPE_CHECKING:
    from chatkeep.daemon.backup.databases import DatabaseProblem
    from chatkeep.daemon.backup.publish import Published
    from chatkeep.daemon.backup.run import SourceResult
    from chatkeep.daemon.capture.walk import Problem
    from chatkeep.daemon.sync.upload import UploadResult

MOST_SHOWN = 10  # remarks about paths of one source; --json has all

# Why a path is not, or not as it is now, in the backup. True: a person should do something about it.
_REMARKS = {
    "unreadable": ("cannot be read", True),
    "changed": ("was replaced while it was looked at; the next backup has it", False),
    "special": ("is a socket, pipe or device: there is nothing to keep", False),
    "too-long": ("has a name longer than the format carries", True),
    "mounted": ("is another file system; it is kept too", False),
}


@dataclass(frozen=True)
class SourceReport:
    """What became of one source: `made` snapshots, and either a result, an error, or neither when it was cancelled."""

    name: str
    result: SourceResult | None
    error: ChatkeepError | None
    made: int
    seconds: float

    def value(self) -> dict[str, Any]:
        """For --json."""
        result = self.result
        made = [] if result is None else result.snapshots
        return {
            "name": self.name,
            "error": None if self.error is None else plain_error(self.error),
            "seconds": round(self.seconds, 3),
            "snapshots": self.made,
            "snapshot": _snapshot(made[-1]) if made else None,
            "last_seq": None if result is None else result.last_seq,
            "changed": _changed(made),
            "new_bytes": sum(one.new_plaintext for one in made),
            "stored_bytes": sum(one.stored for one in made),
            "read_bytes": None if result is None else result.bytes_read,
            "files": None if result is None else result.files,
            "source_bytes": None if result is None else result.source_bytes,
            "pending": None if result is None else result.pending,
            "busy": None if result is None else result.busy,
            "problems": [] if result is None else [_problem(problem) for problem in result.problems],
        }

    def lines(self, out: Output) -> Iterator[str]:
        """For a person."""
        head = out.styled(printable(self.name), "head")
        if self.error is not None:
            told = tell(self.error)
            yield f"{head}: {out.styled('not backed up', 'bad')}"
            yield from fields([("", "\n".join(filter(None, (told.text, told.remedy))))], indent=0)
        elif self.result is None:
            yield f"{head}: cancelled" + (f" after {counted(self.made, 'snapshot')}" if self.made else "")
        elif not self.result.snapshots:
            yield f"{head}: nothing changed since snapshot {self.result.last_seq} ({duration(self.seconds)})"
            yield from fields(list(self._remarks(out)))
        else:
            newest = self.result.snapshots[-1]
            made = f", {len(self.result.snapshots)} of them made" if len(self.result.snapshots) > 1 else ""
            yield f"{head}: snapshot {newest.seq} of {local_time(newest.clock)}{made}"
            yield from fields([*self._figures(), *self._remarks(out)])

    def _figures(self) -> Iterator[tuple[str, str]]:
        assert self.result is not None
        made = self.result.snapshots
        new, stored = sum(one.new_plaintext for one in made), sum(one.stored for one in made)
        yield "changed", _changed_words(_changed(made)) + (f": {size(new)}" if new else "")
        yield "stored", f"{size(stored)}, compressed and sealed"
        yield "took", duration(self.seconds)

    def _remarks(self, out: Output) -> Iterator[tuple[str, str]]:
        assert self.result is not None
        result = self.result
        if result.pending:
            yield "pending", f"{counted(result.pending, 'file')} not in the vault yet; the next backup continues"
        if result.busy:
            yield "busy", f"{counted(result.busy, 'file')} could not be read at rest; the version before stands"
        if result.problems:
            shown = [_problem_words(problem, out) for problem in result.problems[:MOST_SHOWN]]
            rest = len(result.problems) - len(shown)
            yield "notes", "\n".join(shown + ([f"and {rest} more, all in --json"] if rest else []))

    def exit(self) -> Exit:
        """Done only if nothing that a person should see to was left out."""
        if self.error is not None:
            return tell(self.error).exit
        lacking = self.result is not None and any(_needs_person(problem) for problem in self.result.problems)
        return Exit.FAILED if lacking else Exit.DONE


@dataclass(frozen=True)
class ProviderReport:
    """What an upload did; `waiting`: objects and bytes that this provider still lacks."""

    result: UploadResult
    required: bool
    waiting: tuple[int, int]
    seconds: float

    def value(self) -> dict[str, Any]:
        """For --json."""
        return {
            "name": self.result.provider,
            "required": self.required,
            "sent_objects": self.result.objects,
            "sent_bytes": self.result.bytes,
            "waiting_objects": self.waiting[0],
            "waiting_bytes": self.waiting[1],
            "errors": [plain_error(problem) for problem in self.result.problems],
        }

    def lines(self, out: Output) -> Iterator[str]:
        """For a person."""
        head = out.styled(printable(self.result.provider), "head")
        sent = f"{size(self.result.bytes)} sent ({duration(self.seconds)})" if self.result.objects else ""
        if not self.result.problems and not self.waiting[0]:
            yield f"{head}: has everything" + (f", {sent}" if sent else "")
            return
        waiting = f"{counted(self.waiting[0], 'object')} of {size(self.waiting[1])}" if self.waiting[0] else "nothing"
        yield f"{head}: {waiting} still to be sent" + (f", {sent}" if sent else "")
        for problem in self.result.problems:
            told = tell(problem, name_provider=False)
            text = out.styled(told.text, "bad" if self.required else "warn")
            yield from fields([("", "\n".join(filter(None, (text, told.remedy))))], indent=0)

    def exit(self) -> Exit:
        """A provider that is not required may lag behind, but not hold damage."""
        codes = [tell(problem).exit for problem in self.result.problems]
        return worst(code for code in codes if self.required or code is Exit.INTEGRITY)


@dataclass
class Report:
    """What a backup did. `renewed`: sources whose chain of snapshots could not go on and begins anew; `waiting`:
    objects and bytes in the outbox; `findings`: what is wrong with the vault's own records in storage; `epoch`: the one
    this device went on to now, None if it stayed; `notices`: what became of this device's own records."""

    sources: list[SourceReport] = field(default_factory=list)
    providers: list[ProviderReport] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    waiting: tuple[int, int] = (0, 0)
    cancelled: bool = False
    findings: list[ChatkeepError] = field(default_factory=list)
    epoch: int | None = None
    notices: list[ChatkeepError] = field(default_factory=list)

    def value(self) -> dict[str, Any]:
        """For --json."""
        return {
            "sources": [source.value() for source in self.sources],
            "providers": [provider.value() for provider in self.providers],
            "findings": [plain_error(finding) for finding in self.findings],
            "new_epoch": self.epoch,
            "notices": [plain_error(notice) for notice in self.notices],
            "begun_anew": self.renewed,
            "waiting_objects": self.waiting[0],
            "waiting_bytes": self.waiting[1],
            "cancelled": self.cancelled,
        }

    def lines(self, out: Output) -> list[str]:
        """For a person."""
        lines = [
            f"{printable(name)}: something that waited to be uploaded was lost on this device. Its snapshots begin "
            "anew; those that were uploaded stay, and those before what was lost are still uploaded."
            for name in self.renewed
        ]
        if self.epoch is not None:
            lines.append(
                f"The keys of the vault were changed; this device goes on with the new ones (epoch {self.epoch})."
            )
        for finding in (*self.notices, *self.findings):
            told = tell(finding)
            lines += [out.styled(told.text, "bad"), *filter(None, [told.remedy])]
        for part in self._parts():
            lines += part.lines(out)
        if self.cancelled:
            lines.append("Cancelled. What is listed here stands; the next backup goes on from it.")
        elif self.waiting[0] and not self.providers:
            lines.append(f"{size(self.waiting[1])} wait to be uploaded by the next backup.")
        return lines

    def exit(self) -> Exit:
        """The worst of all."""
        if self.cancelled:
            return Exit.CANCELLED
        return worst([*(part.exit() for part in self._parts()), *(tell(one).exit for one in self.findings)])

    def _parts(self) -> list[SourceReport | ProviderReport]:
        return [*self.sources, *self.providers]


def _snapshot(one: Published) -> dict[str, Any]:
    return {"seq": one.seq, "id": one.name.rpartition("-")[2], "time": stamp(one.clock), "complete": one.complete}


def _changed(made: list[Published]) -> dict[str, int]:
    kinds = ("databases", "files", "attributes", "removed")
    return {kind: sum(getattr(one.changes, kind) for one in made) for kind in kinds}


def _changed_words(changed: dict[str, int]) -> str:
    kinds = (("databases", "database"), ("files", "file"))
    words = [counted(changed[kind], word) for kind, word in kinds if changed[kind]]
    if changed["removed"]:
        words.append(f"{counted(changed['removed'], 'path')} gone")
    if not words:
        return f"attributes of {counted(changed['attributes'], 'entry', 'entries')}"
    return ", ".join(words)


def _problem(problem: Problem | DatabaseProblem) -> dict[str, Any]:
    error = getattr(problem, "error", None)
    if isinstance(error, ChatkeepError):
        return {"path": problem.path, "reason": error.code}
    reason = getattr(problem, "reason")  # noqa: B009  # the other of the two, which has it
    return {"path": problem.path, "reason": reason.value}


def _needs_person(problem: Problem | DatabaseProblem) -> bool:
    error = getattr(problem, "error", None)
    if isinstance(error, ChatkeepError):
        return error.code in {"database-damaged", "source-unreadable", "unsupported-source"}
    return _REMARKS[_problem(problem)["reason"]][1]


def _problem_words(problem: Problem | DatabaseProblem, out: Output) -> str:
    error = getattr(problem, "error", None)
    path = printable(problem.path or b".")
    if isinstance(error, ChatkeepError):
        return out.styled(tell(error).text, "warn")
    words, serious = _REMARKS[_problem(problem)["reason"]]
    number = getattr(problem, "errno", 0)
    text = f"{path} {words}" + (f": {os.strerror(number)}" if number else "")
    return out.styled(text, "warn") if serious else text
