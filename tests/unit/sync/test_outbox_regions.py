"""A flipped bit in any region of what waits in the outbox never reaches storage: put or adopted, in the process that
sealed it or in a later one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from chatkeep.daemon.state import Queued, State
from chatkeep.daemon.sync.errors import OutboxDamaged
from chatkeep.daemon.sync.upload import upload
from chatkeep.daemon.vault.labels import (
    DIRECTORY_ENTRY,
    HASH_SIZE,
    MANIFEST_CAPSULE,
    MANIFEST_HEADER,
    PACK_CAPSULE,
    PACK_END,
    PACK_FOOTER,
    PACK_PUBLIC,
    SIGNATURE_SIZE,
    TAG_SIZE,
)
from chatkeep.providers.base import Provider
from chatkeep.providers.folder import FolderProvider
from tests.support.memory_provider import MemoryProvider
from tests.support.whole import Device

# Where each region begins and ends; negative from the end.
FOOTER = -PACK_FOOTER
PACK_REGIONS = {
    "magic": (0, 8),
    "records": (8, 4096),
    "pad and directory": (FOOTER - TAG_SIZE - DIRECTORY_ENTRY - 64, FOOTER - TAG_SIZE - DIRECTORY_ENTRY),
    "directory": (FOOTER - TAG_SIZE - DIRECTORY_ENTRY, FOOTER),
    "capsule": (FOOTER, FOOTER + PACK_CAPSULE),
    "public": (FOOTER + PACK_CAPSULE, FOOTER + PACK_CAPSULE + PACK_PUBLIC),
    "commitment": (-HASH_SIZE - len(PACK_END), -len(PACK_END)),
    "end mark": (-len(PACK_END), 0),
}
HEAD = MANIFEST_HEADER + MANIFEST_CAPSULE + HASH_SIZE
MANIFEST_REGIONS = {
    "header": (0, MANIFEST_HEADER),
    "capsule": (MANIFEST_HEADER, MANIFEST_HEADER + MANIFEST_CAPSULE),
    "commitment": (HEAD - HASH_SIZE, HEAD),
    "body": (HEAD, HEAD + 2048),
    "signature": (-SIGNATURE_SIZE, 0),
}


def places(size: int, regions: dict[str, tuple[int, int]]) -> list[tuple[str, int]]:
    """The first, a middle and the last byte of each region."""
    found = []
    for name, (start, end) in regions.items():
        first = start if start >= 0 else size + start
        after = end if end > 0 else size + end
        assert 0 <= first < after <= size
        found += [(name, at) for at in sorted({first, (first + after) // 2, after - 1})]
    return found


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """Two packs and a manifest in the outbox."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    source = tmp_path / "source"
    source.mkdir()
    with closing(sqlite3.connect(source / "a.db")) as db:
        db.execute("CREATE TABLE m(b)")
        db.execute("INSERT INTO m VALUES(randomblob(9000))")
        db.commit()
    (source / "a.jpg").write_bytes(os.urandom(9000))
    device = Device.make(tmp_path / "state")
    device.back_up(source, send=False)
    return device


@pytest.mark.parametrize("adopts", [False, True], ids=["put", "adopted"])
@pytest.mark.parametrize("restarted", [False, True], ids=["same process", "later process"])
def test_every_region(waiting: Device, tmp_path: Path, adopts: bool, restarted: bool) -> None:
    tried: list[str] = []
    state = waiting.open_state()
    try:
        for item in state.outbox.queue("disk"):
            body = item.path.read_bytes()
            for name, at in places(len(body), MANIFEST_REGIONS if item.is_manifest else PACK_REGIONS):
                if restarted:
                    state.close()
                    state = waiting.open_state()
                else:
                    state.outbox.note_proven(item.path)  # as it is right after it was sealed
                room = tmp_path / f"disk-{len(tried)}"
                provider: Provider = FolderProvider("disk", room, create=True) if adopts else MemoryProvider("disk")
                tried.append(f"{name} {at}")
                with flipped(item, body, at):
                    fails(state, provider, item)
        assert len(tried) == 2 * len(PACK_REGIONS) * 3 + len(MANIFEST_REGIONS) * 3
        print(f"\noutbox: {len(tried)} flips, none reached storage")  # noqa: T201  # numbers of the run
        forget(state)
        sent = upload(state.outbox, MemoryProvider("disk"))
        assert (sent.problems, sent.objects) == ((), 3), "whole again, it goes"
    finally:
        state.close()


class flipped:  # noqa: N801  # reads as what it does
    """One bit of an outbox file, for the block."""

    def __init__(self, item: Queued, body: bytes, at: int) -> None:
        self._item, self._body, self._at = item, body, at

    def __enter__(self) -> None:
        changed = bytearray(self._body)
        changed[self._at] ^= 1 << self._at % 8
        self._write(bytes(changed))

    def __exit__(self, *_: object) -> None:
        self._write(self._body)

    def _write(self, body: bytes) -> None:
        with open(self._item.path, "r+b") as file:
            file.write(body)


def fails(state: State, provider: Provider, item: Queued) -> None:
    """The upload ends there, and storage has neither the object nor the manifest that stands on it."""
    forget(state)
    result = upload(state.outbox, provider)
    problem = next(one for one in result.problems if isinstance(one, OutboxDamaged))
    assert (problem.params["name"], problem.params["reason"]) == (item.name, "hash")
    there = {shown.name for shown in provider.list("d/")}
    assert item.name not in there
    assert not any("/s/" in name for name in there)


forget: Callable[[State], object] = lambda state: state._connection.rows("DELETE FROM receipts")  # noqa: E731
"""Nothing was sent yet: every try begins with an empty storage."""
