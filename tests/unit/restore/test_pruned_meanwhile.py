"""A sweep that goes on while somebody reads: what it takes is gone by right, and everything else is damage."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli import telling
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.restore.apply import Choices
from chatkeep.daemon.restore.browse import read_file
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.vault.checkpoint import SnapshotId, StreamKept
from chatkeep.daemon.vault.errors import SnapshotPruned, Unreadable
from chatkeep.daemon.vault.names import CheckpointName, PackName
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.stack import read_tree
from chatkeep.daemon.verify.deep import deep
from chatkeep.daemon.verify.scrub import scrub
from chatkeep.providers.base import Provider
from tests.support.checkpoints import checkpoint, signed
from tests.support.manifests import Keys
from tests.support.memory_provider import MemoryProvider
from tests.support.pruned import STREAM, Sweeping
from tests.support.vault_maker import VaultMaker

Act = Callable[[MemoryProvider], None]


class Swept:
    """Three snapshots. The second alone needs some packs, shares one with the first, and is pruned meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.maker = maker = VaultMaker(directory, blobs_per_pack=1)
        maker.file(b"z shared", b"shared" * 100)
        maker.file(b"kept", b"kept" * 100)
        maker.database(b"msg.db", os.urandom(512 * 40), 512)
        self.first = maker.commit()
        before = set(maker.pack_names)
        for number in range(4):
            maker.file(b"a temporary %d" % number, os.urandom(3000))
        maker.database(b"msg.db", os.urandom(512 * 40), 512)
        self.second = maker.commit()
        self.own = set(maker.pack_names) - before
        # As after a fold: the layer of the second snapshot is no part of the third.
        maker._stack.pop(0)
        maker.paths = {path: file_id for path, file_id in maker.paths.items() if not path.startswith(b"a temporary")}
        maker.images.clear()
        maker.remove(b"z shared")
        maker.database(b"msg.db", os.urandom(512 * 30), 512)
        self.third = maker.commit()
        self.checkpoint = self._checkpoint()

    def _checkpoint(self) -> tuple[CheckpointName, bytes]:
        vault, first, second = self.maker.vault, self.first.name, self.second.name
        row = StreamKept(STREAM, SnapshotId(2, second.sha256), (SnapshotId(1, first.sha256),))
        made = checkpoint(
            1,
            row,
            condemned_manifests=((STREAM, SnapshotId(2, second.sha256)),),
            condemned_packs=tuple(sorted(name.sha256 for name in self.own)),
        )
        return signed(made, vault.credential.device_id, vault.record, vault.keys)

    @property
    def objects(self) -> dict[str, bytes]:
        return self.maker.provider.objects

    def sweep(self, provider: MemoryProvider) -> None:
        """The checkpoint comes, then what it condemned goes."""
        name, raw = self.checkpoint
        provider.objects[str(name)] = raw
        self.rob(provider)

    def rob(self, provider: MemoryProvider) -> None:
        """The same goes, and nothing says that it may."""
        for gone in (self.second.name, *self.own):
            del provider.objects[str(gone)]

    def reader(self, *providers: Provider) -> VaultReader:
        return VaultReader(providers, Keys(self.maker.vault))


@pytest.fixture
def swept(tmp_path: Path) -> Swept:
    return Swept(tmp_path)


def read_all(reader: VaultReader, snapshot: Snapshot, target: Path) -> None:
    restore(reader, snapshot, plan(reader, snapshot), os.fsencode(target), Choices())


