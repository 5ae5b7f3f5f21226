"""No key and nonce seal twice, on any way in which a device writes: with threads, crashes, forks and copies."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.keys.secret import random_secret
from chatkeep.daemon.vault import manifest, pack, seal
from chatkeep.daemon.vault.agree import unlock_newest
from chatkeep.daemon.vault.blob import BlobKind, compress
from chatkeep.daemon.vault.create import Way, add_device, add_slot
from chatkeep.daemon.vault.follow import follow
from chatkeep.daemon.vault.rotate import plan_rotation, rotate
from chatkeep.daemon.vault.unlock import unlock_to_enrol
from tests.support.crashing import Crash, crash, durable_steps
from tests.support.nonces import Ledger, watched
from tests.support.packs import IDS, writer
from tests.support.sources import HOUR, Clock, database, fill
from tests.support.vaults import passphrase, recovery
from tests.support.whole import Device

Tell = Callable[[str], None]


class Life:
    """A device and its source, from `init` on."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()
        self.device = Device.make(directory / "state", self.clock)
        self.source = directory / "source"
        self.source.mkdir()
        fill(self.source / "a.db", 60, page_size=512)
        for number in range(6):
            (self.source / f"{number}").write_bytes(random.Random(number).randbytes(20_000 + number))

    def change(self, text: str) -> None:
        with database(self.source / "a.db") as db:
            db.execute(f"UPDATE message SET text = '{text}' WHERE id % 7 = 0")
        (self.source / "new").write_text(text)

    def back_up(self) -> None:
        self.device.back_up(self.source)

    def enrol(self) -> None:
        """Another key, another device that backs up too."""
        known = self.device
        with unlock_to_enrol(known.provider, RecoveryMethod(known.recovery)) as enrolment:
            add_slot([known.provider], enrolment, Way(passphrase(), "phrase"), 2)
            add_slot([known.provider], enrolment, Way(recovery(3), "paper"), 3)
            credential = add_device([known.provider], enrolment)
        Device(known.provider, known.recovery, credential, self.directory / "second", self.clock).back_up(self.source)

    def folds(self) -> None:
        """Snapshots over hours and days: layers are merged."""
        before = len(self.device.provider.objects)
        for hours in (1, 1, 25, 25):
            self.clock.now += hours * HOUR
            self.change(f"after {hours} hours, {before}")
            self.back_up()
            before = len(self.device.provider.objects)

    def rotates(self) -> None:
        """New keys for the vault, to which the device goes on."""
        known = self.device
        method = RecoveryMethod(known.recovery)
        with unlock_newest([known.provider], known.provider, method, None).enrolment as enrolment:
            rotate([known.provider], enrolment, plan_rotation([known.provider], enrolment.vault))
        followed = follow([known.provider], known.credential)
        assert followed.moved
        known.credential = followed.credential
        self.change("in the second epoch")
        self.back_up()

    def crashes(self, at_each: str) -> int:
        """Killed at each step of one kind in turn, never cleaned up after, and begun again each time."""
        state = self.directory / "state"
        self.change(f"before {at_each}")
        shutil.copytree(state, self.directory / "kept")
        with durable_steps(state, -1, crash) as steps:
            self.device.back_up(self.source, send=False)
        shutil.rmtree(state)
        (self.directory / "kept").rename(state)
        times = steps.names.count(at_each)
        for number in range(times):
            with durable_steps(state, number, crash, only=at_each) as steps, pytest.raises(Crash):
                self.back_up()
            assert steps.fired == at_each
        self.back_up()
        return times

    def lives_twice(self) -> None:
        """A copy of the state directory: two machines go on from the same records, with the same credential."""
        self.change("in two places")
        copy = self.directory / "copy"
        shutil.copytree(self.directory / "state", copy)
        known = self.device
        Device(known.provider, known.recovery, known.credential, copy, self.clock).back_up(self.source, send=False)
        known.back_up(self.source, send=False)


def forked(directory: Path) -> None:
    """A pack that is open when the process forks: the child may not go on with it, and the parent does."""
    writing = writer(directory / "pack")
    blob = random.Random(1).randbytes(1000)
    id_, (codec, payload) = IDS.id(BlobKind.CHUNK, blob), compress(BlobKind.CHUNK, blob, None)
    writing.add(BlobKind.CHUNK, id_, codec, payload, len(blob))
    pid = os.fork()
    if pid == 0:
        try:
            writing.add(BlobKind.CHUNK, id_, codec, payload, len(blob))
        except AssertionError:
            os._exit(3)
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3, "the child sealed with its parent's key"
    writing.add(BlobKind.CHUNK, id_, codec, payload, len(blob))
    writing.finish(IDS)


