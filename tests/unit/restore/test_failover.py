"""A restore from several providers, none of which has everything, or one of which is dead, slow or damaged."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.restore.apply import Choices
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.vault import preference
from chatkeep.daemon.vault.preference import Watched, in_order, why_it_rests
from chatkeep.daemon.vault.reader import VaultReader
from chatkeep.daemon.vault.unlock import unlock
from chatkeep.providers.base import ObjectNotFound, ObjectStat, Provider, Unavailable
from chatkeep.providers.folder import FolderProvider
from tests.support.engines import Home
from tests.support.memory_provider import MemoryProvider
from tests.support.sources import fill
from tests.support.trees import describe


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Eight snapshots of a database and photos."""
    made = Home(tmp_path_factory.mktemp("home"), ("one",))
    with made.open() as engine:
        for number in range(8):
            fill(made.source / "messages.db", 100)
            made.write(f"photo {number}", 150_000)
            assert engine.snapshot("chat").error is None
        assert engine.upload("one").problems == ()
    return made


def memory(home: Home, name: str) -> MemoryProvider:
    folder, made = FolderProvider("one", home.room / "one"), MemoryProvider(name)
    made.objects = {found.name: folder.get(found.name) for found in folder.list("")}
    return made


def restored(home: Home, providers: Sequence[Provider], where: Path) -> VaultReader:
    """The newest snapshot on an empty machine, compared with the source; the reader says what was met."""
    opens = next(one for one in providers if any(one.list("slots/")))
    vault = unlock(opens, RecoveryMethod(home.recovery), others=list(providers))
    reader = VaultReader(providers, vault)
    (stream,) = reader.streams()
    newest = next(iter(reader.snapshots(reader.chain(stream))))
    restore(reader, newest, plan(reader, newest), os.fsencode(where), Choices())
    assert describe(where) == describe(home.source)
    return reader


def wipe(chance: random.Random, providers: Sequence[MemoryProvider]) -> int:
    """Every object stays whole at one provider; of the others' copies some are lost and some damaged. How many went."""
    gone = 0
    for name in sorted(providers[0].objects):
        stays = chance.choice(providers)
        for provider in providers:
            if provider is stays or name.startswith(("slots/", "vault/")):
                continue
            body = provider.objects[name]
            match chance.randrange(4):
                case 0:
                    place = chance.randrange(len(body))
                    provider.objects[name] = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
                case 1:
                    provider.objects[name] = body[: chance.randrange(len(body))]
                case _:
                    del provider.objects[name]
            gone += 1
    return gone


def require_equal_after_wiping(home: Home, seed: int, where: Path) -> None:
    chance = random.Random(seed)
    providers = [memory(home, name) for name in ("one", "two", "three")[: chance.choice((2, 2, 3))]]
    assert wipe(chance, providers) > 10, seed
    reader = restored(home, preference.watched(providers), where)
    # Whoever sees only one of them would not get everything: the wiping did something.
    assert len(reader.findings) > 0, seed


@pytest.mark.parametrize("seed", range(4))
def test_each_object_is_whole_somewhere(home: Home, tmp_path: Path, seed: int) -> None:
    require_equal_after_wiping(home, seed, tmp_path / "out")


@pytest.mark.long
def test_each_object_is_whole_somewhere_many_times(home: Home, tmp_path: Path) -> None:
    for seed in range(100, 300):
        require_equal_after_wiping(home, seed, tmp_path / str(seed))


