"""A vault with a bit of everything, what its newest snapshot must look like restored, and ways to look."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

from chatkeep.daemon.restore.apply import Choices, RestoreReport
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.vault.reader import Snapshot
from tests.support.vault_maker import MTIME, VaultMaker, chunks

PAGE = 512
SECOND = MTIME + 1_000_000_000


class Sample:
    """A vault with two snapshots of one source; `shape` is how the newest must come out."""

    def __init__(self, directory: Path) -> None:
        chance = random.Random(7)
        self.maker = VaultMaker(directory, blobs_per_pack=3)
        maker = self.maker
        image = bytearray(chance.randbytes(PAGE * 5000))  # three base runs
        big = chance.randbytes((1 << 20) + 77)
        maker.directory(b"", mode=0o750)
        maker.directory(b"media", mode=0o555)  # may not be written once it is finished
        maker.directory(b"media/\xff odd", mtime=SECOND)
        maker.file(b"media/note.txt", b"note", mode=0o400)
        first = maker.file(b"media/video", *chunks(big))
        maker.link(b"media/\xff odd/video", first)
        maker.file(b"sparse", b"begin", 3 << 20, b"end")
        maker.file(b"empty")
        maker.file(b"gone", b"gone")
        maker.symlink(b"link", b"media/note.txt", mtime=SECOND)
        maker.symlink(b"dangling", b"/nowhere/at all")
        maker.database(b"msg.db", bytes(image), PAGE)
        maker.file(b"msg.db-journal", b"the journal of a transaction that was cut off")
        maker.commit()
        image[PAGE * 9 : PAGE * 10] = b"9" * PAGE
        del image[PAGE * 4900 :]
        image += b"n" * (PAGE * 7)
        maker.remove(b"gone")
        maker.database(b"msg.db", bytes(image), PAGE)
        self.snapshot: Snapshot = maker.commit()
        # Kind, mode, time and content of every path.
        self.shape: dict[bytes, tuple[object, ...]] = {
            b"": ("directory", 0o750, MTIME),
            b"media": ("directory", 0o555, MTIME),
            b"media/\xff odd": ("directory", 0o755, SECOND),
            b"media/note.txt": ("file", 0o400, MTIME, b"note"),
            b"media/video": ("file", 0o644, MTIME, big),
            b"media/\xff odd/video": ("file", 0o644, MTIME, big),
            b"sparse": ("file", 0o644, MTIME, b"begin" + bytes(3 << 20) + b"end"),
            b"empty": ("file", 0o644, MTIME, b""),
            b"link": ("link", SECOND, b"media/note.txt"),
            b"dangling": ("link", MTIME, b"/nowhere/at all"),
            b"msg.db": ("file", 0o644, MTIME, bytes(image)),
            b"msg.db-journal": ("file", 0o644, MTIME, b"the journal of a transaction that was cut off"),
        }

    def restore(self, target: Path, paths: list[bytes] | None = None, **choices: object) -> RestoreReport:
        """Plan and restore the newest snapshot with a fresh reader."""
        reader = self.maker.reader()
        made = plan(reader, self.snapshot, paths)
        return restore(reader, self.snapshot, made, os.fsencode(target), Choices(**choices))  # type: ignore[arg-type]


def shape_of(top: Path) -> dict[bytes, tuple[object, ...]]:
    """Kind, mode, time and content of everything below a directory and of itself. Looks as the superuser would."""
    root = os.fsencode(top)
    found = {b"": _one(root)}
    for above, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(above, name)
            found[os.path.relpath(path, root)] = _one(path)
    return found


def _one(path: bytes) -> tuple[object, ...]:
    facts = os.lstat(path)
    if stat.S_ISLNK(facts.st_mode):
        return ("link", facts.st_mtime_ns, os.readlink(path))
    if stat.S_ISDIR(facts.st_mode):
        return ("directory", stat.S_IMODE(facts.st_mode), facts.st_mtime_ns)
    with open(path, "rb") as file:
        return ("file", stat.S_IMODE(facts.st_mode), facts.st_mtime_ns, file.read())


def gets(maker: VaultMaker, since: int) -> set[str]:
    """Objects that the provider was asked for since its `since`-th call."""
    return {name for verb, name in maker.provider.verbs[since:] if verb == "get"}


def unlock_directories(top: Path) -> None:
    """Make everything removable again."""
    for above, _, _ in os.walk(top):
        os.chmod(above, 0o700)
