"""This device's key for writing: which one counts, and that going on to a new epoch never loses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.loader import load
from chatkeep.config.model import Config
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.service import device
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.epoch import DeviceEntry, create_record
from chatkeep.daemon.vault.errors import CredentialRefused, DeviceRemoved
from chatkeep.providers import durable
from tests.providers.faulty_os import FaultyOs, failing
from tests.support.memory_provider import MemoryProvider
from tests.support.station import Station
from tests.support.vaults import Epochs

DEVICE = b"d" * 16


class Place:
    """A state directory, a vault of one epoch, and the credential of a device in it."""

    def __init__(self, room: Path) -> None:
        self.config: Config = load(Station(room).config)
        self.config.state_dir.mkdir(mode=0o700)
        self.own = self.config.state_dir / device.CREDENTIAL
        self.provider = MemoryProvider()
        self.epochs = Epochs(self.provider)
        self.first = WriterCredential.generate(self.epochs.records[0], DEVICE)

    def step(self, *, stays: bool = True) -> None:
        keys = EpochKeys(RootSecret.generate())
        devices = {DEVICE: DeviceEntry(b"c" * 32, {}, None)} if stays else {}
        previous = (self.epochs.records[-1], self.epochs.keys[-1])
        record = create_record(keys, self.epochs.vault_id, previous, {}, devices)
        self.epochs.keys.append(keys)
        self.epochs.records.append(record)
        self.epochs.put(record)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def passed(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which systemd passes the first credential."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    place.first.save(directory / device.CREDENTIAL)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    return directory


def loaded(place: Place) -> WriterCredential:
    return device.load_credential(place.config)


def test_moved_credential_is_saved_before_anybody_gets_it(place: Place) -> None:
    place.first.save(place.own)
    place.step()
    found = device.follow(place.config, [place.provider], loaded(place))
    assert found.moved
    assert loaded(place).pin == found.credential.pin == place.epochs.records[1].pin
    pinned = device.pinned(place.config)
    assert pinned is not None
    assert (pinned.number, pinned.sha256) == (2, place.epochs.records[1].sha256)
    assert pinned.since == place.own.stat().st_mtime_ns


class _Killed(BaseException):
    """The process ends here."""


def killed(step: int) -> FaultyOs:
    def kill(_name: str, _arguments: tuple[Any, ...]) -> None:
        raise _Killed

    return FaultyOs(step, kill)


@pytest.mark.parametrize("fault", [lambda step: failing(step, 5), killed], ids=["error", "killed"])
def test_whatever_happens_while_it_is_saved_one_whole_credential_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[int], FaultyOs]
) -> None:
    outcomes = []
    for step in range(1, 40):
        room = tmp_path / str(step)
        room.mkdir()
        place = Place(room)
        place.first.save(place.own)
        place.step()
        faulty = fault(step)
        with monkeypatch.context() as patched:
            patched.setattr(durable, "os", faulty)
            try:
                device.follow(place.config, [place.provider], loaded(place))
            except (CredentialRefused, _Killed):
                assert len(faulty.seen) >= step
            else:
                if len(faulty.seen) < step:
                    break
        epoch = loaded(place).epoch
        outcomes.append(epoch)
        # And the next backup goes on from whichever it is.
        device.follow(place.config, [place.provider], loaded(place))
        assert loaded(place).epoch == 2
    else:
        raise AssertionError("the calls have no end")
    assert len(outcomes) >= 6
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {1, 2}


def test_nothing_is_handed_out_that_could_not_be_saved(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.first.save(place.own)
    place.step()
    credential = loaded(place)
    with monkeypatch.context() as patched:
        patched.setattr(durable, "os", failing(1, 28))
        with pytest.raises(CredentialRefused) as caught:
            device.follow(place.config, [place.provider], credential)
    assert caught.value.params["reason"] == "write"
    assert credential.device_key.sign(b"still usable")


def test_removed_device_keeps_its_file(place: Place) -> None:
    place.first.save(place.own)
    before = place.own.read_bytes()
    place.step(stays=False)
    with pytest.raises(DeviceRemoved):
        device.follow(place.config, [place.provider], loaded(place))
    assert place.own.read_bytes() == before


def test_of_two_the_later_epoch_counts(place: Place, passed: Path) -> None:
    assert loaded(place).epoch == 1
    place.step()
    device.follow(place.config, [place.provider], loaded(place))
    assert WriterCredential.load(passed / device.CREDENTIAL).epoch == 1
    assert loaded(place).epoch == 2
    pinned = device.pinned(place.config)
    assert pinned is not None
    assert pinned.number == 2
    place.step()
    device.follow(place.config, [place.provider], loaded(place))
    assert loaded(place).epoch == 3
    # What systemd is given anew, at a later epoch, counts over an older one in the state directory.
    place.step()
    (passed / device.CREDENTIAL).unlink()
    place.first.moved_to(place.epochs.records[3]).save(passed / device.CREDENTIAL)
    assert loaded(place).epoch == 4


def test_another_devices_file_beside_the_passed_one_neither_counts_nor_is_replaced(place: Place, passed: Path) -> None:
    assert passed.exists()
    place.step()
    WriterCredential.generate(place.epochs.records[1], b"o" * 16).save(place.own)
    before = place.own.read_bytes()
    assert loaded(place).device_id == DEVICE
    pinned = device.pinned(place.config)
    assert pinned is not None
    assert pinned.number == 1
    with pytest.raises(CredentialRefused) as caught:
        device.follow(place.config, [place.provider], loaded(place))
    assert caught.value.params["reason"] == "exists"
    assert place.own.read_bytes() == before


def test_same_id_with_another_key_does_not_count(place: Place, passed: Path) -> None:
    assert passed.exists()
    place.step()
    WriterCredential.generate(place.epochs.records[1], DEVICE).save(place.own)
    assert loaded(place).device_key.public == place.first.device_key.public


def test_damaged_file_beside_the_passed_one_is_passed_over(place: Place, passed: Path) -> None:
    assert passed.exists()
    place.step()
    device.follow(place.config, [place.provider], loaded(place))
    place.own.write_bytes(place.own.read_bytes()[:-1])
    assert loaded(place).epoch == 1
    device.follow(place.config, [place.provider], loaded(place))
    assert loaded(place).epoch == 2


def test_what_is_no_credential_is_no_epoch(place: Place) -> None:
    assert device.pinned(place.config) is None
    place.own.write_bytes(b"short")
    assert device.pinned(place.config) is None