class Clock:
    """Time passes when a provider takes it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Slow(MemoryProvider):
    """A provider of which each call takes time, and fails then if it is dead."""

    def __init__(self, inner: MemoryProvider, clock: Clock, seconds: float, *, dead: bool = False) -> None:
        super().__init__(inner.name)
        self.objects = inner.objects
        self.calls: list[str] = []
        self._clock, self._seconds, self._dead = clock, seconds, dead

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._take("get")
        return super().get(name, offset, length)

    def stat(self, name: str) -> ObjectStat:
        self._take("stat")
        return super().stat(name)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        self._take("list")
        return super().list(prefix)

    def _take(self, verb: str) -> None:
        self.calls.append(verb)
        self._clock.now += self._seconds
        if self._dead:
            raise Unavailable(provider=self.name)


def read_all(home: Home, providers: Sequence[Slow], clock: Clock, where: Path, *, watch: bool = True) -> VaultReader:
    """The newest snapshot, from providers of which the last one can be unlocked at."""
    vault = unlock(providers[-1], RecoveryMethod(home.recovery))
    reader = VaultReader([Watched(one, clock) if watch else one for one in providers], vault)
    (stream,) = reader.streams()
    newest = next(iter(reader.snapshots(reader.chain(stream))))
    restore(reader, newest, plan(reader, newest), os.fsencode(where), Choices())
    assert describe(where) == describe(home.source)
    return reader


def test_one_that_is_dead_costs_few_time_outs(home: Home, tmp_path: Path) -> None:
    clock = Clock()
    dead = Slow(memory(home, "dead"), clock, 60.0, dead=True)
    good = Slow(memory(home, "good"), clock, 0.01)
    reader = read_all(home, [dead, good], clock, tmp_path / "out")
    assert len(good.calls) > 10
    assert 1 <= len(dead.calls) <= 4, dead.calls  # threads that ask at the same time
    assert [one.code for one in reader.findings] == ["unavailable"]  # told once
    before = len(dead.calls)
    read_all(home, [dead, good], clock, tmp_path / "unwatched", watch=False)
    assert len(dead.calls) - before > 10  # or this test would prove nothing


def test_one_that_is_slow_comes_second(home: Home, tmp_path: Path) -> None:
    clock = Clock()
    slow, quick = Slow(memory(home, "slow"), clock, 20.0), Slow(memory(home, "quick"), clock, 0.05)
    read_all(home, [slow, quick], clock, tmp_path / "out")
    assert 1 <= slow.calls.count("get") <= 4
    assert quick.calls.count("get") > 10
    both = [Slow(memory(home, name), clock, 20.0) for name in ("one", "two")]
    read_all(home, both, clock, tmp_path / "both")
    assert both[0].calls.count("get") > both[1].calls.count("get")  # the order of the configuration


def test_the_only_one_that_has_it_is_asked_however_it_is(home: Home, tmp_path: Path) -> None:
    """The quick one lost the packs; the slow one failed a moment ago."""
    clock = Clock()
    slow, quick = Slow(memory(home, "slow"), clock, 5.0), Slow(memory(home, "quick"), clock, 0.01)
    for name in list(quick.objects):
        if "/p/" in name:
            del quick.objects[name]
    read_all(home, [slow, quick], clock, tmp_path / "out")
    watched = Watched(slow, clock)
    slow._dead = True
    with pytest.raises(Unavailable):
        watched.get("probe/x")
    assert why_it_rests(watched)
    assert in_order([watched, Watched(quick, clock)]) == [1, 0]
    slow._dead = False
    with pytest.raises(ObjectNotFound):  # an answer: it is there again
        watched.get("probe/x")
    assert in_order([watched, Watched(quick, clock)]) == [0, 1]


def test_damage_on_the_way_passes(home: Home, tmp_path: Path) -> None:
    """Every seventh reply comes with a bit that is another one, of no object twice: several threads read, and it is
    chance which reply is the seventh. There is no other copy."""

    class Flipping(MemoryProvider):
        count = 0
        flipped: ClassVar[set[str]] = set()

        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            body = super().get(name, offset, length)
            Flipping.count += 1
            if Flipping.count % 7 or not body or name in Flipping.flipped:
                return body
            Flipping.flipped.add(name)
            return body[:-1] + bytes([body[-1] ^ 1])

    store = memory(home, "one")
    flipping = Flipping("one")
    flipping.objects = store.objects
    reader = VaultReader([flipping], unlock(store, RecoveryMethod(home.recovery)))
    (stream,) = reader.streams()
    newest = next(iter(reader.snapshots(reader.chain(stream))))
    restore(reader, newest, plan(reader, newest), os.fsencode(tmp_path / "out"), Choices())
    assert describe(tmp_path / "out") == describe(home.source)
    assert Flipping.count > 14
    assert Flipping.flipped
    assert len(reader.findings) > 0  # told all the same


def test_a_rest_ends(home: Home) -> None:
    clock = Clock()
    dead = Slow(MemoryProvider("dead"), clock, 1.0, dead=True)
    watched = Watched(dead, clock)
    with pytest.raises(Unavailable):
        list(watched.list("d/"))
    assert why_it_rests(watched)
    clock.now += preference.REST - 1
    assert why_it_rests(watched)
    clock.now += 1
    assert why_it_rests(watched) is None
    assert preference.watched([dead]) == [dead]


def test_what_is_newest_without_one_that_rests_is_said_to_be_so(home: Home) -> None:
    """Another one, which is behind, answers for it: what it alone has is not shown, and never silently."""
    clock = Clock()
    fresh, behind = Watched(Slow(memory(home, "fresh"), clock, 1.0, dead=True), clock), memory(home, "behind")
    newest = max(name for name in behind.objects if "/s/" in name)
    del behind.objects[newest]
    with pytest.raises(Unavailable):
        fresh.get("vault/any")
    reader = VaultReader([fresh, Watched(behind, clock)], unlock(behind, RecoveryMethod(home.recovery)))
    (stream,) = reader.streams()
    assert newest not in {str(one.name) for one in reader.snapshots(reader.chain(stream))}
    assert ("unavailable", "fresh") in {(one.code, one.params["provider"]) for one in reader.findings}
