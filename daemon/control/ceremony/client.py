"""The command's side: a ceremony that runs in a process of its own and is asked like any other."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control import errors as control_errors
from chatkeep.daemon.control.ceremony.channel import Channel, ChannelBroken, ChannelClosed, Received
from chatkeep.daemon.control.ceremony.child import code_of, credential
from chatkeep.daemon.control.ceremony.events import Event, from_frame
from chatkeep.daemon.control.errors import CeremonyCancelled, CeremonyError, CeremonyLost, CeremonyTimedOut
from chatkeep.daemon.keys.errors import PasskeyRefused
from chatkeep.daemon.keys.passkey import Answer, NewCredential, Question
from chatkeep.daemon.keys.secret import wipe
from chatkeep.daemon.keys.strict_json import encode_b64

DEADLINE: Final = 300.0
"""Seconds for one gesture: time to find a phone, or the security key in the other bag."""
GRACE: Final = 5.0
"""Seconds that the process may be late with saying that the deadline has passed, before it is ended."""
FAREWELL: Final = 3.0
"""Seconds that the process has to show the result in the page."""

Kind = Literal["browser", "security-key"]

_MODULE: Final = "chatkeep.daemon.control.ceremony"
_ERRORS: Final = {
    cls.code: cls
    for cls in (PasskeyRefused, *vars(control_errors).values())
    if isinstance(cls, type) and issubclass(cls, CeremonyError | PasskeyRefused)
}


class ChildCeremony:
    """A ceremony (`keys.passkey.Ceremony`). A context manager: the process starts with it and ends with it.

    Leaving it with an error shows the person in the page that it failed; `end` shows that it worked. Ctrl-C within it
    becomes `CeremonyCancelled`, and the terminal is left as it was, also when the PIN was being typed.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        vault: str,
        user: str,
        steps: int,
        tell: Callable[[Event], None],
        deadline: float = DEADLINE,
        open_browser: bool = True,
    ) -> None:
        """`vault` is shown in the page, `user` by whatever keeps the passkey. `steps`: gestures from start to end, 3 to
        enrol and 1 to unlock. `tell` is called from `enrol` and `ask` for what happens meanwhile.
        """
        self.code: Final = f"{secrets.randbelow(10**6):06}"
        self._kind = kind
        self._deadline = deadline
        self._tell = tell
        self._opening = {
            "vault": vault,
            "code": self.code,
            "deadline": deadline,
            "steps": steps,
            "user": user,
            "open": open_browser,
        }
        self._leave = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_terminal_kept())
            ours, theirs = socket.socketpair()
            self._channel = Channel(ours)
            stack.callback(self._channel.close)
            with theirs:
                try:
                    self._process = _start(self._kind, theirs)
                except OSError as exc:
                    raise CeremonyLost(reason="start", cause=type(exc).__name__) from exc
            stack.callback(self._stop, 0)
            self._send(self._opening)
            self._leave = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                cancelled = CeremonyCancelled(reason="terminal")
                self._say_end(ok=False, code=code_of(error if isinstance(error, ChatkeepError) else cancelled))
            self._stop(0 if error is None else FAREWELL)
        except KeyboardInterrupt:
            self._stop(0)
            raise
        finally:
            self._leave.close()
        if isinstance(error, KeyboardInterrupt):
            raise CeremonyCancelled(reason="terminal") from error

    def enrol(self, exclude: Sequence[bytes]) -> NewCredential:
        """Makes a credential, on an authenticator that has none of `exclude`.

        Raises:
            CeremonyError: cancelled, timed out, lost, and what else the kind of ceremony meets.
            PasskeyRefused: what came back is not to be used.
        """
        self._send({"do": "enrol", "exclude": [encode_b64(each) for each in exclude]})
        received = self._answer("enrolled")
        with _strictly():
            made = received.frame["enrolled"]
            return NewCredential(credential(made["credential"]), made["synced"] is True)

    def ask(self, questions: Sequence[Question]) -> Answer:
        """Has one of the credentials answer. One gesture. Raises as `enrol` does."""
        asked = [
            {"credential": encode_b64(each.credential), "evaluation": encode_b64(each.evaluation)} for each in questions
        ]
        self._send({"do": "ask", "questions": asked})
        received = self._answer("answered")
        try:
            return _checked(received, questions)
        except BaseException:
            if received.secret is not None:
                wipe(received.secret)
            raise

    def end(self, *, ok: bool = True, code: str = "") -> None:
        """Shows the result in the page and waits until the process has ended. What it still had to tell is told."""
        self._say_end(ok=ok, code=code)
        until = time.monotonic() + FAREWELL
        with contextlib.suppress(CeremonyLost, CeremonyTimedOut):  # the first is how it ends
            while True:
                received = self._receive(until)
                if "event" in received.frame:
                    self._hand_on(received)
        self._stop(1.0)

    def _answer(self, name: str) -> Received:
        """Waits for the answer; hands on what is told until then."""
        until = time.monotonic() + self._deadline + GRACE
        while True:
            received = self._receive(until)
            if name in received.frame:
                return received
            if received.secret is not None:
                wipe(received.secret)
            if "error" in received.frame:
                raise _error(received.frame)
            self._hand_on(received)

    def _hand_on(self, received: Received) -> None:
        with _strictly():
            event = from_frame(received.frame)
        self._tell(event)

    def _receive(self, until: float) -> Received:
        try:
            return self._channel.receive(max(0.001, until - time.monotonic()))
        except TimeoutError as exc:
            raise CeremonyTimedOut(seconds=round(self._deadline)) from exc
        except ChannelClosed as exc:
            raise CeremonyLost(reason="ended", cause="") from exc
        except ChannelBroken as exc:
            raise CeremonyLost(reason="protocol", cause=str(exc)) from exc

    def _send(self, frame: dict[str, Any]) -> None:
        try:
            self._channel.send(frame)
        except ChannelClosed as exc:
            raise CeremonyLost(reason="ended", cause="") from exc

    def _say_end(self, *, ok: bool, code: str) -> None:
        with contextlib.suppress(ChannelClosed):  # it ended by itself: it had said why
            self._channel.send({"do": "end", "ok": ok, "code": code})

    def _stop(self, patience: float) -> None:
        """Ends the process: after `patience` seconds, closing the channel does it, and if not that, a signal."""
        try:
            for wait in (patience, 1.0):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(wait)
                    return
                self._channel.close()
        finally:
            self._channel.close()
            self._process.kill()  # nothing, when it has ended
            self._process.wait()


def _start(kind: Kind, theirs: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", _MODULE, kind, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the command's own output may be read by a program
    )


def _checked(received: Received, questions: Sequence[Question]) -> Answer:
    with _strictly():
        answered = credential(received.frame["answered"]["credential"])
    if received.secret is None:
        raise CeremonyLost(reason="protocol", cause="secret")
    if answered not in {each.credential for each in questions}:
        raise PasskeyRefused(reason="other-credential")
    return Answer(answered, received.secret)


def _error(frame: dict[str, Any]) -> ChatkeepError:
    cls, params = _ERRORS.get(str(frame["error"])), frame.get("params")
    if cls is None or not isinstance(params, dict):
        return CeremonyLost(reason="protocol", cause="error")
    return cls(**params)


@contextlib.contextmanager
def _strictly() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError) as exc:
        raise CeremonyLost(reason="protocol", cause=type(exc).__name__) from exc


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    """Puts the terminal back as it was: the process may be ended while it has the echo turned off for a PIN."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        yield  # there is none
        return
    try:
        before = termios.tcgetattr(terminal)
        try:
            yield
        finally:
            if termios.tcgetattr(terminal) != before:
                termios.tcsetattr(terminal, termios.TCSADRAIN, before)
    finally:
        os.close(terminal)
