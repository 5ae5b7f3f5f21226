"""Storage that shows less than it has: what is noticed, by whom, and what nobody can notice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.vault.agree import unlock_newest
from chatkeep.daemon.vault.follow import follow
from chatkeep.daemon.vault.rotate import plan_rotation, rotate
from tests.support.sources import Clock
from tests.support.station import Station, copied, fill, template
from tests.support.whole import Device


class Scene:
    """Three snapshots, one file more in each."""

    def __init__(self, top: Path) -> None:
        self.source = top / "chat"
        self.source.mkdir()
        self.device = Device.make(top / "state", Clock())
        self.moments = [self.change() for _ in range(3)]

    def change(self) -> dict[str, bytes]:
        count = len(list(self.source.iterdir()))
        (self.source / str(count)).write_bytes(random.Random(count).randbytes(3000))
        self.device.back_up(self.source)
        return dict(self.device.provider.objects)

    def rotate(self) -> None:
        provider = self.device.provider
        with unlock_newest([provider], provider, RecoveryMethod(self.device.recovery), None).enrolment as enrolment:
            rotate([provider], enrolment, plan_rotation([provider], enrolment.vault))
        self.device.credential = follow([provider], self.device.credential).credential

    def read(self) -> tuple[list[int], list[ChatkeepError]]:
        """What a fresh machine finds: the snapshots, and what it is told."""
        reader = self.device.reader()
        (stream,) = reader.streams()
        chain = reader.chain(stream)
        seqs = [one.header.seq for one in reader.snapshots(chain)]
        return seqs, [*chain.findings, *reader.findings]

    def hide(self, *seqs: int) -> None:
        objects = self.device.provider.objects
        for name in [name for name in objects for seq in seqs if f"/{seq:012d}-" in name]:
            del objects[name]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_everything_is_there(scene: Scene) -> None:
    assert scene.read() == ([3, 2, 1], [])


@pytest.mark.parametrize("seq", [1, 2])
def test_a_snapshot_that_later_ones_stand_on_is_missed(scene: Scene, seq: int) -> None:
    scene.hide(seq)
    seqs, told = scene.read()
    assert seq not in seqs
    assert told


def test_the_newest_are_not_missed_by_who_never_heard_of_them(scene: Scene) -> None:
    """The limit: a machine that has nothing but a recovery key, and storage that hides the end."""
    scene.hide(2, 3)
    assert scene.read() == ([1], [])


def test_nor_is_a_whole_vault_as_it_was_before(scene: Scene) -> None:
    """The limit: everything that was there then, and nothing of what came later."""
    scene.rotate()
    scene.change()
    scene.device.provider.objects.clear()
    scene.device.provider.objects.update(scene.moments[1])
    assert scene.read() == ([2, 1], [])


def test_what_a_later_epoch_names_is_missed(scene: Scene) -> None:
    """A change of keys takes down what is newest: from then on hiding it shows."""
    scene.rotate()
    assert scene.read() == ([3, 2, 1], [])
    scene.hide(3)
    seqs, told = scene.read()
    assert seqs == [2, 1]
    assert told


@pytest.mark.parametrize("named", [False, True], ids=["never-named", "named-by-an-epoch"])
def test_a_thief_of_the_credential_with_storage_puts_another_history_in_its_place(
    scene: Scene, tmp_path: Path, named: bool
) -> None:
    """The limit: everything of the device is hidden, and he writes it anew. What an epoch record names is missed."""
    if named:
        scene.rotate()
    scene.hide(1, 2, 3)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "0").write_bytes(b"another history")
    thief = Device(scene.device.provider, scene.device.recovery, scene.device.credential, tmp_path / "his", Clock())
    thief.back_up(elsewhere)
    reader = thief.reader()
    told: list[ChatkeepError] = []
    for stream in reader.streams():
        chain = reader.chain(stream)
        list(reader.snapshots(chain))
        told += chain.findings
    assert bool(told) == named


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Station:
    return template(tmp_path_factory.mktemp("withheld") / "room")


def test_the_device_itself_misses_its_newest(made: Station, tmp_path: Path) -> None:
    """It remembers what it uploaded: `verify` needs no key for that."""
    station = copied(made, tmp_path / "room")
    for _ in range(2):
        fill(station.source / "messages.db", 5)
        station.backup()
    assert station.run("verify").code == 0
    (newest,) = [path for text, path in station.objects().items() if "/s/" in text and "/000000000002-" in text]
    newest.unlink()
    done = station.run("verify")
    assert done.code == 5
    assert newest.name in done.out
