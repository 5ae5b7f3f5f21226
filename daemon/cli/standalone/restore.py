"""Writing a snapshot into a folder. Nothing is written over, outside, or through a link."""

from __future__ import annotations

import contextlib
import os
import sys

from chatkeep.daemon.cli.standalone.layers import DATABASE, FILE, FOLDER, LINK, PENDING, File, Tree
from chatkeep.daemon.cli.standalone.packs import Packs, Read
from chatkeep.daemon.cli.standalone.snapshots import Snapshot, pruned_since
from chatkeep.daemon.cli.standalone.storage import Notes
from chatkeep.daemon.cli.standalone.strict import demand
from chatkeep.daemon.cli.standalone.vault import Vault


def restore(vault: Vault, snapshot: Snapshot, target: str) -> None:
    """Restores a snapshot into a folder that is new or empty; what is damaged is left out and noted.

    Raises FileExistsError, or another OSError of the target; what reading the layers raises.
    """
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        vault.notes.add(text)

    try:
        Writing(Packs(vault).blob, Notes(tell), snapshot, target).run()
    except OSError:
        raise  # of the target, or of storage as a whole
    except Exception:
        tell("the layers of the snapshot cannot be read")
        raise
    finally:
        if told and pruned_since(vault, snapshot):  # then what is missing is no damage [14]
            vault.notes.add(f"snapshot {snapshot.seq} was pruned while it was read: choose another")


class Writing:
    """One restore, under way."""

    def __init__(self, read: Read, notes: Notes, snapshot: Snapshot, target: str) -> None:
        self.read, self.notes, self.snapshot, self.target = read, notes, snapshot, target
        self.made: dict[int, bytes] = {}  # the first path of each file
        self.top = -1

    def run(self) -> None:
        """Restores everything that can be."""
        os.makedirs(self.target, 0o700, exist_ok=True)
        if os.listdir(self.target):
            raise FileExistsError(f"{self.target} is not empty")
        self.top = os.open(self.target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._write(Tree(self.read, self.snapshot))
        finally:
            os.close(self.top)

    def _write(self, tree: Tree) -> None:
        with self.notes.noting("databases"):
            tree.check_databases(self.snapshot)
        placed = self._placed(tree)
        for kinds in ((FOLDER,), (FILE, DATABASE), (LINK,)):  # links last: nothing is ever written through one
            for path, file in placed.items():
                if file.kind in kinds:
                    with self.notes.noting(os.fsdecode(path) or self.target):
                        self._make(tree, path, file)
        for path, file in reversed(placed.items()):  # from below: what is made in a folder changes its time
            if file.kind == FOLDER and file.id in self.made:
                with self.notes.noting(os.fsdecode(path) or self.target):
                    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                    dress(os.open(path or b".", flags, dir_fd=self.top), file)

    def _placed(self, tree: Tree) -> dict[bytes, File]:
        """What is to be made, those above first: what lies in a folder that is to be made itself."""
        placed: dict[bytes, File] = {}
        for path, file_id in sorted((path, file_id) for path, file_id in tree.paths.items() if file_id is not None):
            with self.notes.noting(os.fsdecode(path) or self.target):
                if file_id not in tree.files:
                    raise ValueError("nothing is known of it but its path")
                above = placed.get(os.path.dirname(path)) if path else tree.files[file_id]
                demand(above is not None and above.kind == FOLDER, "it lies in what is no folder")
                placed[path] = tree.files[file_id]
        return placed

    def _make(self, tree: Tree, path: bytes, file: File) -> None:
        if file.kind == FOLDER:
            if path:
                os.mkdir(path, 0o700, dir_fd=self.top)
        elif file.kind == LINK:
            os.symlink(file.target, path, dir_fd=self.top)
            os.utime(path, ns=(file.mtime, file.mtime), dir_fd=self.top, follow_symlinks=False)
        elif file.id in self.made:  # another path of one file
            os.link(self.made[file.id], path, src_dir_fd=self.top, dst_dir_fd=self.top)
        elif tree.stored(file):
            self._write_file(tree, path, file)
        else:
            demand(bool(file.flags & PENDING), "its content is nowhere")
            sys.stdout.write(f"not in the vault yet: {os.fsdecode(path)}\n")
            return
        self.made.setdefault(file.id, path)

    def _write_file(self, tree: Tree, path: bytes, file: File) -> None:
        """A file that was not there, and only if it is whole."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600, dir_fd=self.top)
        try:
            for kind, reference, length, copies in tree.pieces(file):
                raw = self.read(self.snapshot, kind, *reference)
                demand(len(raw) == length, "a blob of another length")
                for start, to, size in copies:
                    write_at(descriptor, memoryview(raw)[start : start + size], to)
            os.ftruncate(descriptor, tree.size(file))
        except BaseException:
            os.close(descriptor)
            os.unlink(path, dir_fd=self.top)
            raise
        dress(descriptor, file)


def write_at(descriptor: int, raw: memoryview, offset: int) -> None:
    """Writes all of it, in as many turns as the system takes."""
    while raw:
        written = os.pwrite(descriptor, raw, offset)
        raw, offset = raw[written:], offset + written


def dress(descriptor: int, file: File) -> None:
    """Gives a file or folder its attributes, and closes it. None that could grant rights: `user.` ones alone."""
    try:
        if hasattr(os, "setxattr"):  # Linux
            with contextlib.suppress(OSError):  # not every file system has them
                for name, value in file.xattrs:
                    if name.startswith(b"user."):
                        os.setxattr(descriptor, name, value)
        os.fchmod(descriptor, file.mode & 0o777)
        os.utime(descriptor, ns=(file.mtime, file.mtime))
    finally:
        os.close(descriptor)
