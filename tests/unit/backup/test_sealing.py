"""The sealer when something in its threads fails: no file, no thread, no key is left."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from chatkeep.daemon.backup import sealing
from chatkeep.daemon.backup.sealing import Lane, Sealer
from chatkeep.daemon.vault.blob import BlobKind
from chatkeep.daemon.vault.errors import PackBroken
from chatkeep.daemon.vault.labels import PACK_TARGET
from chatkeep.daemon.vault.pack import PackWriter, SealedPack
from tests.support.writers import sealer_of

MIB = 1 << 20


def nothing_left(directory: Path) -> None:
    assert os.listdir(directory / "staging") == []
    assert not [one.name for one in threading.enumerate() if one.name.startswith(("seal", "finish"))]


def submit(sealer: Sealer, count: int, lane: Lane = Lane.MEDIA) -> None:
    for _ in range(count):
        sealer.submit(lane, BlobKind.CHUNK, os.urandom(MIB), None)


def test_a_worker_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fired = []

    def failing(*_: object) -> tuple[bytes, int, bytes]:
        fired.append(1)
        raise MemoryError

    sealer = sealer_of(tmp_path)
    submit(sealer, 3)
    monkeypatch.setattr(sealing.Sealer, "_prepare", failing)
    with pytest.raises(MemoryError):
        submit(sealer, 20)
    assert fired
    sealer.abort()
    nothing_left(tmp_path)


def test_a_pack_that_cannot_be_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fired = []
    finish = PackWriter.finish

    def failing(self: PackWriter, ids: object) -> SealedPack:
        fired.append(1)
        if len(fired) == 2:
            self.abort()
            raise PackBroken(errno=28)
        return finish(self, ids)  # type: ignore[arg-type]

    monkeypatch.setattr(PackWriter, "finish", failing)
    sealer = sealer_of(tmp_path)
    submit(sealer, 3 * PACK_TARGET // MIB + 9)
    with pytest.raises(PackBroken):
        sealer.close(*Lane)
    assert len(fired) >= 2
    sealer.abort()
    nothing_left(tmp_path)


def test_given_up_in_the_middle(tmp_path: Path) -> None:
    sealer = sealer_of(tmp_path)
    submit(sealer, PACK_TARGET // MIB + 9)
    submit(sealer, 2, Lane.FRESH)
    sealer.abort()
    nothing_left(tmp_path)


@pytest.mark.parametrize("which", range(3))
def test_a_pack_that_cannot_be_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    """The other packs are dropped, key and file, all the same."""
    lanes = (Lane.FRESH, Lane.BASE, Lane.MEDIA)
    made: list[PackWriter] = []
    abort = PackWriter.abort

    def failing(self: PackWriter) -> None:
        abort(self)
        if self is made[which]:
            raise KeyboardInterrupt

    sealer = sealer_of(tmp_path)
    for lane in lanes:
        submit(sealer, 1, lane)
    sealer.drain()
    made += [writer for writer, _ in sealer._open.values()]
    monkeypatch.setattr(PackWriter, "abort", failing)
    with pytest.raises(KeyboardInterrupt):
        sealer.abort()
    for writer in made:
        with pytest.raises(PackBroken):
            writer.add(BlobKind.CHUNK, bytes(32), 0, b"x", 1)
    nothing_left(tmp_path)


def test_the_size_counts_everything_once(tmp_path: Path) -> None:
    sealer = sealer_of(tmp_path)
    submit(sealer, 40)
    before = sealer.size
    assert 40 * MIB <= before < 41 * MIB
    sealer.close(*Lane)
    assert 40 * MIB < sealer.size < 45 * MIB
    assert sealer.size == sum(pack.size for pack in sealer.packs)
    sealer.shutdown()
