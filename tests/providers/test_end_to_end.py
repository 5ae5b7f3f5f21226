"""The daemon backs up a live directory to each type of storage, while that fails; then much of what it stored is lost,
and an empty machine gets everything back.

One round of faults for one station of each type; more of them, and every station, with --long. A type that gets a
station is tested here without another line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.model import ProviderConfig
from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.keys.recovery import RecoveryKey, generate
from chatkeep.daemon.restore.apply import Choices
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.service.device import CREDENTIAL
from chatkeep.daemon.service.events import Kind
from chatkeep.daemon.vault.create import Way, create_vault
from chatkeep.daemon.vault.preference import watched
from chatkeep.daemon.vault.reader import VaultReader
from chatkeep.daemon.vault.unlock import unlock
from chatkeep.providers import registry
from chatkeep.providers.base import Provider, Unavailable
from chatkeep.providers.folder import FolderProvider
from chatkeep.providers.wrap import Retrying
from tests.providers import stations
from tests.providers.stations import Place, Station
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.faulty_provider import Fault as Call
from tests.support.faulty_provider import FaultyProvider
from tests.support.inside import Inside, inside, until
from tests.support.running import configured
from tests.support.station import Station as Machine
from tests.support.station import fill, rows

THERE, BESIDE = "there", "beside"
"""The storage of the station, and a folder on a disk that nothing is wrong with."""


def one_of_each_type(every: list[Station]) -> list[Station]:
    """The first station of each module."""
    first: dict[str, Station] = {}
    for station in every:
        first.setdefault(type(station).__module__.rpartition(".")[2], station)
    return list(first.values())


# The other two are no types of storage.
EVERY = [one for one in stations.find() if type(one).__module__.rpartition(".")[2] not in {"memory", "plain"}]
SHORT = one_of_each_type(EVERY)


def profiles() -> list[Any]:
    """Each station with how many rounds of faults it goes through."""
    short = [pytest.param(station, 1, id=station.name) for station in SHORT]
    long = [
        pytest.param(station, 8, id=f"{station.name}-long", marks=[pytest.mark.long, *station.marks])
        for station in EVERY
    ]
    return [*short, *long]


@dataclass
class Storage:
    """The station's place, and what can be made to go wrong with it.

    Attributes:
        through: opens it with faults in the way; as the daemon does.
        direct: opens it without.
    """

    station: Station
    place: Place
    proxy: FaultProxy | None
    calls: list[Call]

    def through(self) -> Provider:
        if self.proxy is not None:
            return _Named(THERE, self.place.open(self.proxy.url))
        faulty = FaultyProvider(self.place.open(None))
        faulty.faults = self.calls  # also what is set later
        return _Named(THERE, faulty)

    def direct(self) -> Provider:
        return _Named(THERE, self.place.open(None))

    def breaks(self, chance: random.Random, count: int) -> list[Fault | Call]:
        """Sets so many faults, each to hit one put."""
        if self.proxy is None:
            some = [Call("put", Unavailable(provider=THERE), after=chance.random() < 0.5) for _ in range(count)]
            self.calls[:] = some
            return [*some]
        on = self.station.writes
        kinds = [
            Fault("reset", on=on),
            Fault("lost", on=self.station.commits),
            self.once(self.station.answer(503), on),
            self.once(self.station.answer(500), on),
            self.once(self.station.answer(429, 1.0), on),
            *([Fault("flip-request", on=on)] if self.station.digest is not None else []),
        ]
        faults = kinds[:2] if count == 2 else [chance.choice(kinds)]
        self.proxy.set(*faults)
        return [*faults]

    @staticmethod
    def once(fault: Fault, on: str) -> Fault:
        fault.on, fault.times = on, 1
        return fault

    def mended(self) -> None:
        self.calls.clear()
        if self.proxy is not None:
            self.proxy.clear()


class _Named:
    """A provider under the name that the configuration gives it."""

    def __init__(self, name: str, inner: Provider) -> None:
        self.name, self._inner = name, inner

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._inner, verb)


@pytest.fixture
def storage(station: Station, tmp_path: Path) -> Iterator[Storage]:
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(station.running())
        (tmp_path / "place").mkdir()
        place = stack.enter_context(station.place(running, tmp_path / "place"))
        proxy = stack.enter_context(FaultProxy(place.port)) if place.port is not None else None
        yield Storage(station, place, proxy, [])


@pytest.fixture
def machine(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A device whose vault is at the station's place and in a folder beside it."""
    (tmp_path / "room").mkdir()
    made = Machine(tmp_path / "room", (THERE, BESIDE))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made.runtime))
    real = registry.open_provider

    def opened(config: ProviderConfig, *args: Any, **how: Any) -> Provider:
        return storage.through() if config.name == THERE else real(config, *args, **how)

    monkeypatch.setattr(registry, "open_provider", opened)
    configured(made, "session: {require_unlock: false}", "tell: {desktop: false}")
    return made


