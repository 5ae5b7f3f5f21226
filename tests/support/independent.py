"""What the suite restores is restored a second time, by the reader that shares no code with the product."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import independent_reader
from tests.support.trees import describe

LIMIT = 64 << 20
"""Bytes of storage beyond which only every eighth restore is repeated: the reader is slower than the product."""


class Objects:
    """Objects in a dictionary, as the reader wants storage."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self.objects = objects

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name not in self.objects:
            raise FileNotFoundError(name)
        body = self.objects[name]
        start = offset if offset >= 0 else max(0, len(body) + offset)
        return body[start:] if length is None else body[start : start + length]

    def names(self, folder: str) -> list[str]:
        return sorted({name[len(folder) + 1 :].split("/")[0] for name in self.objects if name.startswith(f"{folder}/")})


class Tally:
    """What was restored a second time in this process: snapshots, paths compared, and of which vaults."""

    def __init__(self) -> None:
        self.snapshots = self.paths = self.left_out = 0
        self.vaults: set[str] = set()

    def plain(self) -> dict[str, Any]:
        """As it travels between processes."""
        return {**vars(self), "vaults": sorted(self.vaults)}

    def add(self, other: Mapping[str, Any]) -> None:
        """Another process's, added to this one."""
        self.snapshots += other["snapshots"]
        self.paths += other["paths"]
        self.left_out += other["left_out"]
        self.vaults |= set(other["vaults"])

    def told(self) -> str:
        """For the end of a run."""
        return (
            f"independent reader: {self.snapshots} snapshots of {len(self.vaults)} vaults restored a second time, "
            f"{self.paths} paths equal, {self.left_out} left out for their size"
        )


TALLY = Tally()


def unlocked(storage: Any, recovery_key: str) -> tuple[Any, list[str]]:
    """A vault, opened by the independent reader, and the list it will note damage in."""
    notes: list[str] = []
    secret = independent_reader.recovery_key(recovery_key)
    return independent_reader.Vault(storage, "recovery-64", secret, notes.append), notes


def opened(storage: Any, vault_id: str, roots: Sequence[bytes]) -> tuple[Any, list[str]]:
    """A vault without slots, opened by the root secrets of its epochs, and the list it will note damage in."""
    notes: list[str] = []
    vault = independent_reader.Vault.__new__(independent_reader.Vault)
    vault.storage, vault.notes, vault.vault = storage, independent_reader.Notes(notes.append), vault_id
    sign = independent_reader.signing_public(independent_reader.hkdf(roots[0], b"sign\0"))
    vault.epochs = vault._chain(1, sign)
    for epoch, root in zip(vault.epochs, roots, strict=True):
        epoch.key = independent_reader.Hybrid(independent_reader.hkdf(root, b"open\0"))
    vault.devices = list(vault._devices())
    return vault, notes


def again(storage: Any, recovery_key: str, target: Path, seq: int, snapshot_id: str | None = None) -> None:
    """Restores a snapshot that the product just restored into `target` beside it, and compares everything.

    Raises AssertionError where the two differ, or the reader found damage.
    """
    vault, notes = unlocked(storage, recovery_key)
    found = [one for one in independent_reader.snapshots(vault) if one.seq == seq and _is(storage, one, snapshot_id)]
    assert len(found) == 1, (notes, found)
    beside = target.parent / f".{target.name}.again"
    try:
        independent_reader.restore(vault, found[0], str(beside))
        first, second = describe(target, leave_out=()), describe(beside, leave_out=())
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    assert notes == []
    assert {path for path in first.keys() | second.keys() if first.get(path) != second.get(path)} == set()
    TALLY.snapshots += 1
    TALLY.paths += len(first)
    TALLY.vaults.add(vault.vault)


def _is(storage: Any, one: Any, snapshot_id: str | None) -> bool:
    name = f"{one.seq:012d}-{snapshot_id or ''}"
    return any(each.startswith(name) for each in storage.names(f"d/{one.device}/s/{one.stream}"))


def due(size: int) -> bool:
    """Whether a restore from storage of this size is repeated; counts those that are not."""
    if size > LIMIT and int.from_bytes(os.urandom(1)) % 8:
        TALLY.left_out += 1
        return False
    return True
