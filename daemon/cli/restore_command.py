"""`chatkeep restore`: a snapshot back into a directory, and the proof that it is what was captured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatkeep.daemon.cli.errors import TargetInsideVault
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.measures import counted, local_time, printable, size, stamp
from chatkeep.daemon.cli.output import Output, fields
from chatkeep.daemon.cli.stopping import stopping
from chatkeep.daemon.cli.storage import from_option, named
from chatkeep.daemon.cli.telling import plain_error, tell
from chatkeep.daemon.cli.unlocking import Secret, secret_options

if TYPE_CHECKING:
    from chatkeep.daemon.restore.apply import RestoreReport
    from chatkeep.daemon.restore.plan import RestorePlan
    from chatkeep.daemon.vault.reader import Snapshot

MOST_SHOWN = 10


@click.command(cls=Command, short_help="Restore a snapshot into a directory.")
@click.argument("snap")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--target", metavar="DIR", required=True, type=click.Path(path_type=Path), help="Where to restore to.")
@click.option("--overwrite", is_flag=True, help="Replace files of the target that stand in the way; leave the others.")
@click.option("--salvage", is_flag=True, help="Leave out what is damaged instead of stopping.")
@click.option("--owner", is_flag=True, help="Give files back to their owners too (root only).")
@click.option("--special-bits", is_flag=True, help="Give back setuid, setgid, sticky and what the system acts on too.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--source", metavar="SOURCE", help="The source, if the vault has several.")
@from_option
@secret_options
@pass_frame
def restore(
    frame: Frame,
    snap: str,
    paths: tuple[str, ...],
    target: Path,
    overwrite: bool,
    salvage: bool,
    owner: bool,
    special_bits: bool,
    dry_run: bool,
    source: str | None,
    folder: Path | None,
    secret: Secret,
) -> int:
    """Restore a snapshot into a directory.

    SNAP is latest, a number or the beginning of an id (see chatkeep snapshots), or a time: 2026-01-31, yesterday,
    3 days ago. With PATHs only those and what is below them.

    Everything is written beside the target, compared with what was captured, and only then given its name. Nothing that
    exists is replaced without --overwrite. Cut short, the same command goes on where it was.
    """
    from chatkeep.daemon.cli import allocator, reading
    from chatkeep.daemon.restore import snapshot as engine
    from chatkeep.daemon.restore.apply import Choices
    from chatkeep.daemon.restore.attributes import Attributes

    allocator.keep_blocks()

    out = frame.out
    refuse_vault(frame, folder, target)
    with reading.opened(frame, folder, secret) as vault:
        chosen, label = vault.find(snap, source)
        plan = engine.plan(vault.reader, chosen, relative(chosen, paths))
        if not out.as_json:
            _announce(out, chosen, label, plan, target)
        value = _plan_value(chosen, label, plan, target)
        if dry_run:
            out.result({**value, "restored": None, "findings": []}, "Nothing was written: --dry-run.")
            return Exit.DONE
        choices = Choices(overwrite, salvage, Attributes(owner, special_bits))
        with stopping() as stopped, out.progress(sized=True) as step:
            report = engine.restore(
                vault.reader,
                chosen,
                plan,
                os.fsencode(target),
                choices,
                progress=lambda done, total: step("restoring", done, total),
                cancelled=stopped,
            )
        findings = vault.findings()
        value |= {"restored": _report_value(plan, report), "findings": [plain_error(finding) for finding in findings]}
        out.result(value, *_proof(out, plan, report, target))
        if not out.as_json:
            reading.tell_findings(out, findings)
        return Exit.INTEGRITY if report.damaged else reading.weight(vault.hidden(snap, label))


def refuse_vault(frame: Frame, folder: Path | None, target: Path) -> None:
    """Raises TargetInsideVault: whoever reads the storage, or syncs it, would get everything as plain files."""
    from chatkeep.config.model import FolderOptions
    from chatkeep.daemon.restore.errors import writing

    with writing(os.fsencode(target)):  # there may be no current directory any more
        real = Path(os.path.realpath(target))
    places = [one.options.path for one in named(frame, folder) if isinstance(one.options, FolderOptions)]
    if folder is None:
        places.append(frame.config().state_dir)
    for place in places:
        if real.is_relative_to(os.path.realpath(place)):
            raise TargetInsideVault(path=str(target), folder=str(place))


def relative(snapshot: Snapshot, paths: Sequence[str]) -> list[bytes] | None:
    """Paths as a snapshot has them. They may be typed as they are on the machine they came from. None: everything."""
    top = snapshot.manifest.source_path.rstrip(b"/")
    found = []
    for path in map(os.fsencode, paths):
        inside = path == top or path.startswith(top + b"/")
        plain = os.path.normpath(path[len(top) :].lstrip(b"/") if inside else path)
        found.append(b"" if plain == b"." else plain)
    return found or None


def _announce(out: Output, snapshot: Snapshot, label: str, plan: RestorePlan, target: Path) -> None:
    manifest = snapshot.manifest
    files = len(plan.databases) + len(plan.extents)
    rows = [
        ("from", f"snapshot {snapshot.header.seq} of {printable(label)}, {local_time(manifest.clock)}"),
        ("to", printable(str(target))),
        ("what", f"{counted(files, 'file')}, {size(plan.figures.content)}" + _below(plan)),
    ]
    if plan.pending:
        rows.append(("missing", _paths(plan.pending, "not in the vault yet at that time")))
    if plan.stale:
        rows.append(("older", _paths(plan.stale, "with the version before, as they changed during the snapshot")))
    for line in fields(rows, indent=0):
        out.note(line)


def _below(plan: RestorePlan) -> str:
    return ", only what was asked for" if plan.partial else ""


def _paths(paths: Sequence[bytes], why: str) -> str:
    shown = [printable(path) for path in paths[:MOST_SHOWN]]
    rest = [f"and {len(paths) - MOST_SHOWN} more"] if len(paths) > MOST_SHOWN else []
    return "\n".join([f"{counted(len(paths), 'file')} {why}", *(f"  {line}" for line in (*shown, *rest))])


def _proof(out: Output, plan: RestorePlan, report: RestoreReport, target: Path) -> list[str]:
    databases, files = _proven(plan, report)
    words = [
        *([f"{counted(databases, 'database')} by the digest over all pages"] if databases else []),
        *([f"{counted(files, 'file')} by the ids of their content"] if files else []),
    ]
    bad = bool(report.damaged)
    head = out.styled("Restored, but for what is damaged." if bad else "Restored.", "bad" if bad else "good")
    rows = [("written", f"{size(report.content)} to {printable(str(target))}"), ("proven", "\n".join(words) or "names")]
    if report.reused:
        rows.append(("taken over", f"{counted(report.reused, 'file')} from an attempt that was cut short"))
    if report.damaged:
        shown = [f"{printable(path)}: {tell(error).text}" for path, error in report.damaged[:MOST_SHOWN]]
        rows.append((out.styled("damaged", "bad"), "\n".join(shown)))
    if report.unset_count:
        unset = [
            f"{printable(one.path)}: {printable(one.what)}: {os.strerror(one.errno)}"
            for one in report.unset[:MOST_SHOWN]
        ]
        rows.append(("not set", "\n".join(unset)))
    return [head, *fields(rows)]


def _proven(plan: RestorePlan, report: RestoreReport) -> tuple[int, int]:
    damaged = {plan.paths.get(path) for path, _ in report.damaged}
    return len(plan.databases.keys() - damaged), len(plan.extents.keys() - damaged)


def _plan_value(snapshot: Snapshot, label: str, plan: RestorePlan, target: Path) -> dict[str, Any]:
    return {
        "snapshot": {
            "source": label,
            "seq": snapshot.header.seq,
            "id": snapshot.name.sha256.hex(),
            "time": stamp(snapshot.manifest.clock),
        },
        "target": target,
        "files": plan.figures.files,
        "directories": plan.figures.directories,
        "bytes": plan.figures.content,
        "pending": plan.pending,
        "older_version": plan.stale,
    }


def _report_value(plan: RestorePlan, report: RestoreReport) -> dict[str, Any]:
    databases, files = _proven(plan, report)
    return {
        "files": report.files,
        "bytes": report.content,
        "databases_proven": databases,
        "files_proven": files,
        "reused": report.reused,
        "damaged": [{"path": path, "error": plain_error(error)} for path, error in report.damaged],
        "attributes_not_set": report.unset_count,
    }
