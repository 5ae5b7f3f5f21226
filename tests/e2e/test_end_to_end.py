"""The real daemon backs up a live directory to each type of storage, while that fails; then much of what it stored is
lost, and an empty machine gets everything back.

All of it from outside: `chatkeep init`, `run`, `backup` and `restore` as processes of their own, which know of the
storage what a YAML file says. It leads through a proxy that breaks what is on the wire, so the client libraries are
those that everybody has, with their own time-outs. Google's addresses cannot be changed by any key: its client is sent
here by `https_proxy` and trusts `SSL_CERT_FILE`, as on a network where all traffic goes through somebody's hands. A
folder has no wire: its disk is unplugged, or, where another program synchronises it, that program takes files away,
renames and doubles them.

A few faults for one station of each type; more of them, and every station, with --long.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chatkeep.providers.base import Provider
from chatkeep.providers.folder import FolderProvider
from chatkeep.providers.registry import BUILT_IN
from tests.providers import stations
from tests.providers.stations import Lines, Place, Station
from tests.support.committing import begin, committed, committing
from tests.support.fault_proxy import Fault, FaultProxy, broken
from tests.support.newcomer import Newcomer
from tests.support.running import Running, running
from tests.support.station import Station as Device
from tests.support.station import until
from tests.support.sync_client import SyncClient

THERE, BESIDE = "there", "beside"
"""The storage of the station, and a folder on a disk that nothing is wrong with."""
EVERY = [station for station in stations.find() if station.type is not None]
SHORT = {"folder", "folder-synced", "s3-minio", "webdav-apache", "opendal-s3", "gdrive", "icloud"}
SYNCED = "folder-synced"
MORE = 6  # rounds of faults with --long

Tell = Callable[[str], None]


def profiles() -> list[Any]:
    """Each station, and whether it is the long way."""
    short = [pytest.param(one, False, id=one.name, marks=one.marks) for one in EVERY if one.name in SHORT]
    long = [pytest.param(one, True, id=f"{one.name}-long", marks=[pytest.mark.long, *one.marks]) for one in EVERY]
    return [*short, *long]


@dataclass
class Storage:
    """The station's place, what can be made to go wrong with it, and what a configuration says to come there."""

    station: Station
    place: Place
    proxy: FaultProxy | None
    folder: Path
    lines: Lines

    def once(self, status: int, after: float | None = None) -> Fault:
        fault = self.station.answer(status, after)
        fault.on, fault.times = self.station.writes, 1
        return fault


@pytest.fixture
def storage(station: Station, tmp_path: Path) -> Iterator[Storage]:
    folder = tmp_path / THERE
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(station.place(stack.enter_context(station.running()), folder))
        proxy = stack.enter_context(FaultProxy(place.port)) if place.port is not None else None
        assert place.lines is not None
        yield Storage(station, place, proxy, folder, place.lines(proxy.url if proxy is not None else None))


class Machine(Device):
    """The device, in a room of its own that holds neither storage."""

    def __init__(self, room: Path, storage: Storage, beside: Path) -> None:
        room.mkdir()
        self.told, self.beside = storage, beside
        self.note = room / "count"
        super().__init__(room, (THERE, BESIDE))

    def configure(self, *sources: Path) -> None:
        there = {"name": THERE, "type": self.told.station.type, **self.told.lines.keys}
        text = {
            "sources": [str(source) for source in sources],
            "providers": [there, {"name": BESIDE, "type": "folder", "path": str(self.beside)}],
            "state_dir": str(self.state),
            "session": {"require_unlock": False},
            "tell": {"desktop": False},
            "watch": {"quiet": "0 seconds", "max_delay": "1 second", "min_interval": "1 second"},
        }
        self.config.write_text(json.dumps(text))

    def argv(self, *words: object) -> list[str]:
        return [
            "env",
            *(f"{name}={value}" for name, value in self.told.lines.environment.items()),
            *super().argv(*words),
        ]

    def count(self) -> int:
        """So many messages are committed, and the pictures that came with them in their place; two more at most."""
        return int(self.note.read_text()) - 1


# -- what goes wrong --------------------------------------------------------------------------------------------------


def on_the_wire(storage: Storage, daemon: Running, chance: random.Random, *, long: bool) -> int:
    """Replies and bodies that do not arrive, two at a time; how many. With `long` the last request is one that is never
    answered, and the client has to find that out."""
    assert storage.proxy is not None
    on, commits = storage.station.writes, storage.station.commits

    def kinds() -> list[Fault]:
        digest = [Fault("flip-request", on=on)] if storage.station.digest is not None else []
        answers = [storage.once(500), storage.once(503), storage.once(429, 1.0)]
        return [*answers, *digest, Fault("reset", on=on), Fault("lost", on=commits)]

    rounds = [[storage.once(503), Fault("reset", on=on)], [storage.once(500), Fault("lost", on=commits)]]
    if long:
        rounds += [*(chance.sample(kinds(), 2) for _ in range(MORE)), [Fault("hole", on=on)]]
    for faults in rounds:
        with broken(storage.proxy, *faults):
            photo(daemon.station, chance)
            daemon.until(lambda: all(fault.fired for fault in faults))  # noqa: B023  # waited for in the same round
    return sum(map(len, rounds))


def at_the_disk(storage: Storage, daemon: Running, chance: random.Random, *, long: bool) -> int:
    """It is unplugged, and plugged in again."""
    disk, away = storage.folder / "vault", storage.folder / "unplugged"
    rounds = MORE if long else 1
    for _ in range(rounds):
        failed, back = (len(daemon.kinds(kind)) for kind in ("upload-failed", "provider-back"))
        disk.rename(away)
        photo(daemon.station, chance)
        assert daemon.logged("upload-failed", failed + 1)["provider"] == THERE
        away.rename(disk)
        daemon.logged("provider-back", back + 1)
    return rounds


