"""A device with two providers that answer badly: replies that are lost, puts that arrive late or twice, and outages."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.keys.recovery import generate
from chatkeep.daemon.state import State
from chatkeep.daemon.sync.upload import Pace, release, upload
from chatkeep.daemon.vault.create import Way, create_vault
from chatkeep.providers.base import ObjectConflict, Unavailable
from chatkeep.providers.wrap import Patience
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.memory_provider import MemoryProvider
from tests.support.whole import Device

STORES: Final = ("memory", "second")
TROUBLES: Final = ("none", "none", "lost reply", "refused", "late", "twice")


class Slow(MemoryProvider):
    """Memory in which a put can arrive long after it was given up, or twice."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.trouble = ""
        self.skip = 0
        self.on_the_way: list[tuple[str, bytes]] = []
        self.fired = 0

    def put(self, name: str, body: bytes) -> None:
        """As storage does on a bad day: once, after `skip` puts."""
        if not self.trouble or self.skip:
            self.skip -= bool(self.trouble)
            super().put(name, body)
            return
        trouble, self.trouble = self.trouble, ""
        self.fired += 1
        if trouble == "late":
            self.on_the_way.append((name, body))
            raise Unavailable(provider=self.name)
        super().put(name, body)
        super().put(name, body)

    def arrive(self) -> None:
        """Everything that was on its way gets there. What is there by now is there."""
        for name, body in self.on_the_way:
            try:
                super().put(name, body)
            except ObjectConflict as problem:  # pragma: no cover
                raise AssertionError("a late put would have changed an object") from problem
        self.on_the_way.clear()


@dataclass
class Trouble:
    """What is wrong with a provider during one upload: after `skip` puts, `kind`."""

    kind: str = "none"
    skip: int = 0


@dataclass
class TwoStores(Device):
    """A device whose every object has to reach two providers. `sends_to`: those that can be reached now."""

    stores: tuple[Slow, ...] = ()
    sends_to: Sequence[str] = STORES
    troubles: dict[str, Trouble] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STORES, 0))
    fired: int = 0

    @classmethod
    def make(cls, directory: Path, clock: Callable[[], int] = time.time_ns) -> Self:
        """A new vault at both."""
        stores = tuple(Slow(name) for name in STORES)
        recovery = generate()
        created = create_vault(stores, [Way(RecoveryMethod(recovery), "test")], 1)
        return cls(stores[0], recovery, created.credential, directory, clock, stores=stores)

    def send(self, state: State) -> None:
        """Upload to whom can be reached. What was acknowledged stays acknowledged, and is a beginning of the chain."""
        stream = state.stream("chat").stream
        for store in self.stores:
            if store.name in self.sends_to:
                trouble = self.troubles.pop(store.name, Trouble())
                fault = Fault("put", Unavailable(provider=store.name), trouble.kind == "lost reply", skip=trouble.skip)
                faults = [fault] if trouble.kind in ("lost reply", "refused") else []
                store.trouble, store.skip = trouble.kind if trouble.kind in ("late", "twice") else "", trouble.skip
                before = store.fired
                sent = upload(state.outbox, FaultyProvider(store, *faults), pace=Pace(1, Patience(attempts=1)))
                self.fired += fault.fired + store.fired - before
                store.trouble = ""
                assert fault.fired or store.fired > before or not sent.problems
            frontier = state.outbox.frontier(stream, store.name)
            assert frontier >= self.acknowledged[store.name], "what was acknowledged is not any more"
            self.acknowledged[store.name] = frontier
            seen = self.seqs(store)
            assert seen == list(range(1, len(seen) + 1)), f"{store.name} shows {seen}"
            assert len(seen) >= frontier, f"{store.name} acknowledged {frontier} and shows {len(seen)}"
        release(state.outbox, STORES)

    def send_everything(self) -> None:
        """Both can be reached, and nothing goes wrong any more."""
        self.sends_to, self.troubles = STORES, {}
        with self.open_state() as state:
            assert state.outbox.recover() == []
            self.send(state)
            assert state.outbox.waiting() == (0, 0)

    @contextlib.contextmanager
    def only(self, which: int) -> Iterator[Slow]:
        """Restores read from this provider alone while the block runs."""
        self.provider = self.stores[which]
        try:
            yield self.stores[which]
        finally:
            self.provider = self.stores[0]

    @staticmethod
    def seqs(store: MemoryProvider) -> list[int]:
        """The numbers of the manifests that a provider shows."""
        names = [name.rpartition("/")[2] for name in store.objects if "/s/" in name]
        return sorted(int(name.partition("-")[0]) for name in names)
