"""A ceremony with a security key on this machine: found, chosen, touched, and its PIN asked for at the terminal."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypeVar

from fido2.hid.base import HidDescriptor

from chatkeep.daemon.control.ceremony.child import Ask, Command, End, Enrol, Parent
from chatkeep.daemon.control.ceremony.events import Choose, Insert, Retry, Touch
from chatkeep.daemon.control.ceremony.security_key_asking import KeyInUse, NotOnThisKey
from chatkeep.daemon.control.ceremony.security_key_finding import Key, chosen, forbidden, plugged_in, usable
from chatkeep.daemon.control.ceremony.security_key_person import Limits
from chatkeep.daemon.control.errors import NoSecurityKey, NotOnSecurityKey
from chatkeep.daemon.keys.passkey import Answer, NewCredential, Question

T = TypeVar("T")
Act: TypeAlias = Callable[[KeyInUse, Limits, Touch], T]

LOOK_AGAIN: Final = 0.25
"""Seconds between two looks for a key."""
SETTLE: Final = 2.0
"""Seconds that a device may be nobody's: it appears before the system has given it to who sits at the machine."""


def perform(parent: Parent) -> None:
    """Does what the command asks for, until it says that it is over."""
    hands = Hands(parent)
    waiting: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def heard(command: Command) -> None:
        waiting.put(command)
        if isinstance(command, End):
            hands.stop()  # in the middle of a step: the key stops blinking, nobody is asked for a PIN any more

    parent.listen(heard)
    try:
        while True:
            command = waiting.get()
            if isinstance(command, Enrol):
                parent.enrolled(hands.enrol(command.exclude))
            elif isinstance(command, Ask):
                parent.answered(hands.ask(command.questions))
            else:
                return
    finally:
        hands.let_go()


class Hands:
    """The keys within reach. The one that did the first step does the others."""

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self._settled: KeyInUse | None = None
        self._reach: list[Key] = []
        self._done = 0
        self._limits: Limits | None = None
        self._stopped = False

    def enrol(self, exclude: Sequence[bytes]) -> NewCredential:
        """Makes a credential; one gesture. Raises as `ask` does, and `AlreadyEnrolled`."""
        user = self._parent.opening.user
        return self._step(lambda key, limits, touch: key.enrol(exclude, user, limits, touch))

    def ask(self, questions: Sequence[Question]) -> Answer:
        """Has a credential answer; one gesture, with the key of the last one, or with the one that can do it.

        Raises:
            NoSecurityKey: none was plugged in within the deadline, or none that this user may open.
            NotOnSecurityKey: none has the credential that is asked for.
            CeremonyTimedOut: the deadline has passed otherwise.
            What is wrong with a key, or was not agreed to at it.
        """
        return self._step(lambda key, limits, touch: key.ask(questions, limits, touch))

    def stop(self) -> None:
        """Ends the step that runs, and lets no other begin. Called from another thread."""
        self._stopped = True
        if self._limits is not None:
            self._limits.over.set()

    def let_go(self) -> None:
        """Closes every key."""
        for key in self._reach:
            key.device.close()
        self._reach = []

    def _step(self, act: Act[T]) -> T:
        self._limits = limits = Limits(self._parent.opening.deadline)
        if self._stopped:  # looked at after the limits are there to be ended: it comes from another thread
            limits.over.set()
        touch = Touch(self._done + 1, self._parent.opening.steps)
        try:
            answer = self._with_a_key(act, limits, touch)
        finally:
            limits.stop()
        self._done += 1
        return answer

    def _with_a_key(self, act: Act[T], limits: Limits, touch: Touch) -> T:
        if self._settled is None:
            self._reach = usable(self._found(limits))
        left = list(self._reach)
        while True:
            key = self._settled or self._in_use(self._choose(left, limits), left)
            try:
                answer = act(key, limits, touch)
            except NotOnThisKey as exc:
                if self._settled or not left:
                    raise NotOnSecurityKey(keys=len(self._reach)) from exc
                self._parent.tell(Retry("not-on-this-key"))
                continue
            self._settled = key
            return answer

    def _in_use(self, key: Key, left: list[Key]) -> KeyInUse:
        left.remove(key)
        return KeyInUse(key, self._parent.tell, self._parent.before_leaving)

    def _choose(self, left: list[Key], limits: Limits) -> Key:
        if len(left) == 1:
            return left[0]
        self._parent.tell(Choose(len(left)))
        key = chosen(left, limits.over)
        if key is None:
            raise limits.timed_out()
        return key

    def _found(self, limits: Limits) -> list[HidDescriptor]:
        """Waits for a key to be plugged in."""
        told = False
        since: float | None = None
        while True:
            if found := plugged_in():
                return found
            locked = forbidden()
            since = (since or time.monotonic()) if locked else None
            if since and time.monotonic() - since > SETTLE:
                raise NoSecurityKey(reason="permission", device=locked[0])
            if limits.over.is_set():
                raise NoSecurityKey(reason="none")
            if not told and not locked:
                self._parent.tell(Insert())
                told = True
            limits.over.wait(LOOK_AGAIN)