def by_another_program(storage: Storage, daemon: Running, chance: random.Random, *, long: bool) -> int:
    """It synchronises the folder, and stops at that before the daemon ends."""
    client = SyncClient(storage.folder / "vault", storage.folder / "cloud", chance.getrandbits(32), pause=0.02)
    client.start()
    try:
        for number in range(MORE if long else 2):
            photo(daemon.station, chance)
            daemon.until(lambda: min(client.did[act] for act in ("evicted", "late", "renamed", "doubled")) > number)  # noqa: B023  # the same
    finally:
        client.settle()
    assert client.problems == []
    return client.did.total()


def goes_wrong(storage: Storage) -> Callable[..., int]:
    if storage.proxy is not None:
        return on_the_wire
    return by_another_program if storage.station.name == SYNCED else at_the_disk


def photo(device: Device, chance: random.Random) -> None:
    """One more file; some are larger than what a service takes in one request."""
    number = len(list(device.source.glob("photo *")))
    (device.source / f"photo {number}").write_bytes(chance.randbytes(chance.choice((3_000, 120_000, 1_500_000))))


def ended_in_the_midst(storage: Storage, daemon: Running) -> None:
    """It is told to end: while it waits for a reply that never comes, where there is a wire."""
    if storage.proxy is None:
        assert daemon.end() == 0
        return
    with broken(storage.proxy, Fault("hole", on=storage.station.writes)) as (hole,):
        daemon.until(lambda: hole.fired)
        assert daemon.end() == 0


@contextlib.contextmanager
def cut(storage: Storage, on: str) -> Iterator[None]:
    """One reply to such a request ends in the middle of its body, where there is a wire."""
    with contextlib.ExitStack() as stack:
        if storage.proxy is not None:
            stack.enter_context(broken(storage.proxy, Fault("truncated", on=on)))
        yield


# -- what is lost, and what is left -----------------------------------------------------------------------------------


def lose(chance: random.Random, there: Provider, beside: Provider) -> int:
    """Every object stays at one of the two at least, each of which loses some. The newest manifest has to come from
    there. How many were lost."""
    both = [there, beside]
    held = [{found.name for found in one.list("")} for one in both]
    names = sorted(held[0] & held[1])
    newest = max((name for name in names if "/s/" in name), key=lambda name: name.rpartition("/")[2])
    sure = {newest: beside, **dict(zip(chance.sample([n for n in names if n != newest], 4), both * 2, strict=True))}
    lost = 0
    for name in names:
        which = sure.get(name) or chance.choice((there, beside, None))
        if which is not None:
            which.delete(name)
            lost += 1
    left = [{found.name for found in one.list("")} for one in both]
    assert left[0] | left[1] == held[0] | held[1]
    assert all(len(now) <= len(before) - 2 for now, before in zip(left, held, strict=True))
    return lost


def brought_back(storage: Storage, machine: Machine, room: Path) -> Path:
    """What a machine restores that has the configuration and the recovery key, and nothing else of the other one."""
    room.mkdir()
    newcomer = Newcomer(room)
    newcomer.config.parent.mkdir(parents=True)
    shutil.copy(machine.config, newcomer.config)
    shutil.copy(machine.key, newcomer.key)
    shutil.rmtree(machine.state)
    newcomer.environment |= storage.lines.environment
    target = newcomer.room / "out"
    with cut(storage, storage.station.reads):
        newcomer.ok("restore", "latest", "--target", target, "--key-file", newcomer.key)
    return target


@pytest.mark.parametrize(("station", "long"), profiles())
def test_backed_up_under_faults_and_restored_from_what_is_left(
    storage: Storage, long: bool, tmp_path: Path, seed: int, tell: Tell
) -> None:
    chance = random.Random(seed)
    machine = Machine(tmp_path / "device", storage, tmp_path / BESIDE)
    begin(machine.source)
    machine.init()
    with committing(machine.source, machine.note):
        with running(machine) as daemon:
            daemon.logged("upload-done", 2)
            fired = goes_wrong(storage)(storage, daemon, chance, long=long)
            ended_in_the_midst(storage, daemon)
        with cut(storage, storage.station.lists), running(machine) as daemon:
            before = machine.count()
            until(lambda: machine.run("backup").code == 0)
            assert daemon.end() == 0
        after = machine.count() + 2
    assert [one["findings"] for one in machine.ok("verify")["providers"]] == [[], []], "not stored, and told of"
    with contextlib.closing(storage.place.open(None)) as there:
        lost = lose(chance, there, FolderProvider(BESIDE, machine.beside))
    out = brought_back(storage, machine, tmp_path / "empty")

    # A state that the application had committed, no older than the backup that was asked for last.
    assert before <= committed(out) <= after
    assert before - before % 20 <= int.from_bytes((out / "picture").read_bytes()[:8], "big") <= after
    photos = {path.name: path.read_bytes() for path in machine.source.glob("photo *")}
    assert {path.name: path.read_bytes() for path in out.glob("photo *")} == photos
    assert {path.name for path in out.iterdir()} == {"messages.db", "picture", *photos}
    tell(f"--seed {seed}: {fired} faults, {before} messages, {lost} objects lost")


def test_every_type_has_a_station_here() -> None:
    assert {station.type for station in EVERY if station.name in SHORT} == set(BUILT_IN)
    assert {station.name for station in EVERY} > SHORT
