"""`chatkeep status`: how things stand, on one screen. Asks no storage and takes no lock: quick, and always there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.problems import ConfigInvalid, ConfigUnreadable
from chatkeep.daemon.cli import provider_standing, provider_usage, status_daemon
from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.measures import age, counted, local_time, printable, size, stamp
from chatkeep.daemon.cli.output import Output, fields
from chatkeep.daemon.cli.telling import Told, tell, tell_code
from chatkeep.daemon.service.device import CREDENTIAL, is_set_up, pinned

if TYPE_CHECKING:
    from chatkeep.config.model import Config, ProviderConfig, Source
    from chatkeep.daemon.state.glance import Glance, ProviderGlance, SourceGlance, SweepGlance
    from chatkeep.daemon.state.rows import BackupNote

_PATIENCE = 2.0  # seconds for the session to answer
STALE_NS = 7 * 86400 * 10**9  # after a week without a backup somebody should look


@dataclass
class Screen:
    """What is shown: rows of label and text, the same as values, and what a person should do."""

    now: int
    rows: list[tuple[str, str]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    providers: list[dict[str, Any]] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)
    lost: bool = False  # the records do not say what was backed up
    found: dict[str, Any] | None = None  # what the daemon says of itself
    silent: bool = False  # it runs, and says nothing

    def problem(self, about: str, text: str, remedy: str) -> None:
        """Something that needs a person."""
        self.problems.append({"about": about, "text": text, "remedy": remedy})


@click.command(cls=Command, short_help="Show how things stand.")
@click.option("--watch", is_flag=True, help="Follow what the daemon does, until Ctrl-C. With --json: lines of JSON.")
@pass_frame
def status(frame: Frame, watch: bool) -> None:
    """Show how things stand: the last snapshot of each source, what each provider has, what the daemon does, what needs
    you."""
    try:
        config = frame.config()
    except (ConfigInvalid, ConfigUnreadable):
        if not frame.out.as_json:
            from chatkeep.daemon.cli import status_meanwhile

            status_meanwhile.show(frame.out, frame.config_file)
        raise
    if not is_set_up(config):
        text = f"This device is not set up: there is no {printable(str(config.state_dir / CREDENTIAL))}."
        frame.out.result({"set_up": False}, text, "Make a vault: chatkeep setup. Write one that exists: chatkeep join")
        return
    if watch:
        from chatkeep.daemon.cli import status_watch

        status_watch.follow(frame.out, config, lambda: "\n".join(gather(config, frame.out)[1]))
        return
    value, lines = gather(config, frame.out)
    frame.out.result(value, *lines)


def gather(config: Config, out: Output) -> tuple[dict[str, Any], list[str]]:
    """How things stand, as a value and in lines."""
    from chatkeep.daemon.state import glance

    screen = Screen(time.time_ns())
    screen.found = status_daemon.look(screen, config.state_dir)
    # A daemon has the records for itself also when it backs nothing up.
    in_use = not screen.silent and glance.is_in_use(config.state_dir)
    running = in_use if screen.found is None else status_daemon.is_working(screen.found)
    vault, waiting = None, (0, 0)
    if glance.exists(config.state_dir):
        with glance.Glance(config.state_dir) as seen:
            _records(screen, config, seen)
            _sources(screen, config, seen)
            _providers(screen, config, seen, out)
            waiting = seen.waiting()
            vault = seen.vault().hex()
    else:
        for source in config.sources:
            _source(screen, source, None, None)
        for provider in config.providers:
            _provider(screen, provider, glance.ProviderGlance(0, 0, {}, None, None, None), 0, out)
            _sweep(screen, glance.SweepGlance(0, 0, None, None, 0, 0), out)
    value = {
        "set_up": True,
        "vault": vault,
        "epoch": _epoch(screen, config),
        "session": _session(screen, config),
        "drill": _drill(screen, config),
        "verify": _verified(screen, config),
        "running": running,
        "daemon": screen.found,
        "sources": screen.sources,
        "providers": screen.providers,
        "outbox_objects": waiting[0],
        "outbox_bytes": waiting[1],
        "problems": screen.problems,
    }
    status_daemon.finish(screen, screen.found)
    return value, list(_lines(out, screen, in_use and screen.found is None, waiting))


def _lines(out: Output, screen: Screen, running: bool, waiting: tuple[int, int]) -> Iterator[str]:
    if running:
        yield "A backup is running now."
    rows = [(out.styled(label, "head"), text) for label, text in screen.rows]
    if waiting[0]:
        rows.append(("outbox", f"{counted(waiting[0], 'object')} of {size(waiting[1])} on this device"))
    yield from fields(rows, indent=0)
    if screen.problems:
        yield ""
        yield out.styled("Needs you", "warn")
        for problem in screen.problems:
            yield f"  {printable(problem['about'])}: {problem['text']}"
            if problem["remedy"]:
                yield out.styled(f"    {problem['remedy']}", "dim")


def _epoch(screen: Screen, config: Config) -> dict[str, Any] | None:
    """The keys that this device seals to. Storage could keep newer ones from it: so it is told since when."""
    pin = pinned(config)
    if pin is None:
        return None
    screen.rows.append(("keys", f"epoch {pin.number}, since {local_time(pin.since)}"))
    return {"number": pin.number, "record": pin.sha256.hex(), "since": stamp(pin.since)}


def _drill(screen: Screen, config: Config) -> list[dict[str, Any]]:
    """When a restore was last tried. A backup that nobody ever restored is a hope."""
    from chatkeep.daemon.cli.drill_note import recall

    known = recall(config.state_dir)
    lines = []
    for source, note in sorted(known.items()):
        when = age(note.at, screen.now)
        if note.good:
            what = f"snapshot {note.seq} came back whole {when}"
        else:
            what = f"snapshot {note.seq} did not come back whole {when}"
            screen.problem(source, f"The last drill found: {', '.join(note.codes)}.", "See more: chatkeep drill")
        lines.append(f"{printable(source)}: {what}" if len(known) > 1 else what)
    screen.rows.append(("drill", "\n".join(lines) or "never: chatkeep drill"))
    return [
        {
            "source": source,
            "seq": note.seq,
            "at": stamp(note.at),
            "good": note.good,
            "codes": list(note.codes),
            "files": note.files,
            "databases": note.databases,
            "bytes": note.size,
            "seconds": note.seconds,
        }
        for source, note in sorted(known.items())
    ]


def _verified(screen: Screen, config: Config) -> dict[str, Any] | None:
    """When storage was last compared with what was sealed."""
    from chatkeep.daemon.cli.verify_note import recall

    note = recall(config.state_dir)
    if note is None:
        screen.rows.append(("verify", "never: chatkeep verify"))
        return None
    what = "all as it was sealed" if note.good else "not all was as it should be"
    if note.away:
        what = "storage could not be reached"
    screen.rows.append(("verify", f"{what}, {age(note.at, screen.now)}{', opened too' if note.deep else ''}"))
    if note.away:
        screen.problem("verify", "The last verification could not look at all of storage.", "Again: chatkeep verify")
    elif not note.good:
        screen.problem("verify", "The last verification did not find everything well.", "See more: chatkeep verify")
    return {"at": stamp(note.at), "deep": note.deep, "good": note.good, "away": note.away, "objects": note.objects}


def _session(screen: Screen, config: Config) -> dict[str, Any] | None:
    """Whether the vault is open: asked of the process that holds its keys, which answers at once or is no session."""
    from chatkeep.daemon.cli import sessions
    from chatkeep.daemon.service.asking import Session

    pin = pinned(config)
    if pin is None:
        return None
    try:
        found = Session.find(pin.vault_id, patience=_PATIENCE)
    except ChatkeepError as exc:
        told = tell(exc)
        screen.problem("session", told.text, told.remedy)
        return None
    if found is None:
        screen.rows.append(("session", "locked: chatkeep unlock"))
        return None
    with found:
        about = found.about
    text = sessions.words(about)
    if pin.number > len(about.key_ids):
        text += "\nwith keys from before they were changed: chatkeep unlock --again"
    screen.rows.append(("session", text))
    return sessions.value(about)


def _sources(screen: Screen, config: Config, seen: Glance) -> None:
    known, notes = seen.sources(), seen.backups()
    for source in config.sources:
        _source(screen, source, known.get(source.name), notes.get(source.name))
    configured = {source.name for source in config.sources}
    for name in sorted(known.keys() - configured):
        screen.rows.append((printable(name), "not in the configuration any more; its snapshots stay"))


def _records(screen: Screen, config: Config, seen: Glance) -> None:
    """What is wrong with this device's own records, or was a short while ago."""
    lost, copied = seen.lost(), seen.copied()
    screen.lost = lost is not None
    if lost is not None:
        told = tell_code(lost.code, patience=str(config.rebuild_patience))
        screen.problem("records", f"{told.text} Noticed {age(lost.since, screen.now)}.", told.remedy)
    elif copied is not None and screen.now - copied.at < STALE_NS:
        told = tell_code("state-copied", reason=copied.how)
        screen.problem("records", f"{told.text} Noticed {age(copied.at, screen.now)}.", told.remedy)
    for name in seen.capsules()[1]:
        told = tell_code("capsule-failed", name=name)
        screen.problem("records", told.text, told.remedy)


