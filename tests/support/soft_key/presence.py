"""The person at the key: touches it, says no, or is not there."""

from __future__ import annotations

import enum
import threading
import time
from typing import Protocol

from tests.support.soft_key.statuses import Refused, Status

PATIENCE = 30.0  # seconds; section 6.1: an authenticator waits at least ten for a user


class Touch(enum.StrEnum):
    """What the person does when the key blinks."""

    YES = "yes"
    DENY = "deny"
    NEVER = "never"


class Link(Protocol):
    """What the transport does while a command waits for the person."""

    def blinking(self) -> None:
        """Tells the platform that the key waits for a touch."""

    def cancelled(self, seconds: float) -> bool:
        """Waits so long at most; whether the platform has cancelled, or is gone."""


class Person:
    """Touch and finger; may be changed from another thread while a command waits."""

    def __init__(self, touch: Touch, finger: bool) -> None:
        self.touch = touch
        self.finger_matches = finger
        self.wrong_fingers = 0  # so many times first, whatever matches
        self.patience = PATIENCE
        self.blinked = 0  # how often a touch was waited for
        self.waiting = threading.Event()

    def finger_known(self) -> bool:
        """Whether the key knows the finger that it was touched with this time."""
        if self.wrong_fingers:
            self.wrong_fingers -= 1
            return False
        return self.finger_matches

    def must_touch(self, link: Link) -> None:
        """Returns when the key was touched."""
        self.blinked += 1
        self.waiting.set()
        try:
            link.blinking()
            self._wait(link)
        finally:
            self.waiting.clear()

    def _wait(self, link: Link) -> None:
        until = time.monotonic() + self.patience
        if self.touch is Touch.YES and link.cancelled(0):
            raise Refused(Status.KEEPALIVE_CANCEL)
        while self.touch is Touch.NEVER:
            if link.cancelled(0.02):
                raise Refused(Status.KEEPALIVE_CANCEL)
            if time.monotonic() > until:
                raise Refused(Status.USER_ACTION_TIMEOUT)
        if self.touch is Touch.DENY:
            raise Refused(Status.OPERATION_DENIED)
