"""The ceremony's side of the channel: what the command wants next, what it is told, and ending when it is gone."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control.ceremony.channel import Channel, ChannelBroken, ChannelClosed
from chatkeep.daemon.control.ceremony.events import Event, to_frame
from chatkeep.daemon.keys.passkey import CREDENTIAL_SIZE, Answer, NewCredential, Question
from chatkeep.daemon.keys.secret import wipe
from chatkeep.daemon.keys.strict_json import decode_b64, encode_b64


@dataclass(frozen=True, slots=True)
class Opening:
    """What the command says first: the vault's name, the code to compare, how long a gesture is waited for (seconds),
    how many gestures there will be, what a new passkey is called, and whether to open a browser."""

    vault: str
    code: str
    deadline: float
    steps: int
    user: str
    open: bool


@dataclass(frozen=True, slots=True)
class Enrol:
    """Make a credential; not where one of these is."""

    exclude: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """Have one of these credentials answer."""

    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class End:
    """It is over. `code`: of the error that ended it (see `code_of`), if one did."""

    ok: bool
    code: str


Command: TypeAlias = Enrol | Ask | End


class Parent:
    """The command that started this process. A thread of its own reads what it says, so that this process ends at once
    when it is gone, whatever a library of the ceremony is waiting for."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self._cleanup: list[Callable[[], object]] = []
        try:
            self.opening: Final = _opening(channel.receive().frame)
        except (KeyError, TypeError, ValueError) as exc:
            raise ChannelBroken("opening") from exc

    def listen(self, heard: Callable[[Command], object]) -> None:
        """Calls `heard` for each command, in a thread of its own, from now on."""
        threading.Thread(target=self._read, args=(heard,), daemon=True).start()

    def commands(self) -> Iterator[Command]:
        """The commands one by one, waiting for each."""
        waiting: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.listen(waiting.put)
        while True:
            yield waiting.get()

    def before_leaving(self, act: Callable[[], object]) -> None:
        """Has `act` run before this process ends because the command is gone: a terminal's echo, a file. It may run in
        another thread, and must not wait for anything."""
        self._cleanup.append(act)

    def tell(self, event: Event) -> None:
        """Tells the command what happens."""
        self._send(to_frame(event))

    def enrolled(self, made: NewCredential) -> None:
        """Answers `Enrol`."""
        self._send({"enrolled": {"credential": encode_b64(made.credential), "synced": made.synced}})

    def answered(self, answer: Answer) -> None:
        """Answers `Ask`, and wipes the secret."""
        try:
            self._send({"answered": {"credential": encode_b64(answer.credential)}}, answer.secret)
        finally:
            wipe(answer.secret)

    def failed(self, error: ChatkeepError) -> None:
        """Says why the ceremony ends here."""
        self._send({"error": error.code, "params": error.params})

    def leave(self) -> None:
        """Does what was asked to be done before leaving."""
        while self._cleanup:
            self._cleanup.pop()()

    def _send(self, frame: dict[str, Any], secret: bytearray | None = None) -> None:
        with self._sending:
            try:
                self._channel.send(frame, secret)
            except ChannelClosed:
                self._end()

    def _read(self, heard: Callable[[Command], object]) -> None:
        try:
            while True:
                heard(_command(self._channel.receive().frame))
        except (ChannelClosed, ChannelBroken, KeyError, TypeError, ValueError):
            # The only one who may hear a secret is not there to hear it. Nothing is finished, nothing is tidied but
            # what the person would notice.
            self._end()

    def _end(self) -> None:
        try:
            self.leave()
        finally:
            os._exit(1)


def _opening(frame: dict[str, Any]) -> Opening:
    found = Opening(**{name: frame[name] for name in Opening.__slots__})
    if not 0 < found.deadline <= 24 * 3600:
        raise ValueError("deadline")
    return found


def _command(frame: dict[str, Any]) -> Command:
    match frame.get("do"):
        case "enrol":
            return Enrol(tuple(credential(text) for text in frame["exclude"]))
        case "ask":
            asked = (
                (credential(each["credential"]), decode_b64(each["evaluation"], 32)) for each in frame["questions"]
            )
            return Ask(tuple(Question(*each) for each in asked))
        case "end":
            return End(bool(frame["ok"]), str(frame["code"]))
    raise ValueError("do")


def code_of(error: ChatkeepError) -> str:
    """An error as the page is told of it: its code, and after a colon its reason if it has one."""
    reason = error.params.get("reason")
    return f"{error.code}:{reason}" if isinstance(reason, str) else error.code


def _question(fields: dict[str, str]) -> Question:
    return Question(credential(fields["credential"]), decode_b64(fields["evaluation"], 32))


def credential(text: str) -> bytes:
    """A credential id out of its one base64url spelling, or ValueError."""
    size = len(text) * 3 // 4
    if not CREDENTIAL_SIZE[0] <= size <= CREDENTIAL_SIZE[1]:
        raise ValueError("credential")
    return decode_b64(text, size)