def threads(directory: Path) -> None:
    """Many threads add to one pack."""
    writing = writer(directory / "shared")
    start = threading.Barrier(8)

    def add(number: int) -> None:
        dice = random.Random(number)
        start.wait()
        for _ in range(40):
            blob = dice.randbytes(300)
            codec, payload = compress(BlobKind.CHUNK, blob, None)
            writing.add(BlobKind.CHUNK, IDS.id(BlobKind.CHUNK, blob), codec, payload, len(blob))

    running = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    assert writing.finish(IDS).count == 320


def test_nothing_is_sealed_twice_under_one_key_and_nonce(tmp_path: Path, tell: Tell) -> None:
    with watched(tmp_path / "ledger") as ledger:
        life = Life(tmp_path)
        life.back_up()
        life.enrol()
        life.folds()
        crashes = {kind: life.crashes(kind) for kind in ("pack create", "pack write", "rename", "before COMMIT")}
        life.rotates()
        forked(tmp_path)
        threads(tmp_path)
        life.lives_twice()
        verdict = ledger.verdict()
    assert verdict.wrong == []
    assert min(crashes.values()) >= 1
    assert crashes["pack write"] > 10
    assert verdict.pairs > 500
    assert verdict.once > 20
    tell(f"{verdict}; {sum(crashes.values())} crashes")


def test_a_pack_that_was_cut_off_by_the_kernel_is_begun_with_another_key(tmp_path: Path, tell: Tell) -> None:
    """Killed by the system in the middle of a pack, so that nothing is wiped or removed."""
    with watched(tmp_path / "ledger") as ledger:
        keys = set()
        for record in range(12):
            pid = os.fork()
            if pid == 0:
                try:
                    _killed_after(tmp_path / "cut", record)
                finally:
                    os._exit(7)
            assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == 9
            assert (tmp_path / "cut").stat().st_size > 0
            (tmp_path / "cut").unlink()
            keys.add(ledger.uses()[-1].key)
        _killed_after(tmp_path / "cut", -1)
        verdict = ledger.verdict()
    assert verdict.wrong == []
    assert len(keys) == 12
    tell(str(verdict))


def _killed_after(path: Path, records: int) -> None:
    writing = writer(path)
    for number in range(12):
        blob = random.Random(number).randbytes(100)
        codec, payload = compress(BlobKind.CHUNK, blob, None)
        writing.add(BlobKind.CHUNK, IDS.id(BlobKind.CHUNK, blob), codec, payload, len(blob))
        if number == records:
            os.kill(os.getpid(), 9)
    writing.finish(IDS)


# -- what the ledger must find ----------------------------------------------------------------------------------------


def _one_key(module: Any, patch: pytest.MonkeyPatch) -> None:
    key = random_secret(32)
    patch.setattr(module, "random_secret", lambda _size: bytearray(key))


def _counts_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(seal, "_nonce", lambda index: (index % 5).to_bytes(12, "big"))


def _starts_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(seal, "_nonce", lambda index: (index + 7).to_bytes(12, "big"))


def _short(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(seal, "_nonce", lambda index: index.to_bytes(8, "big"))


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "a pack's key again": (lambda patch: _one_key(pack, patch), "used by two packs"),
    "a manifest's key again": (lambda patch: _one_key(manifest, patch), "a key of one message seals more"),
    "the counter is reset": (_counts_again, "a nonce twice"),
    "the counter has holes": (_starts_at, "does not count"),
    "short nonces": (_short, "not of twelve bytes"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_found(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, sign = BROKEN[what]
    change(monkeypatch)
    with watched(tmp_path / "ledger") as ledger:
        life = Life(tmp_path)
        life.back_up()
        life.change("again")
        life.back_up()
        assert any(sign in wrong for wrong in ledger.verdict().wrong), ledger.verdict()


def test_a_child_that_goes_on_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with watched(tmp_path / "ledger") as ledger:
        writing = writer(tmp_path / "pack")
        for process in (os.fork(), None):  # the child, then the parent
            if process == 0 or process is None:
                try:
                    writing.add(BlobKind.CHUNK, bytes(32), 0, b"blob", 4)
                finally:
                    if process == 0:
                        os._exit(0)
            else:
                assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
        writing.abort()
        assert any("a nonce twice" in wrong for wrong in ledger.verdict().wrong)


def test_an_ephemeral_key_that_comes_again_is_found(tmp_path: Path) -> None:
    with watched(tmp_path / "ledger") as ledger:
        _note_twice(ledger)
        assert "ephemeral key was used 2 times" in ledger.verdict().wrong[0]


def _note_twice(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.note(2, b"k" * 16, bytes(16), bytes(12))
