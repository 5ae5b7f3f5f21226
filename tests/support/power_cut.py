"""What a disk holds after a power cut: everything that was synced, and of the rest whatever the cut left.

A file's bytes are safe up to the last sync of that file, a directory's names up to the last sync of that directory,
and nothing orders the two. (The model of "All File Systems Are Not Created Equal", OSDI 2014, with no promise added
that a certain file system makes.)
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from tests.support.seam import Event, Kind

Change: TypeAlias = tuple[int, bytes]  # offset and bytes; a cut has no bytes
NameChange: TypeAlias = "tuple[str, Node | None]"


class Variant(NamedTuple):
    """How much of what was not synced a cut leaves: of bytes and of names."""

    bytes: str
    names: str

    def __str__(self) -> str:
        return f"bytes {self.bytes}, names {self.names}"


KEPT: Final = Variant("kept", "kept")
"""As a kill leaves it."""
VARIANTS: Final = (
    KEPT,
    Variant("lost", "lost"),
    Variant("lost", "kept"),
    Variant("kept", "lost"),
    Variant("first half", "first half"),
)
MORE_VARIANTS: Final = (
    *VARIANTS,
    Variant("zeros", "kept"),
    Variant("last half", "kept"),
    Variant("first half", "kept"),
    Variant("kept", "first half"),
    Variant("kept", "last half"),
    Variant("last half", "last half"),
    Variant("torn", "kept"),
)


@dataclass(eq=False)
class Node:
    """A file or a directory, whatever it is called now."""

    is_directory: bool
    synced: bytes = b""
    changes: list[Change] = field(default_factory=list)
    synced_names: dict[str, Node] = field(default_factory=dict)
    name_changes: list[NameChange] = field(default_factory=list)

    def sync(self) -> None:
        """Everything so far is safe."""
        if self.is_directory:
            self.synced_names, self.name_changes = self.names("kept"), []
        else:
            self.synced, self.changes = self.content("kept"), []

    def content(self, policy: str) -> bytes:
        """The bytes that a cut leaves."""
        body = bytearray(self.synced)
        if policy == "zeros":
            body.extend(bytes(max(0, len(_applied(bytearray(self.synced), self.changes)) - len(body))))
            return bytes(body)
        if policy == "torn" and self.changes:
            *whole, (offset, piece) = self.changes
            return bytes(_applied(body, [*whole, (offset, piece[: len(piece) // 2])] if piece else whole))
        return bytes(_applied(body, _part(self.changes, policy)))

    def names(self, policy: str) -> dict[str, Node]:
        """The names that a cut leaves in a directory."""
        names = dict(self.synced_names)
        for name, node in _part(self.name_changes, policy):
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node
        return names


Image: TypeAlias = "dict[str, Node]"


class Disk:
    """The directory below which everything was recorded."""

    def __init__(self, before: Path) -> None:
        self._inodes: dict[int, Node] = {}
        self.root = self._read(before)

    def play(self, event: Event) -> None:
        """One step is made."""
        if event.kind in (Kind.CREATE, Kind.MKDIR):
            node = self._inodes[event.inode] = Node(event.kind == Kind.MKDIR)
            self._name(event.path, node)
        elif event.kind == Kind.WRITE:
            self._inodes[event.inode].changes.append((event.offset, event.more))
        elif event.kind == Kind.CUT:
            self._inodes[event.inode].changes.append((event.offset, b""))
        elif event.kind == Kind.SYNC:
            self._inodes[event.inode].sync()
        elif event.kind in (Kind.RENAME, Kind.LINK):
            node = self._inodes[event.inode]
            self._name(os.fsdecode(event.more), node)
            if event.kind == Kind.RENAME:
                self._name(event.path, None)
        elif event.kind in (Kind.UNLINK, Kind.RMDIR):
            self._name(event.path, None)

    def image(self, variant: Variant) -> Image:
        """What a cut leaves: nodes by path, directories before what is in them."""
        found: Image = {}

        def look(directory: Node, above: str) -> None:
            for name, node in sorted(directory.names(variant.names).items()):
                found[above + name] = node
                if node.is_directory:
                    look(node, f"{above}{name}/")

        look(self.root, "")
        return found

    def _name(self, path: str, node: Node | None) -> None:
        above, _, name = path.rpartition("/")
        directory = self.root
        for part in above.split("/") if above else ():
            directory = directory.names("kept")[part]
        directory.name_changes.append((name, node))

    def _read(self, path: Path) -> Node:
        facts = path.lstat()
        if facts.st_ino in self._inodes:
            return self._inodes[facts.st_ino]
        node = self._inodes[facts.st_ino] = Node(path.is_dir())
        if node.is_directory:
            node.synced_names = {each.name: self._read(each) for each in path.iterdir() if not _is_index(each.name)}
        else:
            node.synced = path.read_bytes()
        return node


def digest_of(image: Image, variant: Variant) -> bytes:
    """Two cuts with one digest left the same."""
    total = hashlib.sha256()
    for path, node in image.items():
        body = b"" if node.is_directory else hashlib.sha256(node.content(variant.bytes)).digest()
        total.update(f"{path}\0{len(body)}\0".encode() + body)
    return total.digest()


def write_image(image: Image, variant: Variant, target: Path) -> None:
    """Make the directory anew as the cut left it; names of one file stay names of one file."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    first: dict[int, Path] = {}
    for path, node in image.items():
        place = target / path
        if node.is_directory:
            place.mkdir(mode=0o700)
        elif id(node) in first:
            os.link(first[id(node)], place)
        else:
            first[id(node)] = place
            place.write_bytes(node.content(variant.bytes))
            place.chmod(0o600)


def tree_of(path: Path) -> dict[str, bytes | None]:
    """Every file below a directory with its bytes, every directory with None; no shared memory."""
    return {
        str(each.relative_to(path)): None if each.is_dir() else each.read_bytes()
        for each in path.rglob("*")
        if not _is_index(each.name)
    }


def cuts(disk: Disk, events: Sequence[Event], variants: Sequence[Variant]) -> Iterator[tuple[int, Variant, Image]]:
    """The image of every cut: after so many events, each variant. The disk is as it was before them."""
    for variant in variants:
        yield 0, variant, disk.image(variant)
    for number, event in enumerate(events, 1):
        disk.play(event)
        if event.kind != Kind.NOTE:
            for variant in variants:
                yield number, variant, disk.image(variant)


def _part(changes: list, policy: str) -> list:  # type: ignore[type-arg]
    half = (len(changes) + 1) // 2
    return {"kept": changes, "lost": [], "first half": changes[: len(changes) // 2], "last half": changes[half:]}[
        "kept" if policy in ("zeros", "torn") else policy
    ]


def _applied(body: bytearray, changes: Sequence[Change]) -> bytearray:
    for offset, piece in changes:
        if not piece:
            del body[offset:]
        body.extend(bytes(max(0, offset - len(body))))
        body[offset : offset + len(piece)] = piece
    return body


def _is_index(name: str) -> bool:
    return name.endswith("-shm")
