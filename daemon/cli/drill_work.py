"""The work of `chatkeep drill`, and its report."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.daemon.cli import reading
from chatkeep.daemon.cli.drill_note import FOLDER, DrillNote, remember
from chatkeep.daemon.cli.exits import Exit, worst
from chatkeep.daemon.cli.frame import Frame
from chatkeep.daemon.cli.measures import counted, duration, local_time, printable, size, stamp
from chatkeep.daemon.cli.output import Output, Step, fields
from chatkeep.daemon.cli.restore_command import refuse_vault
from chatkeep.daemon.cli.stopping import stopping
from chatkeep.daemon.cli.telling import plain_error, tell
from chatkeep.daemon.cli.unlocking import Secret
from chatkeep.daemon.restore import snapshot as engine
from chatkeep.daemon.restore.apply import Choices
from chatkeep.daemon.restore.errors import writing
from chatkeep.daemon.restore.plan import RestorePlan
from chatkeep.daemon.restore.sample import sampled
from chatkeep.daemon.restore.scratch import Scratch
from chatkeep.daemon.service.errors import SessionError
from chatkeep.daemon.vault.errors import VaultLocked
from chatkeep.daemon.vault.reader import Snapshot
from chatkeep.daemon.verify.errors import CapturedDamaged, CheckUnfinished
from chatkeep.daemon.verify.sqlite_check import Checked, Outcome, check
from chatkeep.providers.durable import make_directories

MOST_SHOWN = 10
_TREE = b"tree"


class Order(NamedTuple):
    """What is to be tried: of which source (None: of each), which snapshot (None: the newest), how much of its files
    (0 to 1), and where (None: in the state directory)."""

    source: str | None = None
    snap: str | None = None
    fraction: float = 1.0
    scratch: Path | None = None


@dataclass
class Trial:
    """What came of one source."""

    label: str
    snapshot: Snapshot
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    files: int = 0
    written: int = 0
    pending: int = 0
    left_out: int = 0  # by the sample
    databases: dict[bytes, Checked] = field(default_factory=dict)
    damaged: list[tuple[bytes, ChatkeepError]] = field(default_factory=list)
    problems: list[ChatkeepError] = field(default_factory=list)  # of databases that are what was captured
    error: ChatkeepError | None = None

    def exit(self) -> Exit:
        """Damage in the vault is 5; a database that was damaged before is not the vault's."""
        codes = [tell(problem).exit for problem in self.problems]
        codes += [Exit.INTEGRITY] if self.damaged else []
        return worst([*codes, tell(self.error).exit] if self.error is not None else codes)

    def of(self, outcome: Outcome) -> list[bytes]:
        """The databases of which this came."""
        return [path for path, one in self.databases.items() if one.outcome is outcome]

    def note(self, now_ns: int) -> DrillNote:
        """What is remembered of it."""
        errors = [*(error for _, error in self.damaged), *self.problems, *([self.error] if self.error else [])]
        codes = tuple(dict.fromkeys(error.code for error in errors))
        counts = (self.files, len(self.databases), self.written, round(self.seconds, 3))
        return DrillNote(now_ns, self.snapshot.header.seq, not codes, codes, *counts)

    def value(self) -> dict[str, Any]:
        """For --json."""
        return {
            "source": self.label,
            "snapshot": {
                "seq": self.snapshot.header.seq,
                "id": self.snapshot.name.sha256.hex(),
                "time": stamp(self.snapshot.manifest.clock),
            },
            "files": self.files,
            "bytes": self.written,
            "seconds": round(self.seconds, 3),
            "left_out": self.left_out,
            "pending": self.pending,
            "databases": [
                {"path": path, "outcome": one.outcome.value, "problems": one.problems, "why": one.why or None}
                for path, one in self.databases.items()
            ],
            "damaged": [{"path": path, "error": plain_error(error)} for path, error in self.damaged],
            "problems": [plain_error(problem) for problem in self.problems],
            "error": None if self.error is None else plain_error(self.error),
        }

    def lines(self, out: Output) -> Iterator[str]:
        """For a person."""
        when = f"snapshot {self.snapshot.header.seq} of {local_time(self.snapshot.manifest.clock)}"
        yield f"{out.styled(printable(self.label), 'head')}: {when}"
        yield from fields(list(self._rows(out)))

    def _rows(self, out: Output) -> Iterator[tuple[str, str]]:
        if self.error is not None:
            told = tell(self.error)
            yield out.styled("failed", "bad"), f"{told.text}\n{told.remedy}".strip()
            return
        restored = f"{counted(self.files, 'file')}, {size(self.written)}, in {duration(self.seconds)}"
        proven = out.styled("damaged", "bad") if self.damaged else out.styled("all as captured", "good")
        yield "restored", f"{restored}: {proven}"
        if self.left_out:
            yield "left out", f"{counted(self.left_out, 'file')}, by the sample"
        if self.pending:
            yield "missing", f"{counted(self.pending, 'file')} not in the vault yet at that time"
        if self.damaged:
            yield out.styled("damaged", "bad"), _listed([(path, tell(error).text) for path, error in self.damaged])
        sound = len(self.of(Outcome.SOUND))
        if self.databases:
            yield "databases", f"{sound} of {len(self.databases)} sound, says SQLite"
        for outcome, what in _WORDS.items():
            if found := self.of(outcome):
                yield outcome.value, _listed([(path, what) for path in found])
        for problem in self.problems[:MOST_SHOWN]:
            told = tell(problem)
            yield out.styled(problem.code.replace("-", " "), "warn"), f"{told.text}\n{told.remedy}"


