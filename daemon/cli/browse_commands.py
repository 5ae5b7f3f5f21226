"""`chatkeep ls` and `chatkeep cat`: looking into a snapshot."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.measures import counted, local_time, printable, size, stamp
from chatkeep.daemon.cli.storage import from_option
from chatkeep.daemon.cli.telling import plain_error
from chatkeep.daemon.cli.unlocking import Secret, secret_options

if TYPE_CHECKING:
    from chatkeep.daemon.restore.browse import Listed
    from chatkeep.daemon.vault.layers import FileRecord
    from chatkeep.daemon.vault.reader import Snapshot


@click.command(cls=Command, short_help="List what is in a snapshot.")
@click.argument("snap")
@click.argument("path", required=False, default="")
@click.option("--recursive", "-R", is_flag=True, help="Everything below, not only the next level.")
@click.option("--source", metavar="SOURCE", help="The source, if the vault has several.")
@from_option
@secret_options
@pass_frame
def ls(
    frame: Frame, snap: str, path: str, recursive: bool, source: str | None, folder: Path | None, secret: Secret
) -> None:
    """List what is in a snapshot."""
    from chatkeep.daemon.cli import reading
    from chatkeep.daemon.restore.browse import list_tree
    from chatkeep.daemon.vault.stack import read_tree

    with reading.opened(frame, folder, secret) as vault:
        snapshot, label = vault.find(snap, source)
        top = _path(snapshot, path)
        listed = list(list_tree(read_tree(vault.reader, snapshot), top, recursive=recursive))
        findings = vault.findings()
        value = {
            "source": label,
            "seq": snapshot.header.seq,
            "id": snapshot.name.sha256.hex(),
            "path": top,
            "entries": [_value(one) for one in listed],
            "findings": [plain_error(finding) for finding in findings],
        }
        alone = len(listed) == 1 and listed[0].path == top
        prefix = b"" if recursive or alone or not top else top + b"/"
        rows = [_row(one, prefix) for one in listed]
        frame.out.table(value, ["mode", "size", "modified", "name", "notes"], rows, right=("size",))
        if not frame.out.as_json and frame.out.out.isatty():
            name = reading.name_of(snapshot)
            frame.out.note(frame.out.remark(f"{counted(len(rows), 'entry', 'entries')} in snapshot {name}", "dim"))
        if not frame.out.as_json:
            reading.tell_findings(frame.out, findings)


@click.command(cls=Command, short_help="Write a file of a snapshot to standard output.")
@click.argument("snap")
@click.argument("path")
@click.option("--source", metavar="SOURCE", help="The source, if the vault has several.")
@from_option
@secret_options
@pass_frame
def cat(frame: Frame, snap: str, path: str, source: str | None, folder: Path | None, secret: Secret) -> None:
    """Write a file of a snapshot to standard output, byte by byte as it was.

    A database is put together and proven before the first byte is written.
    """
    if frame.out.as_json:
        raise click.UsageError("cat writes the file itself; there is no --json of it.")
    from chatkeep.daemon.cli import reading
    from chatkeep.daemon.restore.browse import read_file
    from chatkeep.daemon.vault.stack import read_tree

    with reading.opened(frame, folder, secret) as vault:
        snapshot, _ = vault.find(snap, source)
        tree = read_tree(vault.reader, snapshot)
        frame.out.write_bytes(read_file(vault.reader, snapshot, tree, _path(snapshot, path)))
        reading.tell_findings(frame.out, vault.findings())


def _path(snapshot: Snapshot, path: str) -> bytes:
    from chatkeep.daemon.cli.restore_command import relative

    found = relative(snapshot, [path]) if path else None
    return b"" if found is None else found[0]


def _notes(record: FileRecord) -> list[str]:
    from chatkeep.daemon.vault.layers import BUSY, NEEDS_RECOVERY, OPAQUE, PENDING, FileKind

    names = {PENDING: "pending", BUSY: "older version", NEEDS_RECOVERY: "with its journal", OPAQUE: "encrypted"}
    kind = ["database"] if record.kind is FileKind.DATABASE else []
    return kind + [word for flag, word in names.items() if record.flags & flag]


def _row(one: Listed, prefix: bytes) -> list[str]:
    from chatkeep.daemon.vault.layers import FileKind

    record = one.record
    name = printable(one.path.removeprefix(prefix) or b".")
    if record.kind is FileKind.DIRECTORY:
        name += "/"
    elif record.kind is FileKind.SYMLINK:
        name += f" -> {printable(record.target)}"
    holds = record.kind in (FileKind.FILE, FileKind.DATABASE)
    return [
        stat.filemode(_TYPES[record.kind.name] | record.mode),
        size(record.size) if holds else "",
        local_time(record.mtime),
        name,
        ", ".join(_notes(record)),
    ]


_TYPES = {"DIRECTORY": stat.S_IFDIR, "FILE": stat.S_IFREG, "SYMLINK": stat.S_IFLNK, "DATABASE": stat.S_IFREG}


def _value(one: Listed) -> dict[str, Any]:
    from chatkeep.daemon.vault.layers import BUSY, OPAQUE, PENDING

    record = one.record
    return {
        "path": one.path,
        "kind": record.kind.name.lower(),
        "size": record.size,
        "modified": stamp(record.mtime),
        "mode": f"{record.mode:04o}",
        "user": record.user,
        "group": record.group,
        "link": record.target or None,
        "restorable": one.restorable,
        "pending": bool(record.flags & PENDING),
        "older_version": bool(record.flags & BUSY),
        "encrypted": bool(record.flags & OPAQUE),
    }
