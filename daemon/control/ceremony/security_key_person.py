"""Whoever holds the security key: told what to do, asked for its PIN, and given a limited time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from fido2.client import UserInteraction
from fido2.ctap2.pin import ClientPin

from chatkeep.daemon.control.ceremony import security_key_pin
from chatkeep.daemon.control.ceremony.events import Event, Pin, Retry, Touch
from chatkeep.daemon.control.ceremony.security_key_finding import Key
from chatkeep.daemon.control.errors import CeremonyCancelled, CeremonyLost, CeremonyTimedOut, PinBlocked, PinWrong

MOST_TRIES: Final = 255


class Limits:
    """How long one step may take. `over` is set when its time is up, which also makes a key stop blinking."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.over = threading.Event()
        self._timer = threading.Timer(seconds, self.over.set)
        self._timer.daemon = True
        self._timer.start()

    def timed_out(self) -> CeremonyTimedOut:
        """The error to raise."""
        return CeremonyTimedOut(seconds=round(self.seconds))

    def stop(self) -> None:
        """The step is done."""
        self._timer.cancel()


class Person(UserInteraction):
    """Whoever holds the key: told when to touch it, asked for its PIN. The PIN is kept for the other gestures of this
    ceremony, which end with the process."""

    def __init__(
        self,
        key: Key,
        tell: Callable[[Event], None],
        before_leaving: Callable[[Callable[[], object]], None],
    ) -> None:
        self._key, self._tell, self._before_leaving = key, tell, before_leaving
        self._pin: str | None = None
        self._wrong = False
        self.finger = key.trusts_fingers
        self.limits: Limits
        self.touch = Touch(1, 1)

    def prompt_up(self) -> None:
        """The key blinks."""
        self._tell(self.touch)

    def request_uv(self, permissions: ClientPin.PERMISSION, rp_id: str | None) -> bool:  # noqa: ARG002
        """Whether to use the key's own fingerprint reader."""
        return self.finger

    def request_pin(self, permissions: ClientPin.PERMISSION, rp_id: str | None) -> str:  # noqa: ARG002
        """The PIN, asked for if it is not known yet."""
        self.finger = False  # the reader has given up, or there is none: from now on it is the PIN
        if self._pin is None:
            self._pin = self._asked()
        return self._pin

    def pin_was_wrong(self) -> None:
        """Forgets it: a wrong PIN that is tried again by itself would use up the key's tries."""
        self._pin, self._wrong = None, True

    def retry(self, reason: str) -> None:
        """Says that it is tried again, or that the time is up."""
        if self.limits.over.is_set():
            raise self.limits.timed_out()
        self._tell(Retry(reason))

    def _asked(self) -> str:
        retries, replug = ClientPin(self._key.ctap).get_pin_retries()
        # The library hands on what the key says, whatever that is. It is written to the terminal.
        if type(retries) is not int or not 0 <= retries <= MOST_TRIES:
            raise CeremonyLost(reason="key", cause="PIN_RETRIES")
        if not retries:
            raise PinBlocked(reason="reset")
        if replug:
            raise PinBlocked(reason="replug")
        self._tell(Pin(retries, self._wrong))
        try:
            return security_key_pin.ask(
                retries, wrong=self._wrong, over=self.limits.over, before_leaving=self._before_leaving
            )
        except TimeoutError as exc:
            raise self.limits.timed_out() from exc
        except security_key_pin.NothingTyped as exc:
            raise (PinWrong(retries=retries) if self._wrong else CeremonyCancelled(reason="terminal")) from exc
