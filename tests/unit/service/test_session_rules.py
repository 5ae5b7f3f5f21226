"""The table of the session: every row, and what must hold whatever happens in whatever order."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatkeep.config.running import Locking, SessionConfig
from chatkeep.daemon.service import session_rules
from chatkeep.daemon.service.session_rules import (
    RETRY_AFTER,
    SAME_RESUME,
    TABLE,
    Cause,
    Input,
    Opened,
    Order,
    SessionRules,
    Signal,
    State,
)

ALL: tuple[Locking, ...] = ("suspend", "screen-lock", "logout", "idle")
EVERYTHING = SessionConfig(lock_on=ALL)

# The same table in another form, so that a slip of one hand is not the truth of the other:
# state > opened, lock, logout, logout spared, gone, failed. "!" end, "+" remember, "-" forget, "?" look.
ROWS = """
    held              unlocked+  ending-closed!  ending-closed-!  held-           held               ending-closed
    unlocked          unlocked+  ending!         ending-closed-!  left-unlocked-  locked-uploading?  ending
    locked-uploading  unlocked+  ending!         ending-closed-!  held-           locked-uploading   ending
    left-unlocked     unlocked+  ending-closed!  ending-closed-!  left-unlocked-  held?              ending-closed
    ending            ending     ending!         ending-closed-!  ending-closed-  locked-uploading?  ending
    ending-closed     ending-closed  ending-closed!  ending-closed-!  ending-closed-  held?          ending-closed