def tried_at_every_read(swept: Swept, act: Act, target: Path, error: type[ChatkeepError]) -> int:
    """Restores the second snapshot; before each of its reads once `act` happens. Returns how often it ended so."""
    ended = 0
    for at in range(1000):
        provider = Sweeping(swept.objects, at, act)
        reader = swept.reader(provider)
        caught: ChatkeepError | None = None
        try:
            read_all(reader, swept.second, target / f"at-{at}")
        except error as exc:
            caught = exc
        if not provider.fired:
            assert caught is None
            return ended
        codes = {one.code for one in reader.findings}
        if caught is None:
            assert codes == set()  # all that goes was read before
            continue
        ended += 1
        assert codes == (set() if error is SnapshotPruned else {"object-not-found"})
        caught.params.pop("staging", None)  # where what was written until then lies
        assert error is not SnapshotPruned or caught.params == {"name": str(swept.second.name), "seq": 2}
        assert not (target / f"at-{at}" / "kept").exists()
    raise AssertionError("it reads for ever")


def test_a_snapshot_that_is_pruned_during_its_restore_says_so(
    swept: Swept, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    ended = tried_at_every_read(swept, swept.sweep, tmp_path, SnapshotPruned)
    assert ended >= len(swept.own)
    tell(f"swept at {ended} reads")


def test_without_a_checkpoint_the_same_is_damage_as_before(
    swept: Swept, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    ended = tried_at_every_read(swept, swept.rob, tmp_path, Unreadable)
    assert ended >= len(swept.own)
    tell(f"robbed at {ended} reads")


def test_a_pruned_snapshot_is_no_failure_of_integrity_and_another_is_advised(swept: Swept, tmp_path: Path) -> None:
    told = telling.tell(SnapshotPruned(name=str(swept.second.name), seq=2))
    assert told.exit is Exit.FAILED
    assert told.text == "This snapshot was removed by the retention policy while it was being read."
    assert "chatkeep snapshots" in told.remedy
    # And the other one is there.
    provider = Sweeping(swept.objects, 3, swept.sweep)
    reader = swept.reader(provider)
    with pytest.raises(SnapshotPruned):
        read_all(reader, swept.second, tmp_path / "one")
    assert provider.fired == 1
    (stream,) = reader.streams()
    chain = reader.chain(stream)
    assert [one.header.seq for one in reader.snapshots(chain)] == [3, 1]
    for number, snapshot in enumerate((swept.third, swept.first)):
        read_all(reader, snapshot, tmp_path / f"other-{number}")
    assert (list(reader.findings), list(chain.findings)) == ([], [])


def test_salvage_does_not_take_what_was_pruned_for_damage(swept: Swept, tmp_path: Path) -> None:
    provider = Sweeping(swept.objects, 4, swept.sweep)
    reader = swept.reader(provider)
    made = plan(reader, swept.second)
    with pytest.raises(SnapshotPruned):
        restore(reader, swept.second, made, os.fsencode(tmp_path / "out"), Choices(salvage=True))
    assert provider.fired == 1


def test_looking_into_it_and_reading_one_file_say_so_too(swept: Swept) -> None:
    provider = Sweeping(swept.objects, 0, swept.sweep)
    with pytest.raises(SnapshotPruned):
        read_tree(swept.reader(provider), swept.second)
    assert provider.fired == 1
    for path in (b"a temporary 1", b"msg.db"):
        whole = MemoryProvider()
        whole.objects = dict(swept.objects)
        reader = swept.reader(whole)
        tree = read_tree(reader, swept.second)
        swept.sweep(whole)
        with pytest.raises(SnapshotPruned):
            list(read_file(reader, swept.second, tree, path))
        assert b"".join(read_file(reader, swept.second, tree, b"kept")) == b"kept" * 100


def test_swept_at_one_provider_and_not_yet_at_another_it_is_still_read(swept: Swept, tmp_path: Path) -> None:
    ahead, behind = MemoryProvider("ahead"), MemoryProvider("behind")
    ahead.objects, behind.objects = dict(swept.objects), dict(swept.objects)
    swept.sweep(ahead)
    reader = swept.reader(ahead, behind)
    read_all(reader, swept.second, tmp_path / "out")
    assert list(reader.findings) == []
    # Without the checkpoint it is read as well, and the loss is told.
    del ahead.objects[str(swept.checkpoint[0])]
    reader = swept.reader(ahead, behind)
    read_all(reader, swept.second, tmp_path / "again")
    assert {one.code for one in reader.findings} == {"object-not-found"}


def test_a_missing_pack_is_asked_about_once(swept: Swept) -> None:
    provider = MemoryProvider()
    provider.objects = dict(swept.objects)
    reader = swept.reader(provider)
    tree = read_tree(reader, swept.first)
    for name in swept.maker.pack_names:
        provider.objects.pop(str(name), None)
    provider.verbs.clear()
    for _ in range(3):
        with pytest.raises(Unreadable):
            list(read_file(reader, swept.first, tree, b"kept"))
    assert [verb for verb, name in provider.verbs if verb == "list"] == ["list", "list"]  # the first time, and again


# -- verify


def test_verify_deep_finds_nothing_wrong_while_a_sweep_goes_on(swept: Swept, tell: Callable[[str], None]) -> None:
    pruned = 0
    for at in range(1000):
        provider = Sweeping(swept.objects, at, swept.sweep)
        report = deep(swept.reader(provider))
        assert report.findings == ()
        assert report.snapshots + report.pruned in (2, 3)  # its manifest may be gone before it is reached
        assert report.snapshots >= 2
        pruned += report.pruned
        if not provider.fired:
            break
    assert report.snapshots == 3
    assert pruned >= len(swept.own)
    tell(f"a sweep at each of {at} reads; the snapshot was being read at {pruned}")


def test_verify_deep_finds_the_same_loss_without_a_checkpoint(swept: Swept) -> None:
    found = 0
    for at in range(1000):
        provider = Sweeping(swept.objects, at, swept.rob)
        report = deep(swept.reader(provider))
        if not provider.fired:
            break
        assert report.pruned == 0
        assert tell_worst(report.findings) is (Exit.INTEGRITY if report.findings else Exit.DONE)
        found += bool(report.findings)
    assert found >= len(swept.own)


def tell_worst(findings: tuple[ChatkeepError, ...]) -> Exit:
    return max((telling.tell(one).exit for one in findings), default=Exit.DONE)


def test_what_a_pruned_snapshot_was_not_read_of_is_read_for_those_that_live(swept: Swept) -> None:
    """The shared file is damaged; the snapshot that would have shown it goes while it is being read."""
    told = set()
    for at in range(1000):
        objects = dict(swept.objects)
        tree = read_tree(swept.maker.reader(), swept.first)
        (ref,) = [extent.reference for extent in tree.extents(tree.paths[b"z shared"])]
        assert ref is not None
        name = str(PackName(swept.first.name.device_id, ref.pack or b""))
        objects[name] = objects[name][:30] + bytes([objects[name][30] ^ 1]) + objects[name][31:]
        provider = Sweeping(objects, at, swept.sweep)
        report = deep(swept.reader(provider))
        assert {one.code for one in report.findings} >= {"unreadable"}
        told.add(report.pruned)
        if not provider.fired:
            break
    assert told == {0, 1}


def test_a_scrub_meets_a_sweep(swept: Swept) -> None:
    vault = swept.maker.vault
    public = swept.maker.provider.objects
    public[f"vault/{vault.vault_id.hex()}"] = b'{"chatkeep":1,"vault":"%s"}\n' % vault.vault_id.hex().encode()
    public[str(vault.record.name)] = vault.record.raw
    public[f"devices/{vault.credential.device_id.hex()}.json"] = vault.cert.raw
    met = 0
    for act, code in ((swept.sweep, set[str]()), (swept.rob, {"object-not-found"})):
        for at in range(1000):
            provider = Sweeping(swept.objects, at, act)
            report = scrub(provider)
            if not provider.fired:
                break
            found = {one.code for one in report.findings}
            assert found <= code
            met += bool(found)
    assert met >= len(swept.own)
