"""The whole way in one process: a source, a device, storage in memory, and back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chatkeep.config.model import Source
from chatkeep.daemon.backup.run import SourceResult, back_up
from chatkeep.daemon.backup.writer import BUDGET, Writer
from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.keys.recovery import RecoveryKey, generate
from chatkeep.daemon.restore.apply import Choices, RestoreReport
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.state import State
from chatkeep.daemon.sync.upload import release, upload
from chatkeep.daemon.vault.create import Way, create_vault
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.unlock import unlock
from tests.support.independent import Objects, again, due
from tests.support.invariants import check_state
from tests.support.memory_provider import MemoryProvider


@dataclass
class Device:
    """A device with a vault of its own in memory. Every backup is uploaded."""

    provider: MemoryProvider
    recovery: RecoveryKey
    credential: WriterCredential
    state_dir: Path
    clock: Callable[[], int] = time.time_ns
    budget: int = BUDGET

    @classmethod
    def make(cls, directory: Path, clock: Callable[[], int] = time.time_ns) -> Device:
        """A new vault with a recovery key."""
        provider = MemoryProvider()
        recovery = generate()
        created = create_vault([provider], [Way(RecoveryMethod(recovery), "test")], 1)
        return cls(provider, recovery, created.credential, directory, clock)

    def open_state(self) -> State:
        """This device's state, as every command opens it."""
        return State.open(self.state_dir, self.credential.vault_id, self.credential.device_id)

    def back_up(
        self, source: Path, *, exclude: Sequence[str] = (), send: bool = True, name: str = "chat"
    ) -> SourceResult:
        """One backup of `source`, as the command makes it; the state is checked after it."""
        with self.open_state() as state:
            assert state.outbox.recover() == []
            writer = Writer(self.credential, state, clock=self.clock, budget=self.budget)
            result = back_up(writer, Source(source, name=name, exclude=tuple(exclude)))
            check_state(state, writer.ids)
            if send:
                self.send(state)
        return result

    def send(self, state: State) -> None:
        """Upload what waits; everything must arrive."""
        sent = upload(state.outbox, self.provider)
        assert not sent.problems
        release(state.outbox, [self.provider.name])
        assert state.outbox.waiting() == (0, 0)

    def reader(self) -> VaultReader:
        """The vault, unlocked from storage and the recovery key alone."""
        return VaultReader([self.provider], unlock(self.provider, RecoveryMethod(self.recovery)))

    def snapshots(self) -> tuple[VaultReader, list[Snapshot]]:
        """All snapshots of the one stream, newest first, and who reads them; the chain must be flawless."""
        reader = self.reader()
        (stream,) = reader.streams()
        chain = reader.chain(stream)
        found = list(reader.snapshots(chain))
        assert list(chain.findings) == []
        return reader, found

    def restore(self, target: Path, seq: int | None = None, *, overwrite: bool = False) -> RestoreReport:
        """Restore a snapshot (the newest) into `target`; a second time by the reader that shares no code with this."""
        reader, found = self.snapshots()
        snapshot = found[0] if seq is None else next(one for one in found if one.header.seq == seq)
        alone = not target.exists() or not any(target.iterdir())
        report = restore(reader, snapshot, plan(reader, snapshot), os.fsencode(target), Choices(overwrite=overwrite))
        if alone and due(sum(map(len, self.provider.objects.values()))):
            again(Objects(self.provider.objects), "".join(self.recovery.lines), target, snapshot.header.seq)
        return report
