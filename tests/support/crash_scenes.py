"""What a device is in the middle of when it dies, and what must be true whatever was left of it.

A scene is a device whose state and two storage folders lie below one directory, `root`, and one piece of work. It runs
in a process with the seam in it (see `seam`), so everything that the work changes below `root` is a step. Both folders
are on one file system: the first takes over the very files of the outbox, the second gets its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Final

import pytest

from chatkeep.config.model import Source
from chatkeep.daemon.backup import run as backup_run
from chatkeep.daemon.backup.lineage import inspect
from chatkeep.daemon.backup.run import back_up
from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.cli.init_command import make_state_dir
from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.keys.recovery import generate
from chatkeep.daemon.restore.apply import Choices
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.state import State
from chatkeep.daemon.sync.upload import Pace, release, upload
from chatkeep.daemon.vault.create import Way, create_vault
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.snapshots import Stream
from chatkeep.daemon.vault.unlock import unlock
from chatkeep.providers.folder import FolderProvider
from chatkeep.providers.wrap import Patience
from tests.support.invariants import check_state
from tests.support.sources import HOUR, Clock, database, fill

STORAGE: Final = ("one", "two")
Note = Callable[[str], None]
Contents = dict[str, str]


class Scene:
    """A backup of a source that was backed up once, and has changed since."""

    name: ClassVar[str] = "backup"

    def __init__(self, room: Path) -> None:
        self.room = room
        self.root = room / "root"
        self.source = room / "source"
        self.target = room / "target"
        for path in (self.root, self.source):
            path.mkdir(mode=0o700)
        self.clock = Clock()
        self.recovery = generate()
        self.expected: dict[int, Contents] = {}
        made = create_vault(self.storage(create=True), [Way(RecoveryMethod(self.recovery), "paper")], 1)
        self.credential = made.credential
        self._proven: dict[bytes, list[int]] = {}  # by all objects of a folder, names and bytes
        self.prepare()
        self.acknowledged_before = len(self.expected) - 1  # that both folders have
        self.changed = {path: path.read_bytes() for path in self.source.iterdir()}
        shutil.copytree(self.root, room / "template")

    # -- what a scene is --------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Bring source and device to where the work begins."""
        self.save_credential()
        fill(self.source / "a.db", 40, page_size=512)
        fill(self.source / "gone.db", 5)
        (self.source / "file").write_bytes(os.urandom(3000))
        (self.source / "other").write_text("first")
        self.back_up()
        self.change()

    def work(self, note: Note) -> None:
        """What is interrupted."""
        self.back_up(note)

    # -- the device -------------------------------------------------------------------------------------------------

    def storage(self, *, create: bool = False) -> list[FolderProvider]:
        """The folders, opened as a new process opens them."""
        return [FolderProvider(name, self.root / name, create=create) for name in STORAGE]

    def save_credential(self) -> None:
        """As `init` does."""
        make_state_dir(SimpleNamespace(state_dir=self.root / "state"))  # type: ignore[arg-type]
        self.credential.save(self.root / "state" / "chatkeep-writer")

    def check_credential(self, told: bool) -> None:
        """The file is whole, or not there; once the device was told that it is there, it is."""
        path = self.root / "state" / "chatkeep-writer"
        assert path.exists() or not told, "the key for writing is gone"
        if path.exists():
            assert WriterCredential.load(path).encode() == self.credential.encode()

    def open_state(self) -> State:
        """As every command does."""
        return State.open(self.root / "state", self.credential.vault_id, self.credential.device_id)

    def back_up(self, note: Note = lambda _: None, *, send: bool = True) -> int:
        """One backup as the command makes it, from recovery to release. Returns the newest snapshot's number."""
        with self.open_state() as state:
            assert state.outbox.recover() == [], "a committed object was lost"
            writer = Writer(self.credential, state, clock=self.clock)
            result = back_up(writer, Source(self.source, name="chat", exclude=()))
            state.note_backup("chat", self.clock(), 0, None)
            if result.snapshots:
                self.expected[result.last_seq] = self.contents(self.source)
            note("committed")
            if send:
                for provider in self.storage():
                    pace = Pace(1, Patience(attempts=1))
                    sent = upload(state.outbox, provider, pace=pace)
                    if sent.problems:
                        raise sent.problems[0]
                    note(f"acknowledged {provider.name} {max(sent.frontiers.values(), default=0)}")
                release(state.outbox, STORAGE)
        return result.last_seq

    # -- the source -------------------------------------------------------------------------------------------------

    def change(self) -> None:
        """Pages change and go, a file gets another content, a database is deleted."""
        self.original = (self.source / "a.db").read_bytes()
        with database(self.source / "a.db") as db:
            db.execute("UPDATE message SET text = 'changed' WHERE id % 3 = 0")
            db.execute("DELETE FROM message WHERE id > 30")
            db.execute("VACUUM")
        (self.source / "other").write_text("second")
        (self.source / "gone.db").unlink()
        self.expected[len(self.expected) + 1] = self.contents(self.source)

    def change_after(self) -> None:
        """Pages go back to what they were, and one is new: what a digest that ran ahead would miss."""
        (self.source / "a.db").write_bytes(self.original)
        with database(self.source / "a.db") as db:
            db.execute("UPDATE message SET text = 'later' WHERE id = 1")

    def reset(self) -> None:
        """As it was before the work."""
        shutil.rmtree(self.root)
        shutil.copytree(self.room / "template", self.root)
        self.reset_source()

    def reset_source(self) -> None:
        """The source as it was when it happened."""
        for path, body in self.changed.items():
            path.write_bytes(body)
        for seq in range(self.acknowledged_before + 1, self.acknowledged_before + 5):
            self.expected[seq] = self.contents(self.source)

    @staticmethod
    def contents(top: Path) -> Contents:
        """The hash of every file by its name."""
        return {
            str(path.relative_to(top)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in top.rglob("*")
            if path.is_file() and not path.name.endswith(("-wal", "-shm"))
        }

    # -- what must be true ------------------------------------------------------------------------------------------

    def check(self, told: Sequence[str] = ()) -> None:
        """Whatever happened. `told`: what the work had noted until then."""
        acknowledged = {words[1]: int(words[2]) for words in map(str.split, told) if words[0] == "acknowledged"}
        self.check_credential("credential" in told or self.name != "first")
        for provider in self.storage():
            self.check_seqs(self.check_storage(provider), acknowledged.get(provider.name, self.acknowledged_before))
        self.check_lineage()
        self.change_after()
        before = self.seqs_of_state()
        last = self.back_up()
        assert last in (before + 1, before), "the chain does not continue"
        with self.open_state() as state:
            check_state(state, Writer(self.credential, state).ids)
            assert state.outbox.waiting() == (0, 0)
        for provider in self.storage():
            assert self.check_storage(provider, only=last)[-1] == last

    def check_seqs(self, seqs: Sequence[int], promised: int) -> None:
        """One folder shows these snapshots; so many were promised."""
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) >= promised, f"{promised} were acknowledged, there are {seqs}"

    def check_lineage(self) -> None:
        """No crash passes for a copy of the records, or for older ones."""
        if not (self.root / "state" / "state.db").exists():
            return
        with self.open_state() as state:
            for provider in self.storage():
                found = inspect(provider, self.credential, state)
                assert (found.ahead, found.strangers, found.checkpoint) == (set(), set(), 0), "taken for another copy"

    def seqs_of_state(self) -> int:
        """The newest snapshot of which the device knows."""
        with self.open_state() as state:
            return state.stream("chat").seq

    def check_storage(self, provider: FolderProvider, only: int | None = None) -> list[int]:
        """Every object is what its name says, the chain is whole, every snapshot in it restores. Returns their numbers.

        What was found right once with the same objects is not looked at again.
        """
        total = hashlib.sha256()
        for found in sorted(provider.list(""), key=lambda each: each.name):
            body = provider.get(found.name)
            if "/p/" in found.name or "/s/" in found.name:
                assert found.name.endswith(hashlib.sha256(body).hexdigest()), f"{found.name} holds other bytes"
            total.update(found.name.encode() + hashlib.sha256(body).digest())
        if total.digest() not in self._proven:
            reader, snapshots = self.snapshots(provider)
            for snapshot in snapshots:
                if only in (None, snapshot.header.seq):
                    self._restore(reader, snapshot)
            self._proven[total.digest()] = sorted(snapshot.header.seq for snapshot in snapshots)
        return self._proven[total.digest()]

    def snapshots(self, provider: FolderProvider) -> tuple[VaultReader, list[Snapshot]]:
        """All snapshots there, newest first; the chain must be flawless."""
        reader = VaultReader([provider], unlock(provider, RecoveryMethod(self.recovery)))
        chains = [reader.chain(stream) for stream in self.streams(reader)]
        found = [snapshot for chain in chains for snapshot in reader.snapshots(chain)]
        for chain in chains:
            assert list(chain.findings) == []
        return reader, found

    def streams(self, reader: VaultReader) -> list[Stream]:
        """The one chain of the device, as soon as it has one."""
        streams = reader.streams()
        assert len(streams) <= 1, "the device began a second stream"
        return streams

    def expects(self, snapshot: Snapshot) -> list[Contents]:
        """What the snapshot may hold."""
        return [self.expected[snapshot.header.seq]]

    def _restore(self, reader: VaultReader, snapshot: Snapshot) -> None:
        shutil.rmtree(self.target, ignore_errors=True)
        restore(reader, snapshot, plan(reader, snapshot), os.fsencode(self.target), Choices())
        found = self.contents(self.target)
        assert found in self.expects(snapshot), f"snapshot {snapshot.header.seq} restores to something else"


