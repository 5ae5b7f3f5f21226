"""A vault in a folder whose client does what clients do, while a device uploads and another restores."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from chatkeep.config.errors import ChatkeepError, Disposition
from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.keys.recovery import generate
from chatkeep.daemon.restore.apply import Choices
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.sync.upload import Pace, release, upload
from chatkeep.daemon.vault.create import Way, create_vault
from chatkeep.daemon.vault.reader import VaultReader
from chatkeep.daemon.vault.unlock import unlock
from chatkeep.providers.synced import SyncedFolder
from chatkeep.providers.wrap import Patience
from tests.support.sync_client import SyncClient
from tests.support.whole import Device

ROUNDS = 8
WITHIN = 60.0
EVERY = {"evicted", "hollowed", "late", "renamed", "doubled", "spoiled"}
ONCE = Pace(2, Patience(attempts=1))


class Watched(SyncedFolder):
    """Keeps what it acknowledged: names, and hashes of bytes."""

    acknowledged: dict[str, bytes]

    def put(self, name: str, body: bytes) -> None:
        super().put(name, body)
        self.acknowledged[name] = hashlib.sha256(body).digest()


def tree(top: Path) -> dict[str, bytes]:
    return {os.fspath(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}


def until(wanted: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN
    while not wanted():
        assert time.monotonic() < end, "it took too long"


class Newcomer:
    """Another machine: restores again and again, from the folder and the recovery key alone."""

    def __init__(self, provider: SyncedFolder, method: RecoveryMethod, into: Path) -> None:
        self.restored: dict[int, dict[str, bytes]] = {}
        self.stopped_by: list[ChatkeepError] = []
        self._provider, self._method, self._into = provider, method, into

    def once(self, number: int, seq: int | None = None) -> bool:
        """One restore of the newest snapshot that can be seen (or of that one); whether it went through."""
        target = self._into / str(number)
        try:
            reader = VaultReader([self._provider], unlock(self._provider, self._method))
            found = [one for stream in reader.streams() for one in reader.snapshots(reader.chain(stream))]
            snapshot = next((one for one in found if seq in (None, one.header.seq)), None)
            if snapshot is None:  # there is none yet, or a listing raced with a renaming
                return False
            restore(reader, snapshot, plan(reader, snapshot), os.fsencode(target), Choices())
        except ChatkeepError as error:
            self.stopped_by.append(error)
            return False
        self.restored[snapshot.header.seq] = tree(target)
        return True


def test_nothing_that_was_acknowledged_is_lost(seed: int, tmp_path: Path) -> None:
    root, source = tmp_path / "vault", tmp_path / "source"
    source.mkdir()
    provider = Watched("drive", root, create=True)
    provider.acknowledged = {}
    recovery = generate()
    created = create_vault([provider], [Way(RecoveryMethod(recovery), "test")], 1)
    device = Device(provider, recovery, created.credential, tmp_path / "state")  # type: ignore[arg-type]
    newcomer = Newcomer(SyncedFolder("drive", root), RecoveryMethod(recovery), tmp_path)
    client = SyncClient(root, tmp_path / "cloud", seed)
    shapes: dict[int, dict[str, bytes]] = {}
    over, tries = threading.Event(), 0

    def keep_restoring() -> None:
        nonlocal tries
        while not over.is_set():
            tries += 1
            newcomer.once(tries)

    def arrives() -> bool:
        with device.open_state() as state:
            sent = upload(state.outbox, provider, pace=ONCE)
            assert all(each.disposition is Disposition.RETRY for each in sent.problems), sent.problems
            release(state.outbox, [provider.name])
            return state.outbox.waiting() == (0, 0)

    client.start()
    restoring = threading.Thread(target=keep_restoring)
    restoring.start()
    try:
        for turn in range(ROUNDS):
            (source / f"{turn}").write_bytes(os.urandom(30_000))
            (source / "log").write_bytes(b"line\n" * (turn + 1))
            result = device.back_up(source, send=False)
            shapes[result.snapshots[-1].seq] = tree(source)
            until(arrives)
        until(lambda: bool(newcomer.restored and newcomer.stopped_by and not EVERY - client.did.keys()))
    finally:
        over.set()
        restoring.join(WITHIN)
        client.settle()
    assert client.problems == []
    assert "object-mismatch" not in {each.code for each in newcomer.stopped_by}, "what is away passed for damaged"
    assert all(client.did[word] for word in EVERY), client.did
    # What was restored meanwhile was right, whatever could not be.
    assert all(found == shapes[seq] for seq, found in newcomer.restored.items())
    # And now all of it can be.
    for name, digest in provider.acknowledged.items():
        assert hashlib.sha256(newcomer._provider.get(name)).digest() == digest
    assert {each.name for each in provider.list("")} >= provider.acknowledged.keys()
    for number, seq in enumerate(shapes):
        assert newcomer.once(-1 - number, seq), newcomer.stopped_by[-1]
        assert newcomer.restored[seq] == shapes[seq]
    assert provider.strays().copies
    assert provider.strays().away == ()