"""
SIGNS = {"!": Order.END, "+": Order.REMEMBER, "?": Order.LOOK}


def cell(text: str) -> tuple[State, tuple[Order, ...]]:
    word, orders = text, list[Order]()
    while word and word not in {state.value for state in State}:
        orders.insert(0, Order.FORGET if word[-1] == "-" else SIGNS[word[-1]])
        word = word[:-1]
    return State(word), tuple(orders)


EXPECTED = {
    (State(line.split()[0]), cause): cell(text)
    for line in ROWS.strip().splitlines()
    for cause, text in zip(Cause, line.split()[1:], strict=True)
}


def test_every_state_meets_every_cause() -> None:
    assert set(TABLE) == set(itertools.product(State, Cause)) == set(EXPECTED)


@pytest.mark.parametrize(("state", "cause"), sorted(EXPECTED, key=str), ids=lambda one: one.value)
def test_row(state: State, cause: Cause) -> None:
    assert TABLE[state, cause] == EXPECTED[state, cause]


def in_state(state: State, config: SessionConfig = EVERYTHING) -> SessionRules:
    """Rules that came to a state by signals alone."""
    rules = SessionRules(config, remembered=state in {State.LOCKED_UPLOADING, State.ENDING})
    ways: dict[State, tuple[Input, ...]] = {
        State.HELD: (),
        State.UNLOCKED: (Opened("a", 1000.0),),
        State.LOCKED_UPLOADING: (),
        State.LEFT_UNLOCKED: (Opened("a", 1000.0), Signal.LOGOUT),
        State.ENDING: (Signal.LOCK_COMMAND,),
        State.ENDING_CLOSED: (Signal.LOCK_COMMAND,),
    }
    if state is State.LEFT_UNLOCKED:
        rules.reload(replace(config, lock_on=()))
    for signal in ways[state]:
        rules.take(signal, 0.0)
    rules.reload(config)
    assert rules.state is state
    return rules


def wake(rules: SessionRules) -> float | None:
    return rules.wake_at


def why(rules: SessionRules) -> str | None:
    return rules.reason


# Which cause each signal is, with everything in `lock_on` and with nothing.
CAUSES: dict[Signal, tuple[Cause | None, Cause | None]] = {
    Signal.LOCK_COMMAND: (Cause.LOCK, Cause.LOCK),
    Signal.SUSPEND: (Cause.LOCK, None),
    Signal.RESUME: (Cause.LOCK, None),  # that nobody announced
    Signal.SCREEN_LOCK: (Cause.LOCK, None),
    Signal.LOGOUT: (Cause.LOGOUT, Cause.LOGOUT_SPARED),
    Signal.IDLE: (Cause.LOCK, None),
    Signal.GONE: (Cause.GONE, Cause.GONE),
    Signal.END_FAILED: (Cause.FAILED, Cause.FAILED),
    Signal.TICK: (None, None),
}


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize("signal", Signal, ids=lambda one: one.value)
@pytest.mark.parametrize("state", State, ids=lambda one: one.value)
def test_every_signal_in_every_state(state: State, signal: Signal, *, configured: bool) -> None:
    assert set(CAUSES) == set(Signal)
    rules = in_state(state, replace(EVERYTHING, lock_on=ALL if configured else ()))
    cause = CAUSES[signal][not configured]
    orders = rules.take(signal, 1.0)
    assert (rules.state, orders) == (EXPECTED[state, cause] if cause is not None else (state, ()))


@pytest.mark.parametrize("state", State, ids=lambda one: one.value)
def test_a_session_that_was_not_known_in_every_state(state: State) -> None:
    rules = in_state(state)
    orders = rules.take(Opened("b", 50.0), 1.0)
    assert (rules.state, orders) == EXPECTED[state, Cause.OPENED]
    assert rules.until == (50.0 if rules.session else None)


@pytest.mark.parametrize(
    ("state", "uploads", "session", "ending"),
    [
        (State.HELD, False, False, False),
        (State.UNLOCKED, True, True, False),
        (State.LOCKED_UPLOADING, True, False, False),
        (State.LEFT_UNLOCKED, True, True, False),
        (State.ENDING, True, False, True),
        (State.ENDING_CLOSED, False, False, True),
    ],
)
def test_what_a_state_means(state: State, *, uploads: bool, session: bool, ending: bool) -> None:
    rules = in_state(state)
    assert (rules.uploads, rules.session, rules.ending) == (uploads, session, ending)
    rules.reload(replace(EVERYTHING, require_unlock=False))
    assert (rules.uploads, rules.session, rules.ending) == (True, session, ending)


@pytest.mark.parametrize("word", ALL)
def test_each_word_of_lock_on_stands_for_its_signal_alone(word: Locking) -> None:
    for signal in (Signal.SUSPEND, Signal.SCREEN_LOCK, Signal.LOGOUT, Signal.IDLE):
        rules = in_state(State.UNLOCKED, replace(EVERYTHING, lock_on=(word,)))
        orders = rules.take(signal, 1.0)
        assert (Order.END in orders) is (signal.value == word)
        assert rules.reason == (word if signal.value == word else None)


def test_the_time_of_a_session_is_up() -> None:
    rules = in_state(State.UNLOCKED)
    assert wake(rules) == 1000.0
    assert rules.take(Signal.TICK, 999.9) == ()
    assert rules.take(Signal.TICK, 1000.0) == (Order.END,)
    assert (rules.state, rules.reason, rules.wake_at) == (State.ENDING, "expired", None)
    assert rules.take(Signal.TICK, 2000.0) == ()


def test_the_time_of_a_session_was_up_while_the_machine_slept() -> None:
    rules = in_state(State.UNLOCKED, SessionConfig(lock_on=("logout",)))
    assert rules.take(Signal.SUSPEND, 10.0) == ()
    assert rules.take(Signal.RESUME, 5000.0) == (Order.END,)
    assert rules.reason == "expired"


def test_the_same_session_told_again_is_no_other() -> None:
    rules = in_state(State.UNLOCKED)
    assert rules.take(Opened("a", 1000.0), 5.0) == ()
    assert rules.take(Opened("b", 3000.0), 6.0) == (Order.REMEMBER,)
    assert rules.wake_at == 3000.0


def test_one_that_was_left_unlocked_does_not_open_the_next_login() -> None:
    """Found again and again as the daemon looks, it is still the one of the login that ended."""
    rules = in_state(State.LEFT_UNLOCKED, SessionConfig(lock_on=()))
    assert rules.take(Opened("a", 1000.0), 5.0) == ()
    rules.take(Signal.GONE, 6.0)
    assert (rules.state, rules.uploads) == (State.HELD, False)


def test_one_that_cannot_be_ended_is_tried_again_and_not_called_locked() -> None:
    rules = in_state(State.UNLOCKED)
    rules.take(Signal.SUSPEND, 10.0)
    at = 10.0
    for _ in range(50):
        assert rules.take(Signal.END_FAILED, at) == ()
        assert rules.ending
        assert rules.wake_at == at + RETRY_AFTER
        assert rules.take(Signal.TICK, at + RETRY_AFTER - 0.1) == ()
        at += RETRY_AFTER
        assert rules.take(Signal.TICK, at) == (Order.END,)
        assert rules.wake_at is None  # until that attempt is over
    assert rules.take(Signal.GONE, at) == (Order.LOOK,)
    assert (rules.state, rules.reason, rules.wake_at) == (State.LOCKED_UPLOADING, "suspend", None)


def test_why_a_session_ended() -> None:
    rules = in_state(State.UNLOCKED)
    rules.take(Signal.GONE, 1.0)
    assert why(rules) == "ended"
    rules.take(Opened("b", 99.0), 2.0)
    assert why(rules) is None
    rules.take(Signal.LOCK_COMMAND, 3.0)
    rules.take(Signal.SUSPEND, 3.0)
    rules.take(Signal.GONE, 4.0)
    rules.take(Signal.IDLE, 5.0)  # ends nothing that there was
    assert rules.reason == "command"


def test_an_awakening_that_nobody_announced_ends_the_session() -> None:
    announced, unannounced = in_state(State.UNLOCKED), in_state(State.UNLOCKED)
    assert announced.take(Signal.SUSPEND, 10.0) == (Order.END,)
    announced.take(Signal.GONE, 10.1)
    announced.take(Opened("b", 900.0), 11.0)  # begun before the machine really slept: its own risk
    assert announced.take(Signal.RESUME, 500.0) == ()
    assert unannounced.take(Signal.RESUME, 500.0) == (Order.END,)


def test_the_same_awakening_told_twice_spares_who_unlocked_between() -> None:
    rules = in_state(State.UNLOCKED)
    rules.take(Signal.RESUME, 500.0)
    rules.take(Signal.GONE, 500.1)
    rules.take(Opened("b", 5000.0), 505.0)
    assert rules.take(Signal.RESUME, 500.0 + SAME_RESUME - 1) == ()
    assert rules.take(Signal.RESUME, 600.0) == (Order.END,)


def test_a_restart_in_the_same_login_session_goes_on() -> None:
    assert SessionRules(EVERYTHING, remembered=True).uploads
    assert not SessionRules(EVERYTHING, remembered=False).uploads
    assert SessionRules(SessionConfig(require_unlock=False), remembered=False).uploads


# -- whatever happens, in whatever order ------------------------------------------------------------------------------


class World:
    """The machine around the rules: at most one session, the file that remembers, orders that are carried out late,
    ends that fail, and a daemon that is started again."""

    def __init__(self, config: SessionConfig, chance: random.Random) -> None:
        self.config, self.chance = config, chance
        self.alive: object = None
        self.until = 0.0
        self.remembered = False
        self.now = 100.0
        self.queue: list[Order | Signal] = []
        self.names = itertools.count()
        self.opened_in_login = False  # a session was told or found since the last logout
        self.failed_ends = 0
        self.everything = False
        self.rules = SessionRules(config, remembered=False)

    def give(self, said: Input) -> None:
        if said is Signal.LOGOUT:
            self.opened_in_login = False
        elif isinstance(said, Opened) and not self.rules.ending:
            self.opened_in_login = True
        for order in self.rules.take(said, self.now):
            if order is Order.REMEMBER:
                self.remembered = True
            elif order is Order.FORGET:
                self.remembered = False
            else:
                self.queue.append(order)
        self.check()

    def carry_out(self, fails: bool = False) -> None:
        """The next thing that the daemon was told to do, or that it is to hear of."""
        if not self.queue:
            return
        order = self.queue.pop(self.chance.randrange(len(self.queue)))  # they are carried out on threads
        if isinstance(order, Signal):
            self.give(order)
        elif order is Order.LOOK:
            if self.alive is not None:
                self.give(Opened(self.alive, self.until))
        elif fails and self.alive is not None:
            self.failed_ends += 1
            self.queue.append(Signal.END_FAILED)
        else:
            self.alive = None
            self.queue.append(Signal.GONE)

    def settle(self) -> None:
        """Everything that is due happens, and nothing fails any more."""
        for _ in range(1000):
            if self.queue:
                self.carry_out()
            elif (at := self.rules.wake_at) is not None and at <= self.now + RETRY_AFTER and self.rules.ending:
                self.now = max(self.now, at)
                self.give(Signal.TICK)
            else:
                return
        raise AssertionError("it never settles")

    def restart(self) -> None:
        self.queue.clear()
        self.rules = SessionRules(self.config, remembered=self.remembered)
        self.everything = False
        if self.alive is not None:
            self.give(Opened(self.alive, self.until))

    def check(self) -> None:
        if self.config.require_unlock and self.rules.uploads:
            assert self.opened_in_login or self.rules.session  # one that was left unlocked
        if self.alive is None and not self.queue:
            assert not self.rules.session

    def reload(self) -> None:
        """With everything in `lock_on`, or as it was."""
        self.everything = not self.everything
        self.rules.reload(EVERYTHING if self.everything else self.config)

    def step(self, what: str) -> None:
        self.now += self.chance.choice([0.0, 0.1, 3.0, 60.0])
        match what:
            case "unlock":
                self.alive, self.until = next(self.names), self.now + self.config.lock_after
                if self.chance.random() < 0.7:  # else nobody tells, and it is found later
                    self.give(Opened(self.alive, self.until))
            case "look":
                self.queue.append(Order.LOOK)
            case "die":
                if self.alive is not None:
                    self.alive = None
                    self.queue.append(Signal.GONE)
            case "work" | "fail":
                self.carry_out(fails=what == "fail")
            case "sleep":
                self.give(Signal.SUSPEND)
                self.now += 3600.0
                self.give(Signal.RESUME)
            case "restart":
                self.restart()
            case "reload":
                self.reload()
            case "logout":
                self.give(Signal.LOGOUT)
            case "tick":
                self.give(Signal.TICK)
            case signal:
                self.give(Signal(signal))


STEPS = ["unlock", "look", "die", "work", "work", "fail", "sleep", "restart", "logout", "tick"]
STEPS += ["command", "suspend", "screen-lock", "idle"]
configs = st.builds(
    lambda words, require: SessionConfig(lock_on=tuple(words), require_unlock=require),
    st.sets(st.sampled_from(ALL)).map(sorted),
    st.booleans(),
)


@settings(max_examples=400, deadline=None)
@given(configs, st.lists(st.sampled_from(STEPS), max_size=40), st.integers(0, 2**32))
def test_after_a_lock_no_session_is_left(config: SessionConfig, steps: list[str], chance: int) -> None:
    world = World(config, random.Random(chance))
    for step in steps:
        world.step(step)
    for signal in ("command", *config.lock_on):
        world.step("unlock")
        world.step(signal)
        world.settle()
        assert world.alive is None, signal
        assert not world.rules.session
        assert not world.rules.ending
    assert world.rules.state in {State.HELD, State.LOCKED_UPLOADING}


@settings(max_examples=400, deadline=None)
@given(configs, st.lists(st.sampled_from(STEPS), max_size=40), st.integers(0, 2**32))
def test_uploads_follow_the_login(config: SessionConfig, steps: list[str], chance: int) -> None:
    world = World(config, random.Random(chance))
    for step in steps:
        world.step(step)
    world.settle()
    world.step("logout")
    world.step("command")
    world.settle()
    assert world.rules.uploads is not config.require_unlock, "after a logout nothing was unlocked"
    assert not world.remembered
    world.restart()
    assert world.rules.uploads is not config.require_unlock, "a daemon of the next login"
    world.step("unlock")
    world.give(Opened(world.alive, world.until))
    world.step("command")
    world.settle()
    assert world.rules.uploads, "they go on after a lock"
    world.restart()
    assert world.rules.uploads, "and in a daemon that was started again"


def test_the_walks_meet_every_row() -> None:
    """The properties above say something about a row only if it is walked over."""
    seen = set[tuple[State, Cause]]()

    class Watched(dict[tuple[State, Cause], tuple[State, tuple[Order, ...]]]):
        def __getitem__(self, key: tuple[State, Cause]) -> tuple[State, tuple[Order, ...]]:
            seen.add(key)
            return super().__getitem__(key)

    chance = random.Random(5)
    failed = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_rules, "TABLE", Watched(TABLE))
        for _ in range(1500):
            words: tuple[Locking, ...] = chance.choice([ALL, (), ("suspend", "logout")])
            world = World(SessionConfig(lock_on=words), chance)
            for _ in range(60):
                world.step(chance.choice([*STEPS, "reload", "fail", "fail", "command", "unlock", "logout"]))
            failed += world.failed_ends
    assert seen == set(TABLE)
    assert failed > 100