class First(Scene):
    """A new device: its key is saved, its state made, its first backup sent."""

    name = "first"

    def prepare(self) -> None:
        fill(self.source / "a.db", 20, page_size=512)
        (self.source / "file").write_bytes(os.urandom(3000))
        self.original = (self.source / "a.db").read_bytes()
        with database(self.source / "a.db") as db:
            db.execute("UPDATE message SET text = 'changed' WHERE id % 3 = 0")
        self.expected[1] = self.contents(self.source)

    def work(self, note: Note) -> None:
        self.save_credential()
        note("credential")
        self.back_up(note)


class Folding(Scene):
    """A backup that folds hours into a day."""

    name = "fold"

    def prepare(self) -> None:
        super().prepare()
        for hours in (1, 1, 25):
            self.back_up()
            self.clock.now += hours * HOUR
            with database(self.source / "a.db") as db:
                db.execute(f"UPDATE message SET text = 'after {hours}' WHERE id % 5 = {len(self.expected) % 5}")
            self.expected[len(self.expected) + 1] = self.contents(self.source)


class Recovery(Scene):
    """A start after a crash: rows whose files lie ready, digests to be redone, files that nobody needs."""

    name = "recovery"

    def prepare(self) -> None:
        super().prepare()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backup_run, "replay_redo", lambda *_: None)  # as if it had died right after the commit
            self.back_up(send=False)
        outbox = self.root / "state" / "outbox"
        (outbox / "tmp" / "half a pack").write_bytes(b"half")
        (outbox / ("0" * 64)).write_bytes(b"a pack of a snapshot that never was")
