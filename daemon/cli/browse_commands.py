"""`chatkeep ls` and `chatkeep cat`: looking into a snapshot."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.measures import counted, local_time, printable, size, stamp
from chatkeep.daemon.cli.output import ReaderLeft
from chatkeep.daemon.cli.storage import from_option
from chatkeep.daemon.cli.unlocking import Secret, secret_options

if TYPE_CHECKING:
    from chatkeep.daemon.cli.reading import OpenVault
    from chatkeep.daemon.vault.layers import Extent, FileRecord
    from chatkeep.daemon.vault.reader import Snapshot
    from chatkeep.daemon.vault.resolve import Tree

AT_ONCE = 16  # blobs of at most 1 MiB that are held in memory


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
    from chatkeep.daemon.vault.stack import read_tree

    with reading.opened(frame, folder, secret) as vault:
        snapshot, label = vault.find(snap, source)
        tree = read_tree(vault.reader, snapshot)
        top = _known(snapshot, tree, path)
        chosen = list(_chosen(tree, top, recursive))
        value = {
            "source": label,
            "seq": snapshot.header.seq,
            "id": snapshot.name.sha256.hex(),
            "path": top,
            "entries": [_value(own, tree.files[tree.paths[own]]) for own in chosen],
        }
        prefix = b"" if recursive or top in chosen else top + b"/" if top else b""
        rows = [_row(own.removeprefix(prefix), tree.files[tree.paths[own]]) for own in chosen]
        frame.out.table(value, ["mode", "size", "modified", "name", "notes"], rows)
        if not frame.out.as_json and frame.out.out.isatty():
            name = reading.name_of(snapshot)
            frame.out.note(frame.out.remark(f"{counted(len(rows), 'entry', 'entries')} in snapshot {name}", "dim"))


@click.command(cls=Command, short_help="Write a file of a snapshot to standard output.")
@click.argument("snap")
@click.argument("path")
@click.option("--source", metavar="SOURCE", help="The source, if the vault has several.")
@from_option
@secret_options
@pass_frame
def cat(frame: Frame, snap: str, path: str, source: str | None, folder: Path | None, secret: Secret) -> None:
    """Write a file of a snapshot to standard output, byte by byte as it was.

    A database is put together and proven in a private temporary directory first.
    """
    if frame.out.as_json:
        raise click.UsageError("cat writes the file itself; there is no --json of it.")
    from chatkeep.daemon.cli import reading
    from chatkeep.daemon.vault.layers import FileKind
    from chatkeep.daemon.vault.stack import read_tree

    with reading.opened(frame, folder, secret) as vault:
        snapshot, _ = vault.find(snap, source)
        tree = read_tree(vault.reader, snapshot)
        own = _known(snapshot, tree, path)
        record = tree.files[tree.paths[own]]
        if record.kind is FileKind.DIRECTORY:
            raise click.BadParameter(f"{printable(own or b'.')} is a directory", param_hint="PATH")
        try:
            if record.kind is FileKind.SYMLINK:
                sys.stdout.buffer.write(record.target)
            elif record.kind is FileKind.DATABASE:
                _write_database(vault, snapshot, own, sys.stdout.buffer)
            else:
                _write_file(vault, snapshot, tree.extents(tree.paths[own]), sys.stdout.buffer)
            sys.stdout.buffer.flush()
        except BrokenPipeError as exc:
            raise ReaderLeft from exc


def _write_file(vault: OpenVault, snapshot: Snapshot, extents: Sequence[Extent], out: BinaryIO) -> None:
    """In order, some blobs at a time: memory does not follow the size of the file."""
    from chatkeep.daemon.vault.blob import BlobKind, BlobRef

    for first in range(0, len(extents), AT_ONCE):
        part = extents[first : first + AT_ONCE]
        refs = {
            (ref.pack, ref.slot): BlobRef(ref.pack, ref.slot, ref.id)
            for extent in part
            if (ref := extent.reference) is not None and ref.pack is not None
        }
        fetched = {
            (ref.pack, ref.slot): content
            for ref, content in vault.reader.fetch_blobs(snapshot, BlobKind.CHUNK, refs.values())
        }
        for extent in part:
            ref = extent.reference
            if ref is None:
                _write_zeros(extent.length, out)
            else:
                out.write(fetched[ref.pack or b"", ref.slot])


def _write_zeros(length: int, out: BinaryIO) -> None:
    block = bytes(min(length, 1 << 20))
    while length:
        length -= out.write(block[: min(length, len(block))])


def _write_database(vault: OpenVault, snapshot: Snapshot, path: bytes, out: BinaryIO) -> None:
    from chatkeep.daemon.restore import snapshot as engine

    with tempfile.TemporaryDirectory(prefix="chatkeep-") as private:
        target = os.path.join(private, "out")
        engine.restore(vault.reader, snapshot, engine.plan(vault.reader, snapshot, [path]), os.fsencode(target))
        with open(os.path.join(os.fsencode(target), path), "rb") as file:
            while block := file.read(1 << 20):
                out.write(block)


def _known(snapshot: Snapshot, tree: Tree, path: str) -> bytes:
    from chatkeep.daemon.cli.restore_command import relative
    from chatkeep.daemon.restore.errors import PathNotInSnapshot
    from chatkeep.daemon.restore.plan import nearest

    found = relative(snapshot, [path]) if path else None
    own = b"" if found is None else found[0]
    if own not in tree.paths:
        raise PathNotInSnapshot(path=own, nearest=nearest(tree.paths, own))
    return own


def _chosen(tree: Tree, top: bytes, recursive: bool) -> Iterator[bytes]:
    from chatkeep.daemon.vault.layers import FileKind

    if tree.files[tree.paths[top]].kind is not FileKind.DIRECTORY:
        yield top
        return
    prefix = top + b"/" if top else b""
    for path in sorted(tree.paths):
        inside = path != top and path.startswith(prefix)
        if inside and (recursive or b"/" not in path[len(prefix) :]):
            yield path


def _notes(record: FileRecord) -> list[str]:
    from chatkeep.daemon.vault.layers import BUSY, NEEDS_RECOVERY, OPAQUE, PENDING, FileKind

    names = {PENDING: "pending", BUSY: "older version", NEEDS_RECOVERY: "with its journal", OPAQUE: "encrypted"}
    kind = ["database"] if record.kind is FileKind.DATABASE else []
    return kind + [word for flag, word in names.items() if record.flags & flag]


def _row(path: bytes, record: FileRecord) -> list[str]:
    from chatkeep.daemon.vault.layers import FileKind

    name = printable(path or b".")
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


def _value(path: bytes, record: FileRecord) -> dict[str, Any]:
    from chatkeep.daemon.vault.layers import BUSY, OPAQUE, PENDING

    return {
        "path": path,
        "kind": record.kind.name.lower(),
        "size": record.size,
        "modified": stamp(record.mtime),
        "mode": f"{record.mode:04o}",
        "user": record.user,
        "group": record.group,
        "link": record.target or None,
        "pending": bool(record.flags & PENDING),
        "older_version": bool(record.flags & BUSY),
        "encrypted": bool(record.flags & OPAQUE),
    }