_WORDS = {
    Outcome.ENCRYPTED: "not SQLite readable without the application's key",
    Outcome.FOREIGN: "sound as far as SQLite knows it: parts need the application's own code",
}


@dataclass
class DrillReport:
    """What came of all of them. `findings`: what was met in storage."""

    trials: list[Trial] = field(default_factory=list)
    findings: list[ChatkeepError] = field(default_factory=list)
    cancelled: bool = False

    def value(self) -> dict[str, Any]:
        """For --json."""
        return {
            "sources": [trial.value() for trial in self.trials],
            "findings": [plain_error(finding) for finding in self.findings],
            "cancelled": self.cancelled,
        }

    def lines(self, out: Output) -> Iterator[str]:
        """For a person."""
        for trial in self.trials:
            yield from trial.lines(out)
        if not self.trials and not self.cancelled:
            yield "There is no snapshot yet."
        if self.cancelled:
            yield "Cancelled before everything was tried. Nothing was left behind."
        elif self.trials and self.exit() is Exit.DONE:
            yield out.styled("The backup can be restored. What was restored is removed again.", "good")
        reading.tell_findings(out, self.findings)

    def exit(self) -> Exit:
        """The worst of them."""
        found = worst([*(trial.exit() for trial in self.trials), reading.weight(self.findings)])
        return Exit.CANCELLED if self.cancelled and found is not Exit.INTEGRITY else found


def run(frame: Frame, folder: Path | None, order: Order, secret: Secret) -> DrillReport:
    """Tries them one after the other. Raises as unlocking does, and where there is no place to restore to."""
    report = DrillReport()
    above = _place(frame, folder, order.scratch)
    try:
        with reading.opened(frame, folder, secret) as vault, Scratch(os.fsencode(above)) as scratch:
            with stopping() as stopped, frame.out.progress(sized=True) as step:
                try:
                    for chosen, label in _chosen(vault, order):
                        trial = Trial(label, chosen)
                        _try(vault, trial, scratch, order.fraction, step, stopped)
                        report.trials.append(trial)
                except Cancelled:
                    report.cancelled = True
            report.findings = vault.findings()
    finally:  # what was tried before the session ended was tried
        if folder is None and report.trials:
            now = time.time_ns()
            remember(frame.config().state_dir, {trial.label: trial.note(now) for trial in report.trials})
    return report


def _place(frame: Frame, folder: Path | None, scratch: Path | None) -> Path:
    """The directory that the private one is made in."""
    if folder is None:
        own = frame.config().state_dir / FOLDER
        with writing(os.fsencode(own)):
            make_directories(own)  # for this user only, the state directory above it too if this is the first in it
        if scratch is None:
            return own
        Scratch(os.fsencode(own)).close()  # what a killed drill left there goes now as well
    assert scratch is not None, "the command asked for one"
    refuse_vault(frame, folder, scratch)
    return scratch


def _chosen(vault: reading.OpenVault, order: Order) -> Iterator[tuple[Snapshot, str]]:
    if order.snap is not None:
        yield vault.find(order.snap, order.source)
        return
    for label in dict.fromkeys(history.label for history in vault.of_source(order.source)):
        yield vault.find("latest", label)


def _try(
    vault: reading.OpenVault,
    trial: Trial,
    scratch: Scratch,
    fraction: float,
    step: Step,
    stopped: Callable[[], bool],
) -> None:
    """Restores one snapshot, has its databases looked at, and removes it. What is wrong is in the trial.

    Raises Cancelled, VaultLocked, SessionError: it was not tried to its end, which says nothing of the backup.
    """
    label = printable(trial.label)
    try:
        whole = engine.plan(vault.reader, trial.snapshot)
        plan = sampled(whole, fraction, random.Random())
        trial.left_out = len(whole.extents) - len(plan.extents)
        report = engine.restore(
            vault.reader,
            trial.snapshot,
            plan,
            os.path.join(scratch.path, _TREE),
            Choices(salvage=True),
            progress=lambda done, total: step(label, done, total),
            cancelled=stopped,
        )
        trial.files, trial.written, trial.pending = report.files, report.content, len(report.pending)
        trial.damaged = list(report.damaged)
        _look(trial, plan, scratch, step, stopped)
    except (Cancelled, VaultLocked, SessionError):
        raise
    except ChatkeepError as exc:
        trial.error = exc
    finally:
        trial.seconds = time.monotonic() - trial.began
        scratch.clear()


def _look(trial: Trial, plan: RestorePlan, scratch: Scratch, step: Step, stopped: Callable[[], bool]) -> None:
    """Has SQLite look at every database that came back whole."""
    lost = {plan.paths.get(path) for path, _ in trial.damaged}
    paths = {own: path for path, own in sorted(plan.paths.items(), reverse=True) if own in plan.databases}
    here = [(path, own) for own, path in paths.items() if own not in lost]
    total, done = sum(plan.size(own) for _, own in here), 0
    for path, own in sorted(here):
        step("databases", done, total)
        with scratch.alone(_TREE + b"/" + path) as folder:
            found = trial.databases[path] = check(folder, stopped)
        if found.outcome is Outcome.DAMAGED:
            trial.problems.append(CapturedDamaged(path=path, problems=list(found.problems)))
        elif found.outcome is Outcome.UNFINISHED:
            trial.problems.append(CheckUnfinished(path=path, reason=found.why))
        done += plan.size(own)


def _listed(rows: list[tuple[bytes, str]]) -> str:
    shown = [f"{printable(path)}: {what}" for path, what in rows[:MOST_SHOWN]]
    return "\n".join([*shown, *([f"and {len(rows) - MOST_SHOWN} more"] if len(rows) > MOST_SHOWN else [])])
