"""A week in the life of a daemon, and a quiet day and a half after it in which everything has to come right."""

from __future__ import annotations

import collections
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from chatkeep.config.running import Locking, SessionConfig
from chatkeep.daemon.service.job_notes import JobNote
from chatkeep.daemon.service.session_rules import Opened, Signal
from chatkeep.daemon.sync import mirror, upload
from tests.support.simulated_daemon import BEAT, JOBS, Daemon
from tests.support.simulated_week_strands import Inline
from tests.support.simulated_world import DAY, HOUR, LIMIT, YEAR, World

RHYTHM = {"chat": 600.0, "mail": 1800.0, "notes": 7200.0}
"""Seconds between two writes, on average. The chat comes in bursts."""

CALM = 1.5 * DAY

LOOK_EVERY = 300.0
"""Seconds between two looks of somebody who types `chatkeep status`."""

RESTLESS = 1500
"""Things that happen within a minute; a busy one has a few hundred."""

_LOCK_ON: tuple[tuple[Locking, ...], ...] = (("suspend", "logout"), ("suspend", "screen-lock", "logout", "idle"), ())


class Week:
    """What happens is drawn from the seed; `run` raises AssertionError when a promise is broken."""

    def __init__(self, seed: int, *, days: float = 7, wall_jumps: bool = True) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.world = World(seed, Path(self.place.name), wall_jumps=wall_jumps)
        chance = self.world.chance
        self.end = days * DAY
        self.config = SessionConfig(
            require_unlock=chance.random() < 0.8, lock_on=chance.choice(_LOCK_ON[:2] if seed % 4 else _LOCK_ON)
        )
        self.notes: dict[str, JobNote] = {}
        self.daemon: Daemon | None = None
        self.sessions = itertools.count(1)
        self.past: collections.deque[str] = collections.deque(maxlen=12)
        self.lives: list[Daemon] = []
        self.looked = 0.0
        self.left: set[str] = set()
        for name in self.world.sources:
            self._later(1.0, lambda name=name: self._write(name))  # type: ignore[misc]
        for name in self.world.storages:
            self._later(chance.uniform(1, 10) * HOUR, lambda name=name: self._outage(name), on_machine=False)  # type: ignore[misc]
        self._later(chance.uniform(1, 20) * HOUR, self._disk_full)
        self._later(chance.uniform(1, 10) * HOUR, self._clock_is_set, on_machine=False)
        self._later(60.0, self._person)
        self.world.records.read()
        self.start()

    def run(self) -> None:
        """The week, and the days after it."""
        try:
            with (
                mock.patch.object(upload, "ThreadPoolExecutor", Inline),
                mock.patch.object(mirror, "ThreadPoolExecutor", Inline),
            ):
                self._go_on(self.end)
                self._calm()
                self._go_on(self.end + CALM)
            self._everything_came_right()
        except AssertionError as exc:
            exc.add_note(f"at {self.world.t / HOUR:.2f} hours; before: {'; '.join(self.past)}")
            raise
        finally:
            self._daemon_ends()
            self.place.cleanup()

    def _go_on(self, until: float) -> None:
        minute, steps = 0, 0
        while self.world.step(until):
            steps = steps + 1 if int(self.world.t / 60) == minute else 0
            minute = int(self.world.t / 60)
            assert steps < RESTLESS, "it never rests"
            self._look()
            if self.daemon is not None and not self.world.asleep:
                self.daemon.tells_the_truth()

    def _look(self) -> None:
        """What left the outbox was everywhere where it has to be; and somebody looks at the records."""
        records = self.world.records
        if records.unread and self.world.t - self.looked >= LOOK_EVERY:
            self.looked = self.world.t
            records.read()
        if self.daemon is not None and self.daemon.uploading and not self.world.calm:
            self._worst_moment(self.daemon)
        for name, storage in self.world.storages.items():
            if not storage.left and name in self.left:
                self.happened(f"{name} is brought up")
                self.left.discard(name)
        for name in records.take_left():
            self.left.add(name)
            self.happened(f"{name} is left behind")
            if self.daemon is not None and name in self.daemon.uploading:
                self.world.happened("left behind while it was sent to")

    def _worst_moment(self, daemon: Daemon) -> None:
        """One that may be away is told to leave off, since the others have everything: it is killed before it does. Or
        one is brought up, and that breaks off."""
        world, chance = self.world, self.world.chance
        if world.records.waiting > LIMIT // 2 and world.records.held_up() > LIMIT // 2 and chance.random() < 0.2:
            self.happened("killed before room was made")
            self.kill()
            return
        brought_up = [one for one in world.storages.values() if one.left and one.up and one.name in daemon.uploading]
        if brought_up and chance.random() < 0.01:
            if chance.random() < 0.5:
                self.kill()
            else:
                self.happened("gone while it was brought up")
                brought_up[0].up = False

    def _later(self, seconds: float, act: Callable[[], object], *, on_machine: bool = True) -> None:
        self.world.plan(seconds, lambda: (act(), None)[1], on_machine=on_machine)

    def happened(self, what: str) -> None:
        """Noted, for a report and for a test that it did."""
        self.past.append(f"{self.world.t / HOUR:.2f} {what}")
        self.world.happened(what)

    # -- the application ----------------------------------------------------------------------------------------------

    def _write(self, source: str) -> None:
        """It writes, and mostly the system tells of it."""
        world = self.world
        if world.t > self.end + CALM / 2:
            return
        world.writes[source].append(world.t)
        told = world.chance.random()
        if self.daemon is not None and told > 0.08:
            self.daemon.hint(source)
        elif self.daemon is not None:
            world.happened("a hint that was lost")
        burst = source == "chat" and world.chance.random() < 0.5
        self._later(
            world.chance.uniform(0.5, 5) if burst else world.chance.expovariate(1 / RHYTHM[source]),
            lambda: self._write(source),
        )

    # -- trouble ------------------------------------------------------------------------------------------------------

    def _outage(self, name: str) -> None:
        """A provider goes, or is back."""
        world = self.world
        if world.calm:
            return
        storage = world.storages[name]
        storage.up = not storage.up
        self.happened(f"{name} {'is back' if storage.up else 'is gone'}")
        away = [0.02, 0.5, 5, 20] if storage.required else [0.5, 8, 20, 40]
        hours = world.chance.uniform(1, 20) if storage.up else world.chance.choice(away)
        self._later(hours * HOUR, lambda: self._outage(name), on_machine=False)

    def _disk_full(self) -> None:
        """The disk of the state directory is full, or not any more."""
        world = self.world
        if world.calm:
            return
        world.disk_full = not world.disk_full
        self.happened("the disk is full" if world.disk_full else "the disk has room")
        hours = world.chance.choice([0.02, 0.5, 3]) if world.disk_full else world.chance.uniform(5, 40)
        self._later(hours * HOUR, self._disk_full)

    def _clock_is_set(self) -> None:
        """The wall clock jumps, or is put right."""
        world = self.world
        if world.calm:
            return
        by = world.chance.choice([HOUR, -HOUR, 8 * HOUR, -8 * HOUR, YEAR, -YEAR, 3 * YEAR, -3 * YEAR, None])
        if world.wall_jumps:
            world.offset = 0.0 if by is None else world.offset + by
            self.happened("the clock is put right" if by is None else f"the clock is set by {by / HOUR:.0f} hours")
        self._later(world.chance.uniform(2, 15) * HOUR, self._clock_is_set, on_machine=False)

    # -- the person ---------------------------------------------------------------------------------------------------

    def _person(self) -> None:
        """Does something now and then."""
        world = self.world
        if world.calm:
            return
        acts = [self.unlock, self.unlock, self.lock, self._screen_lock, self._idle, self.suspend, self.logout]
        acts += [self.kill, self.reboot, self.lend]
        world.chance.choice(acts)()
        self._later(world.chance.uniform(0.05, 3) * HOUR, self._person)

    def unlock(self) -> None:
        """A session begins, in place of the one there may be; mostly the command tells the daemon of it."""
        world = self.world
        if not world.logged_in:
            return
        self.happened("unlock")
        before, mine = world.session, next(self.sessions)
        world.session, world.session_until = mine, world.t + self.config.lock_after
        if self.daemon is not None and world.chance.random() < 0.8:
            self.daemon.hear(Opened(mine, world.session_until - world.booted))
        elif self.daemon is not None and before is not None:
            self.daemon.session_gone()  # the process of the one that it knew
        self._later(float(self.config.lock_after), lambda: self._session_ends(mine), on_machine=False)

    def _session_ends(self, which: int) -> None:
        """By itself: its time is up."""
        world = self.world
        if world.session == which:
            world.session = None
            if self.daemon is not None:
                self.daemon.session_gone()

    def lock(self) -> None:
        """The command tells the daemon, or ends it where there is none."""
        self.happened("lock")
        if self.daemon is not None:
            self.daemon.hear(Signal.LOCK_COMMAND)
            self._must_end(self.world.session)
        else:
            self.world.session = None

    def _screen_lock(self) -> None:
        """The screen is locked."""
        self._signal(Signal.SCREEN_LOCK)

    def _idle(self) -> None:
        """Nobody is there."""
        self._signal(Signal.IDLE)

    def _signal(self, signal: Signal) -> None:
        self.happened(signal.value)
        if self.daemon is not None:
            self.daemon.hear(signal)
            if signal.value in self.config.lock_on:
                self._must_end(self.world.session)

    def _must_end(self, which: int | None, within: float = 180.0) -> None:
        """Long after it was to end a session is gone, also if that failed at first, unless who ends it was killed."""
        life = self.world.life

        def look() -> None:
            if which is not None and life == self.world.life and self.daemon is not None:
                assert self.world.session != which, "a session outlived its lock"

        self._later(within, look)

    def logout(self) -> None:
        """The last login ends, and there is another one later."""
        world = self.world
        if not world.logged_in:
            return
        self.happened("logout")
        world.logged_in = False
        if self.daemon is not None:
            self.daemon.hear(Signal.LOGOUT)
            if "logout" in self.config.lock_on:
                self._must_end(world.session)
                assert self.daemon.rules.uploads is not self.config.require_unlock, "uploads are open after a logout"
        else:
            world.session, world.remembered = None, False  # the directory of the sockets goes
        self._later(world.chance.uniform(60, 7200), self._login)

    def _login(self) -> None:
        """Somebody is there again."""
        self.world.logged_in = True

    def suspend(self) -> None:
        """The machine goes to sleep, and mostly somebody says so before."""
        world = self.world
        announced = self.daemon is not None and world.chance.random() < 0.8
        self.happened("suspend" if announced else "suspend that nobody tells of")
        if announced and self.daemon is not None:
            self.daemon.hear(Signal.SUSPEND)
        self._later(1.5, lambda: self._sleeps(announced=announced))

    def _sleeps(self, *, announced: bool) -> None:
        """It does."""
        world, locks = self.world, "suspend" in self.config.lock_on
        if world.asleep:
            return
        if announced and locks and self.daemon is not None and world.session is not None:
            assert self.daemon.rules.ending, "asleep, and unlocked"
        seconds = world.chance.choice([120.0, HOUR, 9 * HOUR])
        world.sleep(seconds)
        self._later(seconds, lambda: self._wakes(announced=announced), on_machine=False)

    def _wakes(self, *, announced: bool) -> None:
        """It is awake. Where nobody says so, the daemon sees by its clocks that it was not, within a minute."""
        world, before, life = self.world, self.world.session, self.world.life
        world.asleep, world.awake_since = False, world.t

        def told() -> None:
            if self.daemon is not None and world.life == life:
                self.daemon.resumed()

        self._later(0.1 if announced else world.chance.uniform(0.1, BEAT), told)
        if "suspend" in self.config.lock_on:
            self._must_end(before)

    def lend(self) -> None:
        """A command wants the state directory."""
        if self.daemon is not None:
            self.daemon.lend()

    # -- the daemon itself --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """It is started, if it does not run."""
        if self.daemon is None:
            self.daemon = Daemon(self.world, self.config, self.notes)
            self.lives.append(self.daemon)

    def _daemon_ends(self) -> None:
        """At once, whatever it does."""
        if self.daemon is not None:
            if any(self.world.storages[name].left for name in self.daemon.uploading):
                self.world.happened("killed while it was brought up")
            self.daemon.killed()
        self.daemon = None

    def kill(self) -> None:
        """Killed at any instant, and started again by the service manager."""
        self.happened("killed")
        self._daemon_ends()
        self.world.life += 1
        self._later(self.world.chance.choice([0.1, 5.0, 600.0]), self.start)

    def reboot(self) -> None:
        """The machine is started anew: the clock that counts sleep begins again, the login is another one."""
        world = self.world
        self.happened("reboot")
        self._daemon_ends()
        world.life += 1
        world.session, world.remembered = None, False
        seconds = world.chance.choice([30.0, 6 * HOUR])
        world.sleep(seconds)

        def up() -> None:
            world.asleep, world.awake_since = False, world.t
            world.booted = world.t - 20.0
            world.logged_in = True
            self.start()

        self._later(seconds, up, on_machine=False)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        """From now on nothing goes wrong, and the vault is unlocked every ten hours."""
        world = self.world
        world.calm = True
        world.disk_full, world.logged_in = False, True
        for storage in world.storages.values():
            storage.up = storage.calm = True
        self._later(30.0, self._unlock_again)

    def _unlock_again(self) -> None:
        """The person is there, and so is the daemon."""
        self.start()
        self.unlock()
        self._later(10 * HOUR, self._unlock_again)

    def _everything_came_right(self) -> None:
        """Every write is in a snapshot that began after it, every provider has all of them, every job ran."""
        world = self.world
        assert self.daemon is not None
        for source, writes in world.writes.items():
            assert world.upto(source) == len(writes), f"writes of {source} are in no snapshot"
        for name, storage in world.storages.items():
            assert not storage.lacks, f"{name} lacks snapshots"
            assert storage.holds.keys() == world.records.sealed.keys()
        assert not world.records.here, "something waits for nobody"
        for name, every in JOBS.items():
            good = self.daemon.table.notes[name].good_ns
            assert good is not None, f"{name} never ran"
            ago = (world.now.wall_ns - good) / 1e9
            assert ago <= every + 4 * HOUR, f"{name} is missed for good"
        assert not self.daemon.faults
