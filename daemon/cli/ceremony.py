"""A ceremony with a passkey, from the command line: begun when something is asked, and told to the person at it."""

from __future__ import annotations

import contextlib
import getpass
import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self
from urllib.parse import urlsplit

from chatkeep.daemon.cli.measures import counted, printable, utc_minute
from chatkeep.daemon.cli.output import Output

if TYPE_CHECKING:
    from chatkeep.daemon.control.ceremony.client import ChildCeremony
    from chatkeep.daemon.control.ceremony.events import Event, Ready, Touch
    from chatkeep.daemon.keys.passkey import Answer, NewCredential, Question

Means = Literal["browser", "security-key"]
Purpose = Literal["unlock", "enrol"]

DEADLINE: Final = 300.0  # seconds for one gesture
STEPS: Final[Mapping[Purpose, int]] = {"unlock": 1, "enrol": 3}
_SSH_PORT: Final = "22"
_RETRY: Final = {
    "fingerprint": "The security key did not know the finger. Once more:",
    "timeout": "The security key stopped waiting. Once more:",
    "not-on-this-key": "That security key has no passkey of this vault.",
}
_REFUSED: Final = {
    "used": "The link was opened a second time. It opens nothing more: go on in the first page, or run the command "
    "again.",
    "token": "Something opened the page without its link, and was turned away.",
    "host": "Something reached the page under another name, and was turned away.",
    "origin": "Another page tried to use this one, and was turned away.",
    "user": "Another user of this machine tried to open the page, and was turned away.",
}


class Asking:
    """A ceremony (`keys.passkey.Ceremony`) whose process starts when the first thing is asked: nobody is shown a page
    before it is known that there is a vault.

    A context manager. What happens within is shown in the page when it is left: that it worked, or what did not.
    """

    def __init__(
        self,
        out: Output,
        means: Means,
        purpose: Purpose,
        vault: str,
        *,
        deadline: float = DEADLINE,
        others: str = "",
    ) -> None:
        """`vault`: its name. `deadline`: seconds for one gesture. `others`: told below the link of a page."""
        self._out = out
        self._means = means
        self._purpose: Purpose = purpose
        self._vault = vault
        self._deadline = deadline
        self._others = others
        self._child: ChildCeremony | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        child, self._child = self._child, None
        if error is not None:
            # What leaves may be another error than came: Ctrl-C is told as being cancelled.
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            if child is not None:
                child.end()

    def enrol(self, exclude: Sequence[bytes]) -> NewCredential:
        """As `keys.passkey.Ceremony`; raises CeremonyError and PasskeyRefused."""
        return self._begun().enrol(exclude)

    def ask(self, questions: Sequence[Question]) -> Answer:
        """As `keys.passkey.Ceremony`; raises CeremonyError and PasskeyRefused."""
        return self._begun().ask(questions)

    def _begun(self) -> ChildCeremony:
        if self._child is None:
            from chatkeep.daemon.control.ceremony.client import ChildCeremony

            self._child = self._stack.enter_context(
                ChildCeremony(
                    self._means,
                    vault=self._vault,
                    user=passkey_name(self._vault, time.time_ns()),
                    steps=STEPS[self._purpose],
                    tell=self._tell,
                    deadline=self._deadline,
                )
            )
        return self._child

    def _tell(self, event: Event) -> None:
        from chatkeep.daemon.control.ceremony.events import Ready

        text = told(event, self._means, self._purpose, self._vault, self._emphasis)
        if text:
            self._out.note(text)
        if self._others and isinstance(event, Ready):
            self._out.note(self._others)

    def _emphasis(self, text: str) -> str:
        return self._out.remark(text, "head")


def passkey_name(vault: str, when_ns: int) -> str:
    """What a new passkey is listed as, wherever it is kept: nothing else there tells two of them apart.

    The time stands early: a security key may cut a name off after 64 bytes (Web Authentication Level 3, section 6.4.1).
    """
    return f"{vault} {utc_minute(when_ns)}: backup key, do not delete"


def told(
    event: Event,
    means: Means,
    purpose: Purpose,
    vault: str,
    emphasis: Callable[[str], str] = str,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """What is said to a person when this happens; empty when nothing is."""
    from chatkeep.daemon.control.ceremony import events

    match event:
        case events.Ready():
            return _ready(event, purpose, vault, emphasis, environment)
        case events.Insert():
            return "Plug in the security key."
        case events.Choose(keys=keys):
            return f"{counted(keys, 'security key')} are plugged in. Touch the one to use."
        case events.Touch():
            return _touch(event, means, purpose)
        case events.Retry(reason=reason):
            return _RETRY.get(
                reason, "That came to nothing: cancelled, or not the right passkey. Try again in the page."
            )
        case events.Refused(reason=reason):
            return _REFUSED.get(reason, "Something was turned away.")
    return ""


def _ready(
    event: Ready, purpose: Purpose, vault: str, emphasis: Callable[[str], str], environment: Mapping[str, str]
) -> str:
    what = f"{'unlock' if purpose == 'unlock' else 'make a passkey for'} the vault {printable(vault)}"
    forward = ssh_forward(event.url, environment)
    if event.opened:
        lines = [f"Opening the browser to {what}. If no page comes, open this in it:"]
    elif forward:
        # Whoever is logged in from elsewhere has the browser there, and the page is served here only.
        lines = [
            f"To {what} from the computer you sit at, run this there first:",
            f"  {forward}",
            "Then open this in a browser there:",
        ]
    else:
        lines = [f"To {what}, open this in a browser on this machine:"]
    code = emphasis(f"{event.code[:3]} {event.code[3:]}")
    return "\n".join([*lines, f"  {event.url}", f"Code  {code}  - the page must show the same."])


def ssh_forward(url: str, environment: Mapping[str, str]) -> str:
    """The command that makes a page of this machine reachable from the one that is logged in here; empty when none is.

    The same port at both ends: the page is served to nobody who calls it by another name.
    """
    parts = environment.get("SSH_CONNECTION", "").split()
    port = urlsplit(url).port
    if len(parts) != 4 or port is None:
        return ""
    _, _, server, ssh_port = parts
    other_port = "" if ssh_port == _SSH_PORT else f" -p {ssh_port}"
    return printable(f"ssh -N -L {port}:localhost:{port}{other_port} {_user()}@{server}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # nobody of this number is known here
        return "you"


def _touch(event: Touch, means: Means, purpose: Purpose) -> str:
    if purpose == "unlock":
        return "Waiting for the passkey." if means == "browser" else "Touch the security key."
    at = f"{event.step} of {event.steps}"
    if means == "security-key":
        why = ("a passkey is made on it", "it is used", "it is used once more, to see that it can be relied on")
        return f"Touch the security key ({at}: {why[min(event.step, 3) - 1]})."
    why = ("make the passkey", "use it", "use it once more, to see that it can be relied on")
    return f"In the browser, {at}: {why[min(event.step, 3) - 1]}."
