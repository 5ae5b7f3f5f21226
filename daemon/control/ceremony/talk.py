"""What is said between the page and the ceremony: the link's token, the gestures one after the other, the end.

The page asks for the next gesture with the outcome of the last. Beside that it always has one question open, whether
it is over: so it learns at once when the command is gone, and the command when the tab is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import secrets
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control.ceremony.child import Ask, Enrol, Opening, credential
from chatkeep.daemon.control.ceremony.events import Event, PageOpened, Refused, Retry, Touch
from chatkeep.daemon.control.ceremony.server import BINARY, Call, Reply, Turned
from chatkeep.daemon.control.ceremony.webauthn import Assertion, Registration, Verifier
from chatkeep.daemon.control.errors import AlreadyEnrolled, CeremonyCancelled
from chatkeep.daemon.keys.errors import PasskeyRefused
from chatkeep.daemon.keys.passkey import Answer, NewCredential, Question
from chatkeep.daemon.keys.strict_json import decode_b64

HELD: Final = 20.0
"""Seconds that a question of the page is held open; then it asks again."""
GONE: Final = 4.0
"""Seconds without the page's open question until it counts as closed."""

FAILURES: Final = frozenset(
    {"NotAllowedError", "AbortError", "SecurityError", "NotSupportedError", "ConstraintError", "UnknownError"}
)
"""Names of what `navigator.credentials` throws after which a person can try again; another becomes UnknownError."""

_LENGTH: Final = struct.Struct(">I")


@dataclass(slots=True)
class Gesture:
    """What the person is to do now. A new try of it has a new id and a new challenge."""

    asked: Enrol | Ask
    number: int
    until: float
    outcome: asyncio.Future[NewCredential | Answer]
    id: int = 0
    challenge: bytes = b""
    again: bool = False


