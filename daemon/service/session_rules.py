"""When a session ends, and when uploads may run: a table of states and causes, and a clock that is handed in. Pure.

A *session* is the process that can read (`reader`). *Uploads are open* from the first unlock of a login session until
its end, also while the vault is locked again (`session.require_unlock`); what is captured meanwhile waits.

    state             there is a session   uploads
    held              no                   closed: nobody unlocked in this login session
    unlocked          yes                  open
    locked-uploading  no                   open
    left-unlocked     yes                  open as long as it lasts: the login ended, and `lock_on` spares it
    ending            it is being ended    open
    ending-closed     it is being ended    closed

A session that is being ended counts until it is gone: who asks is never told that a vault is locked which can be read.
Where `lock_on` spares the logout a session goes on, and a daemon that is started again takes it for one of the login in
which it found it: uploads are open again. So does one that was killed between a signal and the end that it demanded.

Every lock ends what there is, also a session that the daemon had not noticed, and one that cannot be ended is tried
again for as long as it takes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from chatkeep.config.running import SessionConfig

RETRY_AFTER: Final = 5.0
"""Seconds from a session that could not be ended to the next attempt."""

SAME_RESUME: Final = 10.0
"""Seconds in which a second word of the same awakening is none of another one."""


class State(enum.Enum):
    """What there is. See the top of this module."""

    HELD = "held"
    UNLOCKED = "unlocked"
    LOCKED_UPLOADING = "locked-uploading"
    LEFT_UNLOCKED = "left-unlocked"
    ENDING = "ending"
    ENDING_CLOSED = "ending-closed"


class Cause(enum.Enum):
    """What a signal comes to, by the configuration."""

    OPENED = "opened"  # there is a session that was not known
    LOCK = "lock"  # it is to end
    LOGOUT = "logout"  # nobody is logged in any more; the session is to end
    LOGOUT_SPARED = "logout-spared"  # the same, and the session goes on
    GONE = "gone"  # there is no session, as the daemon sees it
    FAILED = "failed"  # it could not be ended, and may be there


class Order(enum.Enum):
    """What is to be done, in the order in which it is given."""

    END = "end"  # end any session of the vault, also one that nobody knew of; then signal GONE, or END_FAILED
    REMEMBER = "remember"  # that uploads are open, for a daemon that is started again (`uploads_open`)
    FORGET = "forget"  # that they were
    LOOK = "look"  # whether there is a session; signal `Opened` if so


class Signal(enum.Enum):
    """What happened. The values that `session.lock_on` can name are the same words."""

    LOCK_COMMAND = "command"
    SUSPEND = "suspend"  # is about to happen
    RESUME = "resume"
    SCREEN_LOCK = "screen-lock"
    LOGOUT = "logout"  # of the last login
    IDLE = "idle"
    GONE = "gone"  # the session ended, or was ended
    END_FAILED = "end-failed"
    TICK = "tick"  # time passed


@dataclass(frozen=True, slots=True)
class Opened:
    """There is a session: a command told so, or it was found.

    Attributes:
        identity: of this one and no other.
        until: when its time is up (seconds of `Moment.boot`).
    """

    identity: object
    until: float


Input: TypeAlias = Signal | Opened

_S, _C, _O = State, Cause, Order
_END: Final = (_O.END,)
_LOOK: Final = (_O.LOOK,)  # after an end: somebody may have unlocked while it went on

TABLE: Final[Mapping[tuple[State, Cause], tuple[State, tuple[Order, ...]]]] = MappingProxyType(
    {
        (_S.HELD, _C.OPENED): (_S.UNLOCKED, (_O.REMEMBER,)),
        (_S.HELD, _C.LOCK): (_S.ENDING_CLOSED, _END),
        (_S.HELD, _C.LOGOUT): (_S.ENDING_CLOSED, (_O.FORGET, _O.END)),
        (_S.HELD, _C.LOGOUT_SPARED): (_S.HELD, (_O.FORGET,)),
        (_S.HELD, _C.GONE): (_S.HELD, ()),
        (_S.HELD, _C.FAILED): (_S.ENDING_CLOSED, ()),
        #
        (_S.UNLOCKED, _C.OPENED): (_S.UNLOCKED, (_O.REMEMBER,)),
        (_S.UNLOCKED, _C.LOCK): (_S.ENDING, _END),
        (_S.UNLOCKED, _C.LOGOUT): (_S.ENDING_CLOSED, (_O.FORGET, _O.END)),
        (_S.UNLOCKED, _C.LOGOUT_SPARED): (_S.LEFT_UNLOCKED, (_O.FORGET,)),
        (_S.UNLOCKED, _C.GONE): (_S.LOCKED_UPLOADING, _LOOK),
        (_S.UNLOCKED, _C.FAILED): (_S.ENDING, ()),
        #
        (_S.LOCKED_UPLOADING, _C.OPENED): (_S.UNLOCKED, (_O.REMEMBER,)),
        (_S.LOCKED_UPLOADING, _C.LOCK): (_S.ENDING, _END),
        (_S.LOCKED_UPLOADING, _C.LOGOUT): (_S.ENDING_CLOSED, (_O.FORGET, _O.END)),
        (_S.LOCKED_UPLOADING, _C.LOGOUT_SPARED): (_S.HELD, (_O.FORGET,)),
        (_S.LOCKED_UPLOADING, _C.GONE): (_S.LOCKED_UPLOADING, ()),
        (_S.LOCKED_UPLOADING, _C.FAILED): (_S.ENDING, ()),
        #
        (_S.LEFT_UNLOCKED, _C.OPENED): (_S.UNLOCKED, (_O.REMEMBER,)),
        (_S.LEFT_UNLOCKED, _C.LOCK): (_S.ENDING_CLOSED, _END),
        (_S.LEFT_UNLOCKED, _C.LOGOUT): (_S.ENDING_CLOSED, (_O.FORGET, _O.END)),
        (_S.LEFT_UNLOCKED, _C.LOGOUT_SPARED): (_S.LEFT_UNLOCKED, (_O.FORGET,)),
        (_S.LEFT_UNLOCKED, _C.GONE): (_S.HELD, _LOOK),
        (_S.LEFT_UNLOCKED, _C.FAILED): (_S.ENDING_CLOSED, ()),
        # One that is opened meanwhile is found by the look that follows: it may also be the one that is ending. It may
        # not be the one that was to be ended, so that a second lock is no repetition of the first.
        (_S.ENDING, _C.OPENED): (_S.ENDING, ()),
        (_S.ENDING, _C.LOCK): (_S.ENDING, _END),
        (_S.ENDING, _C.LOGOUT): (_S.ENDING_CLOSED, (_O.FORGET, _O.END)),
        (_S.ENDING, _C.LOGOUT_SPARED): (_S.ENDING_CLOSED, (_O.FORGET,)),
        (_S.ENDING, _C.GONE): (_S.LOCKED_UPLOADING, _LOOK),
        (_S.ENDING, _C.FAILED): (_S.ENDING, ()),
        #
        (_S.ENDING_CLOSED, _C.OPENED): (_S.ENDING_CLOSED, ()),
        (_S.ENDING_CLOSED, _C.LOCK): (_S.ENDING_CLOSED, _END),
        (_S.ENDING_CLOSED, _C.LOGOUT): (_S.ENDING_CLOSED, (_O.FORGET, _O.END)),
        (_S.ENDING_CLOSED, _C.LOGOUT_SPARED): (_S.ENDING_CLOSED, (_O.FORGET,)),
        (_S.ENDING_CLOSED, _C.GONE): (_S.HELD, _LOOK),
        (_S.ENDING_CLOSED, _C.FAILED): (_S.ENDING_CLOSED, ()),
    }
)

_OPEN: Final = frozenset({State.UNLOCKED, State.LOCKED_UPLOADING, State.LEFT_UNLOCKED, State.ENDING})
_THERE: Final = frozenset({State.UNLOCKED, State.LEFT_UNLOCKED})
_ENDING: Final = frozenset({State.ENDING, State.ENDING_CLOSED})
_EXPIRED: Final = "expired"
_BY_ITSELF: Final = "ended"


class SessionRules:
    """The state of one vault's session on this machine.

    Args:
        config: what it goes by.
        remembered: whether an earlier daemon of this login session left word that uploads are open. A session that is
            there is signalled as `Opened`, like any other.

    Attributes:
        state: as it is.
        reason: why the last session ended or is being ended: a value of `Signal`, `expired`, or `ended` when it ended
            by itself; None when there was none.
        until: when the session's time is up (seconds of `Moment.boot`); None without one.
    """

    def __init__(self, config: SessionConfig, *, remembered: bool) -> None:
        self._config = config
        self.state = State.LOCKED_UPLOADING if remembered else State.HELD
        self.reason: str | None = None
        self.until: float | None = None
        self._identity: object = None
        self._retry_at: float | None = None
        self._asleep = False
        self._resumed_at: float | None = None

    @property
    def uploads(self) -> bool:
        """Whether uploads may run."""
        return not self._config.require_unlock or self.state in _OPEN

    @property
    def session(self) -> bool:
        """Whether there is a session to work with. One that is being ended is none."""
        return self.state in _THERE

    @property
    def ending(self) -> bool:
        """Whether a session may still be there that is to be gone."""
        return self.state in _ENDING

    @property
    def wake_at(self) -> float | None:
        """When to `take` a `TICK` (seconds of `Moment.boot`); None: nothing is foreseen."""
        times = [at for at in (self.until if self.session else None, self._retry_at) if at is not None]
        return min(times, default=None)

    def reload(self, config: SessionConfig) -> None:
        """Goes by another configuration from now on. A session that there is keeps its end."""
        self._config = config

    def take(self, said: Input, now: float) -> tuple[Order, ...]:
        """What follows from something that happened at `now` (seconds of `Moment.boot`)."""
        if isinstance(said, Opened):
            return self._opened(said)
        match said:
            case Signal.TICK:
                return self._time_passed(now)
            case Signal.RESUME:
                return self._resumed(now)
            case Signal.END_FAILED:
                self._cause(Cause.FAILED)
                self._retry_at = now + RETRY_AFTER
                return ()
            case Signal.GONE:
                if self.session:
                    self.reason = _BY_ITSELF
                return self._cause(Cause.GONE)
            case Signal.LOGOUT:
                locks = said.value in self._config.lock_on
                return self._cause(Cause.LOGOUT if locks else Cause.LOGOUT_SPARED, said.value)
            case Signal.LOCK_COMMAND:
                return self._cause(Cause.LOCK, said.value)
            case Signal.SUSPEND:
                self._asleep = True
        return self._cause(Cause.LOCK, said.value) if said.value in self._config.lock_on else ()

    def _opened(self, said: Opened) -> tuple[Order, ...]:
        if self.session and said.identity == self._identity:
            return ()
        orders = self._cause(Cause.OPENED)
        if self.session:
            self._identity, self.until, self.reason = said.identity, said.until, None
        return orders

    def _resumed(self, now: float) -> tuple[Order, ...]:
        announced, self._asleep = self._asleep, False
        again = self._resumed_at is not None and now - self._resumed_at < SAME_RESUME
        self._resumed_at = now
        # Where nobody said that the machine was about to sleep, its awakening is the first that is known of it.
        if announced or again or Signal.SUSPEND.value not in self._config.lock_on:
            return self._time_passed(now)
        return self._cause(Cause.LOCK, Signal.SUSPEND.value)

    def _time_passed(self, now: float) -> tuple[Order, ...]:
        if self._retry_at is not None and now >= self._retry_at:
            return self._cause(Cause.LOCK)
        if self.session and self.until is not None and now >= self.until:
            return self._cause(Cause.LOCK, _EXPIRED)
        return ()

    def _cause(self, cause: Cause, reason: str | None = None) -> tuple[Order, ...]:
        before = self.state
        self.state, orders = TABLE[before, cause]
        if before in _THERE and reason is not None and self.ending:
            self.reason = reason
        if not self.session:
            self._identity = self.until = None
        if not self.ending or Order.END in orders:
            self._retry_at = None
        return orders
