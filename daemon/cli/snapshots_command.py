"""`chatkeep snapshots`: what there is to restore."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.measures import local_time, printable, size, stamp
from chatkeep.daemon.cli.storage import from_option
from chatkeep.daemon.cli.telling import plain_error
from chatkeep.daemon.cli.unlocking import Secret, secret_options

if TYPE_CHECKING:
    from chatkeep.daemon.cli.reading import History
    from chatkeep.daemon.vault.reader import Snapshot

SHOWN = 30  # of each source, unless --all


@click.command(cls=Command, short_help="List the snapshots.")
@click.option("--source", metavar="SOURCE", help="Only those of this source.")
@click.option("--all", "everything", is_flag=True, help=f"Not only the newest {SHOWN} of each source.")
@from_option
@secret_options
@pass_frame
def snapshots(frame: Frame, source: str | None, everything: bool, folder: Path | None, secret: Secret) -> int:
    """List the snapshots, newest first."""
    from chatkeep.daemon.cli import reading

    with reading.opened(frame, folder, secret) as vault:
        limit = None if everything else SHOWN
        listed: list[tuple[str, Snapshot]] = []
        more: list[str] = []
        for history in vault.of_source(source):
            shown, rest = _newest(history, limit)
            listed += [(history.label, one) for one in shown]
            more += [printable(history.label)] if rest else []
        findings = vault.findings()
        value = {
            "vault": vault.vault.vault_id.hex(),
            "snapshots": [_value(label, one) for label, one in listed],
            "more": more,
            "findings": [plain_error(finding) for finding in findings],
        }
        rows = [_row(label, one) for label, one in listed]
        if rows or frame.out.as_json:
            columns = ["snapshot", "id", "time", "source", "files", "size", "stored", "notes"]
            frame.out.table(value, columns, rows, right=("snapshot", "files", "size", "stored"))
        else:
            frame.out.note("There are no snapshots yet.")
        if not frame.out.as_json:
            if more:
                frame.out.note(f"There are older ones of {', '.join(more)}: --all")
            reading.tell_findings(frame.out, findings)
        return reading.weight(findings)


def _newest(history: History, limit: int | None) -> tuple[Sequence[Snapshot], bool]:
    if limit is None:
        return list(history), False
    drawn = list(islice(history, limit + 1))
    return drawn[:limit], len(drawn) > limit


def _row(label: str, one: Snapshot) -> list[str]:
    from chatkeep.daemon.cli.reading import short_id

    manifest = one.manifest
    figures = manifest.statistics
    remarks = [f"{count} {word}" for count, word in ((manifest.pending, "pending"), (manifest.busy, "busy")) if count]
    return [
        str(one.header.seq),
        short_id(one),
        local_time(manifest.clock),
        label,
        f"{figures.files:,}",
        size(figures.source_bytes),
        size(figures.new_packs),
        ", ".join(remarks),
    ]


def _value(label: str, one: Snapshot) -> dict[str, Any]:
    manifest = one.manifest
    figures = manifest.statistics
    return {
        "source": label,
        "seq": one.header.seq,
        "id": one.name.sha256.hex(),
        "time": stamp(manifest.clock),
        "host": manifest.host,
        "path": manifest.source_path,
        "complete": manifest.complete,
        "consistent_group": manifest.group,
        "files": figures.files,
        "source_bytes": figures.source_bytes,
        "databases": manifest.databases,
        "pending": manifest.pending,
        "busy": manifest.busy,
        "new_bytes": figures.new_plaintext,
        "stored_bytes": figures.new_packs,
    }