def _source(screen: Screen, source: Source, seen: SourceGlance | None, note: BackupNote | None) -> None:
    snapshot = None if seen is None else seen.snapshot
    figures = None if seen is None else seen.statistics
    lines = ["no snapshot yet" if not screen.lost else "its snapshots are not known here"]
    if snapshot is not None and figures is not None:
        lines = [f"snapshot {snapshot.seq}, {age(snapshot.clock, screen.now)} ({local_time(snapshot.clock)})"]
        lines.append(f"{counted(figures.files, 'file')}, {size(figures.source_bytes)}")
        rest = f"{counted(figures.pending, 'file')} not in the vault yet; the next backup continues"
        lines += [rest] if figures.pending else []
        lines += [f"{counted(figures.busy, 'file')} with the version before"] if figures.busy else []
        if note is not None and note.last_success is not None and note.last_success - snapshot.clock > 60 * 10**9:
            lines.append(f"looked at {age(note.last_success, screen.now)}, nothing new since")
    problem = _source_problem(screen, source, note, has_snapshot=snapshot is not None)
    if note is not None and note.problems:
        lines.append(f"{counted(note.problems, 'remark')} in the last backup")
    lines += status_daemon.sources(screen.found, screen.now).get(source.name, [])
    screen.rows.append((printable(source.name), "\n".join(lines)))
    screen.sources.append(
        {
            "name": source.name,
            "path": source.path,
            "seq": None if snapshot is None else snapshot.seq,
            "time": None if snapshot is None else stamp(snapshot.clock),
            "complete": None if snapshot is None else snapshot.complete,
            "files": None if figures is None else figures.files,
            "source_bytes": None if figures is None else figures.source_bytes,
            "pending": None if figures is None else figures.pending,
            "busy": None if figures is None else figures.busy,
            "remarks": 0 if note is None else note.problems,
            "last_success": None if note is None or note.last_success is None else stamp(note.last_success),
            "last_error": None if problem is None else problem.code,
        }
    )


