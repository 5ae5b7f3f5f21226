"""The work of `chatkeep mirror`, and its report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import click

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Config, ProviderConfig
from chatkeep.daemon.cli import by_daemon, reading
from chatkeep.daemon.cli.exits import Exit, worst
from chatkeep.daemon.cli.frame import Frame
from chatkeep.daemon.cli.measures import counted, printable, size
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.provider_commands import chosen
from chatkeep.daemon.cli.provider_standing import hands_over
from chatkeep.daemon.cli.stopping import stopping
from chatkeep.daemon.cli.telling import plain_error, tell
from chatkeep.daemon.service import device, mirroring, storage
from chatkeep.daemon.state import glance
from chatkeep.daemon.sync.catching_up import Watch, catch_up
from chatkeep.daemon.sync.mirror import CopyResult, copy
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.providers.base import Provider
from chatkeep.providers.wrap import Retrying

MOST_SHOWN: Final = 20


@dataclass
class MirrorReport:
    """What a mirror did.

    Attributes:
        sources, target: names of providers.
        lacking, lacking_bytes: what the target lacked when it was looked at.
        later: objects that were made meanwhile, and copied too.
        receipts: objects of this device that it now knows to be there.
        errors: why not everything is there.
        hands_over: another program uploads what the target was given.
    """

    sources: list[str]
    target: str
    dry_run: bool
    plan: mirroring.MirrorPlan
    lacking: int = 0
    lacking_bytes: int = 0
    copied: CopyResult = field(default_factory=CopyResult)
    later: int = 0
    receipts: int | None = None
    errors: list[ChatkeepError] = field(default_factory=list)
    hands_over: bool = False

    @property
    def complete(self) -> bool:
        """Whether the target has everything."""
        return not (self.dry_run or self.errors or self.copied.cancelled)

    @property
    def findings(self) -> list[ChatkeepError]:
        """What is wrong with copies that were not needed, and sources that are away."""
        return [*self.plan.findings, *self.copied.findings]

    def value(self) -> dict[str, Any]:
        """For --json."""
        return {
            "vault": self.plan.vault_id.hex(),
            "from": self.sources,
            "to": self.target,
            "dry_run": self.dry_run,
            "lacking_objects": self.lacking,
            "lacking_bytes": self.lacking_bytes,
            "copied_objects": self.copied.objects + self.later,
            "copied_bytes": self.copied.bytes,
            "pruned_objects": self.plan.let_go,
            "unvouched_objects": self.plan.strangers,
            "receipts": self.receipts,
            "complete": self.complete,
            "findings": [plain_error(one) for one in self.findings],
            "errors": [plain_error(one) for one in self.errors],
            "cancelled": self.copied.cancelled,
        }

    def lines(self, out: Output) -> Iterator[str]:
        """For a person."""
        target = printable(self.target)
        lacks = f"{counted(self.lacking, 'object')}, {size(self.lacking_bytes)}"
        if self.dry_run:
            yield f"{target} lacks {lacks}." if self.lacking else f"{target} lacks nothing."
            yield "Nothing was copied: --dry-run."
        else:
            copied = counted(self.copied.objects + self.later, "object")
            yield f"Copied to {target}: {copied}, {size(self.copied.bytes)}."
        if self.plan.let_go:
            yield f"Not copied: {counted(self.plan.let_go, 'object')} that the retention policy let go."
        if self.plan.strangers:
            yield f"Not copied: {counted(self.plan.strangers, 'object')} of no device of this vault."
        for error in self.errors[:MOST_SHOWN]:
            told = tell(error)
            yield out.styled(told.text, "bad")
            yield from ([f"  {told.remedy}"] if told.remedy else [])
        if len(self.errors) > MOST_SHOWN:
            yield f"and {len(self.errors) - MOST_SHOWN} more, all in --json"
        if self.complete:
            # Whether it arrived is not seen here: nobody is to take it for done.
            all_there = f"{target}: everything was handed over." if self.hands_over else f"{target} has everything."
            yield out.styled(all_there, "good")
        elif self.copied.cancelled:
            yield "Cancelled. The same command goes on where this one stopped."

    def exit(self) -> Exit:
        """Damage counts, also where another provider made up for it; a source that is away does not."""
        codes = [tell(error).exit for error in self.errors] + [reading.weight(self.findings)]
        found = worst(codes)
        return Exit.CANCELLED if self.copied.cancelled and found is not Exit.INTEGRITY else found


def run(frame: Frame, to: str, source: str | None, *, dry_run: bool) -> MirrorReport:
    """Everything `mirror` does; what could not be copied is in the report. Raises what keeps it from beginning."""
    config, out = frame.config(), frame.out
    (target_config,) = chosen(config.providers, [to])
    source_configs = _sources(config, to, source)
    asked = _asked(config, to)
    with contextlib.ExitStack() as stack:
        sources = stack.enter_context(storage.opened(source_configs, patient=False))
        place = storage.opened([target_config], create=asked.new and not dry_run, patient=False)
        (target,) = stack.enter_context(place)
        report = _copied(sources, target, asked, out, dry_run=dry_run)
        report.hands_over = hands_over(target_config)
        if report.complete and device.is_set_up(config):
            _record(config, sources, target, report, out)
    if not out.as_json:
        reading.tell_findings(out, report.findings)
    return report


def _sources(config: Config, to: str, source: str | None) -> list[ProviderConfig]:
    others = [one for one in config.providers if one.name != to]
    if source == to or not others:
        advice = "There is no other one in the configuration." if not others else "Name another one."
        raise click.UsageError(f"{printable(to)} cannot be brought up from itself. {advice}")
    # Those that must have everything first: they are the likeliest to.
    return sorted(chosen(others, [source] if source else []), key=lambda one: not one.required)


def _asked(config: Config, to: str) -> mirroring.Asked:
    """What this device knows before storage is asked."""
    if not device.is_set_up(config):
        return mirroring.Asked(new=True)
    pin = device.pin(config)
    known, doomed = False, set[str]()
    if glance.exists(config.state_dir):
        with glance.Glance(config.state_dir) as records:
            known, doomed = records.knows(to), records.doomed()
    return mirroring.Asked(None if pin is None else pin.vault_id, pin, doomed, new=not known)


def _copied(
    sources: list[Provider], target: Provider, asked: mirroring.Asked, out: Output, *, dry_run: bool
) -> MirrorReport:
    with stopping() as stopped, out.progress(sized=True) as step:
        step("looking", 0, None)
        asked = mirroring.Asked(asked.vault_id, asked.pin, asked.doomed, asked.new, stopped)
        plan = mirroring.plan([Retrying(one) for one in sources], Retrying(target), asked)
        names = [one.name for one in plan.sources]
        report = MirrorReport(names, target.name, dry_run, plan)
        lacking = plan.lacking()
        report.lacking, report.lacking_bytes = len(lacking), sum(item.size for item in lacking)
        if not dry_run:
            report.copied = copy(
                plan.items,
                [one for one in sources if one.name in names],
                target,
                known=plan.known,
                on_progress=lambda at: step(f"to {target.name}", at.bytes, at.bytes_total),
                cancelled=stopped,
            )
            report.errors += report.copied.problems
    return report


def _record(config: Config, sources: list[Provider], target: Provider, report: MirrorReport, out: Output) -> None:
    """What this device made is on record as being there; what was made and let go of meanwhile is copied too."""
    try:
        with (
            _credential(config) as credential,
            by_daemon.borrowed(config, "mirror", out),
            device.open_state(config, credential) as state,
            stopping() as stopped,
        ):
            names = {item.name for item in report.plan.items}
            report.receipts = state.mirrors.found(names, target.name, time.time_ns())
            state.mirrors.leave([target.name], time.time_ns())
            caught = catch_up(state, target, sources, Watch(cancelled=stopped))
            report.later = caught.objects
            report.errors += caught.problems
            report.copied.cancelled = caught.cancelled
            if report.complete:  # what the last upload failed with is over
                state.outbox.note_upload(target.name, time.time_ns(), None)
    except ChatkeepError as exc:
        report.errors.append(exc)


@contextlib.contextmanager
def _credential(config: Config) -> Iterator[WriterCredential]:
    credential = device.load_credential(config)
    try:
        yield credential
    finally:
        credential.wipe()
