"""Devices that back up, prune and sweep at several storages, each with a clock and a temper of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chatkeep.config.amounts import ALL, Amount, Duration
from chatkeep.config.model import Retention, Source
from chatkeep.daemon.backup.run import SourceResult, back_up
from chatkeep.daemon.backup.writer import BUDGET, Writer
from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.keys.recovery import RecoveryKey, generate
from chatkeep.daemon.prune.commit import carry_out
from chatkeep.daemon.prune.outbox_first import OutboxFirst
from chatkeep.daemon.prune.own import OwnVault
from chatkeep.daemon.prune.plan import Plan, Terms, make_plan
from chatkeep.daemon.prune.put_back import put_back
from chatkeep.daemon.restore.apply import Choices
from chatkeep.daemon.restore.snapshot import plan as plan_restore
from chatkeep.daemon.restore.snapshot import restore
from chatkeep.daemon.service.engine.sweeping import condemned_by
from chatkeep.daemon.state import State
from chatkeep.daemon.sync import sweep
from chatkeep.daemon.sync.upload import Pace, release, upload
from chatkeep.daemon.vault.checkpoint import Checkpoint
from chatkeep.daemon.vault.create import Way, add_device, create_vault
from chatkeep.daemon.vault.credential import WriterCredential
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.unlock import unlock, unlock_to_enrol, unlock_to_prune
from chatkeep.daemon.verify.capsules import prove_all
from chatkeep.providers import base
from tests.support.memory_provider import MemoryProvider

DAY = 86_400 * 10**9
HOUR = DAY // 24
START = 1_800_000_000 * 10**9
NONE = Amount(0)
_TWO = Amount(2)
KEEP = Retention(Duration(86_400), _TWO, _TWO, _TWO, _TWO, ALL, _TWO, Duration(7 * 86_400))


def silent(what: str, done: int, total: int | None) -> None:
    """Nobody watches."""


@dataclass
class World:
    """True time, in ns; every clock is so much ahead of it."""

    now: int = START

    def pass_(self, ns: int) -> None:
        self.now += ns


class Storage(MemoryProvider):
    """Storage with a clock.

    Attributes:
        ahead: of its clock, ns; None: it tells no time.
        away: it cannot be reached.
        held: names that an object lock keeps.
        deletes: whether this device may delete at all.
        lag: so long, in ns, what a device put is not listed.
        sent: bytes of devices' objects that were ever put.
        fuse: calls until it stops answering in the middle of one (-1: never); `last` is what was asked then.
    """

    def __init__(self, name: str, world: World, ahead: int | None = 0) -> None:
        super().__init__(name)
        self.world, self.ahead = world, ahead
        self.away, self.deletes = False, True
        self.held: set[str] = set()
        self.stored: dict[str, int] = {}
        self.lag = 0
        self.sent = 0
        self.fuse = -1
        self.calls = 0
        self.refusals = 0

    def copy(self, world: World) -> Storage:
        """Another with the same objects."""
        made = Storage(self.name, world, self.ahead)
        made.objects, made.stored = dict(self.objects), dict(self.stored)
        return made

    def put(self, name: str, body: bytes) -> None:
        self._call(name)
        self.sent += len(body) if name.startswith("d/") else 0
        super().put(name, body)
        self.stored.setdefault(name, self.world.now)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._call(name)
        return super().get(name, offset, length)

    def stat(self, name: str) -> base.ObjectStat:
        self._call(name)
        found = super().stat(name)
        if self.ahead is None:
            return found
        return dataclasses.replace(found, modified=(self.stored.get(name, START) + self.ahead) / 10**9)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        self._call(prefix)
        for found in super().list(prefix):
            if (
                not self.lag
                or not found.name.startswith("d/")
                or self.stored.get(found.name, 0) <= self.world.now - self.lag
            ):
                yield found

    def delete(self, name: str) -> None:
        self._call(name)
        if name.startswith("d/") and not self.deletes:
            self.refusals += 1
            raise base.PermissionRefused(provider=self.name, object=name)
        if name in self.held:
            self.refusals += 1
            raise base.ObjectHeld(provider=self.name, object=name)
        super().delete(name)
        self.stored.pop(name, None)

    def _call(self, name: str) -> None:
        self.calls += 1
        if self.away:
            raise base.Unavailable(provider=self.name)
        if self.fuse == 0:
            raise Cut
        self.fuse -= self.fuse > 0

    def own(self, part: str) -> set[str]:
        """Names with this part, of packs `/p/`, manifests `/s/`, checkpoints `/c/`."""
        return {name for name in self.objects if part in name}


class Cut(BaseException):
    """The process is killed here."""


@dataclass
class Home:
    """One device, with its source and its state; `content` is what each snapshot must restore to."""

    room: Path
    world: World
    storages: Sequence[Storage]
    recovery: RecoveryKey
    credential: WriterCredential
    ahead: int = 0
    budget: int = BUDGET
    content: dict[int, dict[str, str]] = field(default_factory=dict)
    policy: Retention = KEEP

    @classmethod
    def make(cls, room: Path, world: World, *storages: Storage) -> Home:
        """The first device of a vault."""
        recovery = generate()
        created = create_vault(list(storages), [Way(RecoveryMethod(recovery), "test")], world.now)
        return cls(room, world, storages, recovery, created.credential).furnished()

    def join(self, room: Path) -> Home:
        """Another device of the same vault."""
        with unlock_to_enrol(self.storages[0], RecoveryMethod(self.recovery), self.credential.vault_id) as enrolment:
            credential = add_device(self.storages, enrolment)
        return Home(room, self.world, self.storages, self.recovery, credential).furnished()

    def copy(self, room: Path) -> Home:
        """The same device, world and storages once more, in another place."""
        world = World(self.world.now)
        storages = [one.copy(world) for one in self.storages]
        shutil.copytree(self.room, room)
        return dataclasses.replace(self, room=room, world=world, storages=storages, content=dict(self.content))

    def furnished(self) -> Home:
        (self.room / "chat").mkdir(parents=True)
        return self

    @property
    def source(self) -> Path:
        return self.room / "chat"

    def clock(self) -> int:
        return self.world.now + self.ahead

    def state(self) -> State:
        return State.open(self.room / "state", self.credential.vault_id, self.credential.device_id)

    def write(self, name: str, content: bytes) -> None:
        """A file, its time never the same twice in a row."""
        path = self.source / name
        path.write_bytes(content)
        os.utime(path, ns=(self.world.now, self.world.now + len(self.content)))

    def tree(self) -> dict[str, str]:
        """What the source holds now."""
        return tree_of(self.source)

    def back_up(self, *, send: Sequence[Storage] | None = None) -> SourceResult:
        """A backup, sent to these storages (all)."""
        with self.state() as state:
            assert state.outbox.recover() == []
            writer = Writer(self.credential, state, clock=self.clock, budget=self.budget)
            result = back_up(writer, Source(self.source, name="chat"))
            self.send(state, self.storages if send is None else send)
        if result.snapshots:
            self.content[result.last_seq] = tree_of(self.source)
        return result

    def send(self, state: State, storages: Sequence[Storage]) -> None:
        pace = Pace(threads=1, sleep=lambda _: None, now_ns=self.clock)
        for one in storages:
            upload(state.outbox, one, pace=pace)
        release(state.outbox, [one.name for one in self.storages])

    # -- prune ------------------------------------------------------------------------------------------------------

    def plan(
        self, state: State, policy: Retention | None = None, *, carry: bool = False, give_up: bool = False
    ) -> Plan:
        """What prune would do now; and does, if `carry`."""
        at = [one for one in self.storages if not one.away]
        device = self.credential.device_id
        with unlock_to_prune(at[0], RecoveryMethod(self.recovery), self.credential.vault_id) as pruner:
            prove_all(state.capsules, pruner.vault.vault_id, pruner.vault.opener)
            put_back(state, at)
            own = OwnVault([OutboxFirst(one, state) for one in at], pruner.vault, device)
            names = [one.name for one in self.storages]
            terms = Terms(policy or self.policy, names, self.clock(), give_up=give_up)
            made = make_plan(own, state, terms, silent)
            if carry:
                carry_out(made, state, device, pruner.record, pruner.checkpoint)
        return made

    def prune(
        self, policy: Retention | None = None, *, send: Sequence[Storage] | None = None, give_up: bool = False
    ) -> Plan:
        """Plan, carry out, send."""
        with self.state() as state:
            assert state.outbox.recover() == []
            made = self.plan(state, policy, carry=True, give_up=give_up)
            self.send(state, self.storages if send is None else send)
        return made

    def plan_again(self) -> Checkpoint | None:
        """What another prune at the same time would say."""
        with self.state() as state:
            return self.plan(state).checkpoint

    def sweep(self, *storages: Storage, asked: bool = True, policy: Retention | None = None) -> list[sweep.SweepResult]:
        """Sweep at these storages (all)."""
        terms = sweep.Terms(
            grace=int((policy or self.policy).grace),
            condemned_by=condemned_by(self.credential),
            providers=[one.name for one in self.storages],
            asked=asked,
            now_ns=self.clock,
        )
        with self.state() as state:
            return [sweep.sweep(state.pruning, one, terms) for one in storages or self.storages]

    # -- reading ----------------------------------------------------------------------------------------------------

    def read(self, *storages: Storage) -> tuple[VaultReader, list[Snapshot], list[str]]:
        """From these storages and the recovery key alone: a reader, this device's snapshots newest first, findings."""
        at = list(storages or self.storages)
        reader = VaultReader(at, unlock(at[0], RecoveryMethod(self.recovery), self.credential.vault_id))
        found: list[Snapshot] = []
        wrong: list[str] = []
        for stream in reader.streams():
            if stream.device_id == self.credential.device_id:
                chain = reader.chain(stream)
                found += reader.snapshots(chain)
                wrong += [problem.code for problem in chain.findings]
        return reader, found, wrong + [problem.code for problem in reader.findings]

    def check(self, *storages: Storage, only: Collection[int] | None = None) -> list[int]:
        """Restore every snapshot that these storages have (or only some); returns the numbers, newest first."""
        reader, found, wrong = self.read(*storages)
        assert wrong == []
        for snapshot in found:
            seq = snapshot.header.seq
            if only is not None and seq not in only:
                continue
            target = self.room / "restored"
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(target)
            report = restore(reader, snapshot, plan_restore(reader, snapshot), os.fsencode(target), Choices())
            vague = {os.fsdecode(path) for path in (*report.pending, *report.stale)}
            expected = {name: digest for name, digest in self.content[seq].items() if name not in vague}
            restored = {name: digest for name, digest in tree_of(target).items() if name not in vague}
            assert restored == expected, f"snapshot {seq}"
        return [snapshot.header.seq for snapshot in found]


def tree_of(top: Path) -> dict[str, str]:
    """Digest of every file by its path."""
    return {
        str(path.relative_to(top)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in top.rglob("*")
        if path.is_file()
    }


def days(home: Home, count: int, per_day: int = 2, **how: object) -> None:
    """So many days with snapshots, each with a file of its own and changes of five others."""
    for _ in range(count * per_day):
        number = len(home.content)
        home.write("note", b"%d " % number * 500)
        home.write(f"photo-{number % 5}", b"photo %d" % number * 3000)
        home.back_up(**how)  # type: ignore[arg-type]
        home.world.pass_(DAY // per_day)


def kept(home: Home, *storages: Storage) -> list[int]:
    return [snapshot.header.seq for snapshot in home.read(*storages)[1]]