def _source_problem(screen: Screen, source: Source, note: BackupNote | None, *, has_snapshot: bool) -> Told | None:
    if note is not None and note.error is not None:
        told = tell_code(note.error, path=str(source.path))
        if not (screen.lost and note.error in {"state-lost", "state-rolled-back"}):  # that is told of the records
            screen.problem(source.name, told.text, told.remedy)
        return told
    last = None if note is None else note.last_success
    if last is not None and screen.now - last > STALE_NS:
        screen.problem(source.name, f"It was last backed up {age(last, screen.now)}.", "chatkeep backup")
    elif last is None and not has_snapshot and not screen.lost:
        screen.problem(source.name, "No backup of it is on record here.", "chatkeep backup")
    return None


def _providers(screen: Screen, config: Config, seen: Glance, out: Output) -> None:
    streams = {one.stream: (name, one.seq) for name, one in seen.sources().items()}
    for provider in config.providers:
        found = seen.provider(provider.name)
        behind = sum(seq - min(found.frontiers.get(stream, 0), seq) for stream, (_, seq) in streams.items())
        _provider(screen, provider, found, behind, out)
        _sweep(screen, seen.sweep(provider.name), out)


def _sweep(screen: Screen, found: SweepGlance, out: Output) -> None:
    """What the provider just shown is still to delete."""
    label, text = screen.rows.pop()
    if found.held_objects:
        them = f"{counted(found.held_objects, 'object')} of {size(found.held_bytes)}"
        text += "\n" + out.styled(f"storage keeps {them}: it does not let this device delete", "warn")
    if found.waiting_objects:
        text += f"\n{counted(found.waiting_objects, 'object')} of {size(found.waiting_bytes)} to be deleted"
        text += f", pruned {age(found.oldest, screen.now)}" if found.oldest is not None else ""
    screen.rows.append((label, text))
    screen.providers[-1] |= {
        "to_delete_objects": found.waiting_objects,
        "to_delete_bytes": found.waiting_bytes,
        "held_objects": found.held_objects,
        "held_bytes": found.held_bytes,
    }