def enrolled(machine: Machine, storage: Storage) -> RecoveryKey:
    recovery = generate()
    with contextlib.closing(storage.direct()) as there:
        beside = FolderProvider(BESIDE, machine.storage(BESIDE), create=True)
        made = create_vault([there, beside], [Way(RecoveryMethod(recovery), "paper")], 1)
    machine.state.mkdir(mode=0o700)
    made.credential.save(machine.state / CREDENTIAL)
    made.credential.wipe()
    return recovery


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """An application that writes messages for the length of the block."""
    stop = threading.Event()

    def write() -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
            number = 0
            while not stop.wait(0.02):
                number += 1
                connection.execute("INSERT INTO messages(body) VALUES(?)", (f"live {number} " * 10,))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def settled(one: Inside) -> None:
    """Everything there is was sent to both. Asked for again and again: what failed often waits long by itself."""
    end = time.monotonic() + 120
    while True:
        report = await one.daemon.backup([], lambda *_: None)
        assert [source.error for source in report.sources] == [None]
        if not any(provider.waiting for provider in (await one.daemon.standing()).providers):
            return
        failed = [{**event.values} for event in one.kinds(Kind.UPLOAD_FAILED)]
        assert time.monotonic() < end, "\n".join(map(str, failed))


async def play(machine: Machine, storage: Storage, chance: random.Random, rounds: int) -> None:
    async with inside(machine) as one:
        await one.told(Kind.SNAPSHOT_MADE)
        with writing(machine.source / "messages.db"):
            for number in range(rounds):
                faults = storage.breaks(chance, 2 if rounds == 1 else 1)
                (machine.source / f"photo {number}").write_bytes(chance.randbytes(120_000))
                await until(lambda: all(fault.fired for fault in faults))  # noqa: B023  # waited for in the same round
                storage.mended()
        await settled(one)
        assert len(one.kinds(Kind.SNAPSHOT_MADE)) > rounds
    assert one.clean


def lose(chance: random.Random, providers: list[Provider], names: list[str]) -> None:
    """Every object stays at one provider at least; each provider loses some."""
    names = chance.sample(names, len(names))
    sure = [[provider] for provider in providers for _ in range(3)]
    for number, name in enumerate(names):
        for provider in sure[number] if number < len(sure) else chance.sample(providers, chance.choice((0, 1, 1, 1))):
            provider.delete(name)


@contextlib.contextmanager
def empty_machine(machine: Machine, storage: Storage) -> Iterator[list[Provider]]:
    """The storages as somebody opens them who has nothing else."""
    there, beside = storage.through(), FolderProvider(BESIDE, machine.storage(BESIDE))
    with contextlib.closing(there):
        yield [Retrying(there), beside]


@pytest.mark.parametrize(("station", "rounds"), profiles())
def test_backed_up_under_faults_and_restored_from_what_is_left(
    machine: Machine, storage: Storage, rounds: int, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    fill(machine.source / "messages.db", 100)
    recovery = enrolled(machine, storage)
    asyncio.run(play(machine, storage, chance, rounds))

    beside = FolderProvider(BESIDE, machine.storage(BESIDE))
    names = sorted(found.name for found in beside.list(""))
    with contextlib.closing(storage.direct()) as there:
        assert {found.name for found in there.list("")} == set(names)
        lose(chance, [there, beside], names)
        left = [{found.name for found in one.list("")} for one in (there, beside)]
        assert all(len(some) <= len(names) - 3 for some in left)
    with empty_machine(machine, storage) as providers:
        every = watched(providers)
        opens = next(one for one in every if any(True for _ in one.list("slots/")))
        reader = VaultReader(every, unlock(opens, RecoveryMethod(recovery), others=every))
        newest = max(
            (one for stream in reader.streams() for one in reader.snapshots(reader.chain(stream))),
            key=lambda one: one.header.seq,
        )
        out = tmp_path / "out"
        restore(reader, newest, plan(reader, newest), os.fsencode(out), Choices())
    # Not the bytes of the database: the log may not be in it yet where the application left it.
    assert rows(out / "messages.db") == rows(machine.source / "messages.db")
    photos = {path.name: path.read_bytes() for path in machine.source.glob("photo *")}
    assert {path.name: path.read_bytes() for path in out.glob("photo *")} == photos
    assert len(photos) == rounds


def test_every_type_has_a_station_here() -> None:
    from chatkeep.providers.registry import BUILT_IN

    modules = {type(station).__module__.rpartition(".")[2] for station in SHORT}
    assert set(BUILT_IN) <= modules