class Talk:
    """The page's side of the ceremony. Used in one event loop."""

    def __init__(self, opening: Opening, verifier: Verifier, tell: Callable[[Event], None]) -> None:
        self.token: Final = secrets.token_urlsafe(32)
        self._opening = opening
        self._verifier = verifier
        self._tell = tell
        self._ticket: str | None = None
        self._gesture: Gesture | None = None
        self._count = 0
        self._tries = 0
        self._end: Reply | None = None
        self._changed = asyncio.Event()
        self._watchers = 0
        self._watched = asyncio.Event()  # the page's question is open, or has been answered for good
        self._told_end = asyncio.Event()
        self._told: set[str] = set()

    async def gesture(self, asked: Enrol | Ask) -> NewCredential | Answer:
        """Has the person do this. Raises `PasskeyRefused`, `AlreadyEnrolled`, `CeremonyCancelled`."""
        outcome: asyncio.Future[NewCredential | Answer] = asyncio.get_running_loop().create_future()
        self._count += 1
        self._gesture = Gesture(asked, self._count, time.monotonic() + self._opening.deadline, outcome)
        self._renew(self._gesture)
        self._wake()
        try:
            return await outcome
        finally:
            self._gesture = None

    async def finish(self, *, ok: bool, code: str) -> None:
        """Tells the page how it ended, if there is a page, and waits until it knows."""
        self._end = {"do": "end", "ok": ok, "code": code}
        self._wake()
        if self._ticket is not None and (self._watchers or self._watched.is_set()):
            await self._told_end.wait()

    async def closed(self) -> None:
        """Returns when the page, once open, has been closed."""
        while True:
            await self._watched.wait()
            try:
                async with asyncio.timeout(GONE):
                    while self._watchers == 0:
                        await self._changed.wait()
            except TimeoutError:
                self._watched.clear()
                return
            await self._changed.wait()

    def refused(self, reason: str) -> None:
        """Tells the command of something that was turned away, once for each reason."""
        if reason not in self._told:
            self._told.add(reason)
            self._tell(Refused(reason))

    async def call(self, call: Call) -> Reply:
        """Answers the page. Raises `Turned`."""
        if call.name == "begin":
            return self._begin(call.token)
        if self._ticket is None or not _same(call.token, self._ticket):
            raise Turned(403, "token")
        match call.name:
            case "over":
                return await self._watch()
            case "next":
                self._hear(call)
                return await self._next()
        raise Turned(404)

    def _begin(self, token: str) -> Reply:
        if not _same(token, self.token):
            raise Turned(403, "token")
        if self._ticket is not None:
            # Somebody has the link twice. Which of the two is the person is for the person to say.
            raise Turned(410, "used")
        self._ticket = secrets.token_urlsafe(32)
        self._tell(PageOpened())
        opening = self._opening
        return {"ticket": self._ticket, "vault": opening.vault, "code": opening.code, "steps": opening.steps}

    async def _watch(self) -> Reply:
        self._watchers += 1
        self._watched.set()
        self._wake()
        try:
            await self._until(lambda: self._end is not None)
            return self._end_or_wait()
        finally:
            self._watchers -= 1
            self._wake()

    async def _next(self) -> Reply:
        def ready() -> bool:
            return self._end is not None or (self._gesture is not None and not self._gesture.outcome.done())

        await self._until(ready)
        gesture = self._gesture
        if self._end is not None or gesture is None or gesture.outcome.done():
            return self._end_or_wait()
        return self._asked(gesture)

    def _end_or_wait(self) -> Reply:
        if self._end is None:
            return {"do": "wait"}
        self._told_end.set()
        return self._end

    async def _until(self, ready: Callable[[], bool]) -> None:
        """Waits until it is true, but no longer than a question is held open."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HELD):
                while not ready():
                    await self._changed.wait()

    def _asked(self, gesture: Gesture) -> Reply:
        seconds = max(1.0, gesture.until - time.monotonic())
        if isinstance(gesture.asked, Enrol):
            what, options = (
                "create",
                self._verifier.creation(gesture.challenge, self._opening.user, gesture.asked.exclude, seconds),
            )
        else:
            what, options = "get", self._verifier.request(gesture.challenge, gesture.asked.questions, seconds)
        self._tell(Touch(gesture.number, self._opening.steps))
        return {
            "do": what,
            "id": gesture.id,
            "step": gesture.number,
            "again": gesture.again,
            "seconds": seconds,
            "options": options,
        }

    def _hear(self, call: Call) -> None:
        """Takes the outcome of a gesture, if the call brings one."""
        try:
            fields, secret = _parsed(call)
            said = fields["say"]
            if said == "stop":
                raise CeremonyCancelled(reason="page")
            gesture = self._gesture
            if said == "next" or gesture is None or gesture.outcome.done() or fields["id"] != gesture.id:
                return  # nothing, or of a try that is over
        except (KeyError, TypeError, ValueError, RecursionError) as exc:
            raise Turned(400) from exc
        except ChatkeepError as error:
            self._fail(error)
            return
        try:
            self._take(gesture, said, fields, secret)
        except (KeyError, TypeError, ValueError):
            self._fail(PasskeyRefused(reason="malformed"))
        except ChatkeepError as error:
            self._fail(error)

    def _take(self, gesture: Gesture, said: str, fields: dict[str, Any], secret: bytearray) -> None:
        asked = gesture.asked
        match said:
            case "failed":
                name = str(fields["name"])
                self._tell(Retry(name if name in FAILURES else "UnknownError"))
                gesture.again = True
                self._renew(gesture)
            case "there" if isinstance(asked, Enrol):
                raise AlreadyEnrolled
            case "no-prf":
                raise PasskeyRefused(reason="no-prf")
            case "created" if isinstance(asked, Enrol):
                made = Registration(credential(fields["credential"]), _b64(fields["client"]), _b64(fields["made"]))
                gesture.outcome.set_result(self._verifier.registered(made, gesture.challenge, asked.exclude))
            case "got" if isinstance(asked, Ask):
                gesture.outcome.set_result(self._answer(gesture, asked.questions, fields, secret))
            case _:
                raise ValueError("say")

    def _answer(
        self, gesture: Gesture, questions: Sequence[Question], fields: dict[str, Any], secret: bytearray
    ) -> Answer:
        found = Assertion(
            credential(fields["credential"]),
            _b64(fields["client"]),
            _b64(fields["authenticator"]),
            _b64(fields["signature"]),
            secret,
        )
        self._verifier.answered(found, gesture.challenge, questions)
        return Answer(found.credential, secret)

    def _fail(self, error: ChatkeepError) -> None:
        if self._gesture is not None and not self._gesture.outcome.done():
            self._gesture.outcome.set_exception(error)

    def _renew(self, gesture: Gesture) -> None:
        self._tries += 1
        gesture.id = self._tries
        gesture.challenge = os.urandom(32)

    def _wake(self) -> None:
        """Has everybody who waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()


def _same(said: str, secret: str) -> bool:
    """Compares in a time that does not tell how much of it was right."""
    return hmac.compare_digest(said.encode("utf-8", "surrogateescape"), secret.encode())


def _parsed(call: Call) -> tuple[dict[str, Any], bytearray]:
    """What the page says; of a binary call the rest is the secret."""
    text, secret = call.body, bytearray()
    if call.type == BINARY:
        length = _LENGTH.unpack(call.body[:4])[0] if len(call.body) >= 4 else len(call.body)
        text, secret = call.body[4 : 4 + length], bytearray(call.body[4 + length :])
        if len(text) != length:
            raise ValueError("length")
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("object")
    return fields, secret


def _b64(text: str) -> bytes:
    return decode_b64(text, len(text) * 3 // 4)