def _provider(screen: Screen, provider: ProviderConfig, found: ProviderGlance, behind: int, out: Output) -> None:
    lines = []
    if found.waiting_objects:
        lines.append(f"{counted(behind, 'snapshot')} behind, {size(found.waiting_bytes)} to send")
    else:
        never = "nothing was sent yet" if not screen.lost else "what it has is not known here"
        all_there = "everything was handed over" if provider_standing.hands_over(provider) else "has everything"
        lines.append(all_there if found.last_success else never)
    if found.last_success:
        lines[0] += f", last upload {age(found.last_success, screen.now)}"
        if provider_standing.hands_over(provider):
            lines.append("another program uploads it; whether it arrived is not seen here")
    if found.left_behind is not None:
        lines.append(f"left behind {age(found.left_behind, screen.now)}: what it lacks is on this device no more")
        lines.append(f"the daemon brings it up from another provider, or: chatkeep mirror {printable(provider.name)}")
    if found.last_error is not None and found.last_error_at is not None:
        # Only codes are remembered. A device that uploads has a vault: making one is no remedy.
        code = found.last_error
        known = {"provider": provider.name} | ({"reason": "expected"} if code == "no-vault" else {})
        told = tell_code(code, name_provider=False, **known)
        lines.append(f"the last upload failed {age(found.last_error_at, screen.now)}")
        if provider.required:
            screen.problem(provider.name, told.text, told.remedy)
        else:
            lines.append(out.styled(f"{told.text} It is not required.", "dim"))
            if code in provider_standing.DOORS:  # nobody else can do that, and it is not going to pass
                lines.append(out.styled(told.remedy, "dim"))
    lines += status_daemon.providers(screen.found, screen.now).get(provider.name, [])
    lines += provider_usage.lines(provider, screen.now / 1e9)
    screen.rows.append((printable(provider.name), "\n".join(lines)))
    screen.providers.append(
        {
            "name": provider.name,
            "type": provider.type,
            "required": provider.required,
            "state": provider_standing.state(provider, found, lost=screen.lost),
            "snapshots_behind": behind,
            "waiting_objects": found.waiting_objects,
            "waiting_bytes": found.waiting_bytes,
            "last_success": None if found.last_success is None else stamp(found.last_success),
            "last_error": found.last_error,
            "last_error_at": None if found.last_error_at is None else stamp(found.last_error_at),
            "left_behind": None if found.left_behind is None else stamp(found.left_behind),
            **provider_usage.value(provider, screen.now / 1e9),
        }
    )
