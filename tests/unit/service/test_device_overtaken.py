"""The keys are changed on this device while a backup of it is under way: what storage shows the backup meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatkeep.config.loader import load
from chatkeep.config.model import Config
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.service import device
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.epoch import DeviceEntry, EpochRecord, create_record
from chatkeep.providers import base
from tests.support.memory_provider import MemoryProvider
from tests.support.station import Station
from tests.support.vaults import Epochs

DEVICE = b"d" * 16


class Stalling(MemoryProvider):
    """Storage that answers the first listing of epochs when it likes: after `act`."""

    act: Callable[[], None] | None = None

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        shown = list(super().list(prefix))
        if self.act is not None and prefix.startswith("epochs"):
            act, self.act = self.act, None
            act()
        return iter(shown)


class Place:
    """A device in epoch 1 of a vault."""

    def __init__(self, room: Path) -> None:
        self.config: Config = load(Station(room).config)
        self.config.state_dir.mkdir(mode=0o700)
        self.provider = Stalling()
        self.epochs = Epochs(self.provider)
        with_seed = WriterCredential.generate(self.epochs.records[0], DEVICE)
        with_seed.save(self.config.state_dir / device.CREDENTIAL)
        with_seed.wipe()

    def following(self, *, stays: bool = True) -> EpochRecord:
        """A record after the newest one of `epochs`, of fresh keys."""
        previous = (self.epochs.records[-1], self.epochs.keys[-1])
        keys = EpochKeys(RootSecret.generate())
        listed = {DEVICE: DeviceEntry(b"c" * 32, {}, None)} if stays else {}
        return create_record(keys, self.epochs.vault_id, previous, {}, listed)

    def step(self, *, stays: bool = True) -> EpochRecord:
        previous = (self.epochs.records[-1], self.epochs.keys[-1])
        keys = EpochKeys(RootSecret.generate())
        listed = {DEVICE: DeviceEntry(b"c" * 32, {}, None)} if stays else {}
        record = create_record(keys, self.epochs.vault_id, previous, {}, listed)
        self.epochs.keys.append(keys)
        self.epochs.records.append(record)
        return record

    def saved(self) -> bytes:
        credential = device.load_credential(self.config)
        try:
            return credential.pin.sha256
        finally:
            credential.wipe()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_rival_shown_to_a_backup_does_not_take_the_place_of_what_was_made_here(place: Place) -> None:
    """Storage stalls the backup, the keys are changed, then it shows a rival by whoever has the old root secret."""
    rival = place.following()
    place.provider.objects[str(rival.name)] = rival.raw
    true = place.step()
    place.provider.act = lambda: device.go_on(place.config, (place.epochs.records[0], true))
    found = device.follow(place.config, [place.provider], device.load_credential(place.config))
    assert (found.credential.pin.sha256, found.moved) == (true.sha256, True)
    assert place.saved() == true.sha256


def test_backup_that_heard_of_one_epoch_does_not_go_back_from_two(place: Place) -> None:
    first = place.step()
    place.epochs.put(first)
    second = place.step()

    def twice() -> None:
        place.epochs.put(second)
        device.go_on(place.config, place.epochs.records)

    place.provider.act = twice
    found = device.follow(place.config, [place.provider], device.load_credential(place.config))
    assert (found.credential.epoch, found.moved) == (3, True)
    assert place.saved() == second.sha256


def test_device_that_is_behind_goes_on_too(place: Place) -> None:
    place.step()
    newest = place.step()
    device.go_on(place.config, place.epochs.records)
    assert place.saved() == newest.sha256


def test_device_that_was_left_out_on_the_way_stays(place: Place) -> None:
    place.step(stays=False)
    place.step()
    device.go_on(place.config, place.epochs.records)
    assert place.saved() == place.epochs.records[0].sha256


def test_device_of_another_history_stays(place: Place) -> None:
    rival = place.following()
    device.go_on(place.config, (place.epochs.records[0], rival))
    assert place.saved() == rival.sha256
    place.step()
    device.go_on(place.config, place.epochs.records)
    assert place.saved() == rival.sha256
