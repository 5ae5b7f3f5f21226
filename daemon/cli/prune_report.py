"""What prune decided and did, for a person and for a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Retention
from chatkeep.daemon.cli.exits import Exit, worst
from chatkeep.daemon.cli.measures import counted, local_time, printable, size, stamp
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.telling import plain_error, tell
from chatkeep.daemon.prune.lost import Gap
from chatkeep.daemon.prune.own import Facts
from chatkeep.daemon.prune.plan import Plan
from chatkeep.daemon.retention import Reason, Verdict
from chatkeep.daemon.state.pruning import Role
from chatkeep.daemon.sync.sweep import SweepResult
from chatkeep.daemon.sync.upload import UploadResult

SHORT_ID: Final = 8  # hex digits of an id that are shown
REASONS: Final = {
    Reason.NEWEST: "the newest",
    Reason.CLOCK: "its clock lies in the future",
    Reason.WAITING: "not yet at every provider",
    Reason.RECENT: "all of the last {everything_for}",
    Reason.HOURLY: "hourly",
    Reason.DAILY: "daily",
    Reason.WEEKLY: "weekly",
    Reason.MONTHLY: "monthly",
    Reason.YEARLY: "yearly",
    Reason.MINIMUM: "one of the newest {minimum}",
    Reason.THINNED: "others stand for its time",
    Reason.INCOMPLETE: "incomplete, and a complete one is near",
}


@dataclass
class PruneReport:
    """Everything prune says. `number`: of the checkpoint that was made; None when none was."""

    plan: Plan
    policy: Retention
    dry_run: bool
    now_ns: int
    number: int | None = None
    uploads: Sequence[UploadResult] = ()
    sweeps: Sequence[SweepResult] = ()
    findings: Sequence[ChatkeepError] = ()
    required: frozenset[str] = field(default=frozenset())

    def show(self, out: Output) -> None:
        """Says it."""
        rows = [self._row(*one) for one in self._pairs()]
        if out.as_json or not rows:
            out.result(self.value(), *self.lines(out))
            return
        out.table({}, ["snapshot", "id", "time", "source", "", "why"], rows, right=("snapshot",))
        for line in ["", *self.lines(out)]:
            out.write(line + "\n") if out.out.isatty() else out.note(line)

    def value(self) -> dict[str, Any]:
        """For --json."""
        rows = [row for row in self.plan.waste.rows if row.role is not Role.CHECKPOINT]
        return {
            "dry_run": self.dry_run,
            "snapshots": [_plain(*one) for one in self._pairs()],
            "kept": sum(1 for _, _, verdict in self._pairs() if verdict.kept),
            "going": sum(1 for _, _, verdict in self._pairs() if not verdict.kept),
            "freed_objects": len(rows),
            "freed_bytes": self.plan.waste.size,
            "stored_bytes": self.plan.stored,
            "taken_back": len(self.plan.waste.revived),
            "alarms": [alarm.value for alarm in self.plan.alarms],
            "given_up": [_plain_gap(gap) for gap in self.plan.lost.gaps],
            "checkpoint": self.number,
            "deleted_after": stamp(self.now_ns + self.policy.grace.ns) if self.plan.checkpoint is not None else None,
            "providers": [self._provider(result) for result in self.sweeps],
            "findings": [plain_error(finding) for finding in self.findings],
        }

    def lines(self, out: Output) -> Iterator[str]:
        """For a person, below the table."""
        pairs = self._pairs()
        going = sum(1 for _, facts, verdict in pairs if not verdict.kept and not facts.condemned)
        if self.plan.lost:
            yield from self.lost_lines()
            yield "They would be given up." if self.dry_run else "They are given up: nothing looks for them any more."
        if not pairs:
            yield "There are no snapshots of this device yet."
        elif self.plan.checkpoint is None:
            before = any(facts.condemned and not verdict.kept for _, facts, verdict in pairs)
            yield "Nothing more goes." if before else "Nothing goes."
        else:
            yield from self._changes(out, going, len(pairs))
        for sweep in self.sweeps:
            yield from _sweep_lines(sweep, out)
        waits = " The checkpoint waits on this device." if self.number is not None else ""
        for upload in self.uploads:
            for problem in upload.problems:
                yield out.styled(tell(problem).text + waits, "warn")

    def exit(self) -> Exit:
        """What a storage does not delete is no failure: it is told, and nothing is lost by it."""
        codes = [
            tell(problem).exit
            for result in self.uploads
            for problem in result.problems
            if result.provider in self.required or tell(problem).exit is Exit.INTEGRITY
        ]
        codes += [tell(one.problem).exit for one in self.sweeps if one.problem and one.provider in self.required]
        return worst(codes)

    def question(self) -> str:
        """How much would go, for somebody who is to say yes to it."""
        pairs = self._pairs()
        going = sum(1 for _, facts, verdict in pairs if not verdict.kept and not facts.condemned)
        return self._amount(going, len(pairs), "would go")

    def lost_lines(self) -> Iterator[str]:
        """Which snapshots are lost, for somebody who is to give them up."""
        if self.plan.lost.checkpoint is not None:
            yield "The newest checkpoint is lost: some of these may have been pruned."
        for gap in self.plan.lost.gaps:
            which = f"Snapshot {gap.first} is" if gap.first == gap.last else f"Snapshots {gap.first} to {gap.last} are"
            times = [local_time(gap.clocks[seq]) for seq in sorted({gap.first, gap.last}) if seq in gap.clocks]
            source = f"{printable(gap.source)}: " if gap.source else ""
            yield f"{source}{which} in no storage any more" + (f" ({' to '.join(times)})." if times else ".")

    def _amount(self, going: int, every: int, verb: str) -> str:
        share = f" of {size(self.plan.stored)}" if self.plan.stored else ""
        freed = f"{size(self.plan.waste.size)}{share}"
        if not going:
            return f"No snapshot {verb}, and {freed} that none needs, at each provider."
        return f"{counted(going, 'snapshot')} of {every:,} {verb}: {freed} at each provider."

    def _changes(self, out: Output, going: int, every: int) -> Iterator[str]:
        waste, grace = self.plan.waste, self.policy.grace
        if going or waste.size:
            yield self._amount(going, every, "would go" if self.dry_run else "go" if going > 1 else "goes")
        if back := sum(1 for name in waste.revived if "/s/" in name):
            verb = "would be" if self.dry_run else "is" if back == 1 else "are"
            yield f"{counted(back, 'snapshot')} that had been let go {verb} kept after all."
        if self.dry_run:
            told = f"{grace} after each provider has been told" if grace else "as soon as each provider has been told"
            yield "Nothing was changed." + (f" It would be deleted {told}." if waste.size else "")
        elif waste.size and self._waits():
            yield (
                f"It is deleted by the first backup after {local_time(self.now_ns + grace.ns)}. Until then "
                "prune with another policy takes it back."
            )
        for alarm in self.plan.alarms if self.dry_run else ():
            yield out.styled(f"{ALARMS[alarm.value]} It would need --yes.", "warn")

    def _waits(self) -> bool:
        """Whether there is something that no provider has deleted yet, and will: without a grace it is gone at once."""
        undelivered = any(upload.problems for upload in self.uploads)
        return undelivered or not self.sweeps or any(one.waiting or one.problem for one in self.sweeps)

    def _pairs(self) -> list[tuple[str, Facts, Verdict]]:
        """Every snapshot: by source, the newest first."""
        found = [(one.source, *pair) for one in self.plan.streams for pair in one.judged()]
        return [pair for source in sorted({one[0] for one in found}) for pair in found[::-1] if pair[0] == source]

    def _row(self, source: str, facts: Facts, verdict: Verdict) -> list[str]:
        words = {"everything_for": str(self.policy.everything_for).removeprefix("1 "), "minimum": self.policy.minimum}
        why = ", ".join(REASONS[reason].format_map(words) for reason in verdict.reasons)
        kept = "kept" if verdict.kept else "going already" if facts.condemned else "goes"
        number, digest = facts.name.seq, facts.name.sha256.hex()[:SHORT_ID]
        return [str(number), digest, local_time(facts.clock), source, kept, why]

    def _provider(self, result: SweepResult) -> dict[str, Any]:
        return {
            "name": result.provider,
            "deleted_objects": result.objects,
            "deleted_bytes": result.bytes,
            "waiting_objects": result.waiting,
            "waiting_bytes": result.waiting_bytes,
            "held_objects": result.held,
            "held_bytes": result.held_bytes,
            "error": None if result.problem is None else plain_error(result.problem),
        }


ALARMS: Final = {
    "most-snapshots": "More than half of the snapshots would go.",
    "most-bytes": "More than half of what is stored would go.",
    "last-day": "Snapshots of the last 24 hours would go.",
}


def _plain(source: str, facts: Facts, verdict: Verdict) -> dict[str, Any]:
    return {
        "source": source,
        "seq": facts.name.seq,
        "id": facts.name.sha256.hex(),
        "time": stamp(facts.clock),
        "complete": facts.complete,
        "kept": verdict.kept,
        "condemned": facts.condemned and not verdict.kept,
        "reasons": [reason.value for reason in verdict.reasons],
    }


def _plain_gap(gap: Gap) -> dict[str, Any]:
    first, last = (stamp(gap.clocks[seq]) if seq in gap.clocks else None for seq in (gap.first, gap.last))
    return {
        "source": gap.source or None,
        "first": gap.first,
        "last": gap.last,
        "first_time": first,
        "last_time": last,
    }


def _sweep_lines(result: SweepResult, out: Output) -> Iterator[str]:
    name = printable(result.provider)
    if result.objects:
        yield f"{name}: {counted(result.objects, 'object')} of {size(result.bytes)} deleted"
    if result.held:
        yield out.styled(held_words(name, result.held, result.held_bytes), "warn")
    if result.problem is not None:
        yield out.styled(f"{tell(result.problem).text} What is to be deleted there is deleted later.", "warn")


def held_words(name: str, objects: int, count: int) -> str:
    """What is said of a storage that does not delete."""
    them = f"{counted(objects, 'object')} of {size(count)}"
    return f"{name}: storage keeps {them}: it does not let this device delete. Nothing is lost by it but room."
