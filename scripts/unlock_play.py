"""A newcomer's first minutes, played: the real command at a terminal of its own, the real page in Chromium with a
virtual authenticator, and a software security key. Somebody reads, types and touches in the time that it takes a
person, or in none.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

from tests.support.chromium import PRF, Chromium, Tab
from tests.support.desktop import Desktop
from tests.support.soft_key import Ports
from tests.support.station import COMMAND, fill
from tests.support.terminal import Answer, converse
from tests.support.visitor import Visitor

HOME: Final = "/home/ada"  # what the terminal is shown to say in place of the directory of the play
SAME: Final = "the page must show the same"
PIN: Final = "2580"
_CONFIGURATION: Final = """\
sources:
  - ~/Chat
providers:
  - {name: disk, type: folder, path: ~/backup-disk}
"""
_MEANWHILE: Final = ("In the browser", "Waiting for")
_NO_WORD: Final = re.compile(r"\S*[/\d]\S*")
_WORD: Final = re.compile(r"[^\W\d_][\w'-]*")
_STYLE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Pace:
    """How long somebody takes, in seconds. Reading and typing as studies of many people have it: 238 words a minute
    (Brysbaert 2019), 52 typed (Dhakal and others 2018). The rest is estimated.
    """

    word: float = 60 / 238
    key: float = 60 / 52 / 5
    copied: float = 0.8  # a digit, read from the screen and written on paper
    compared: float = 2.5  # the six digits of page and terminal
    found: float = 1.2  # the pointer is on a button, and it is pressed
    gesture: float = 2.5  # the system's own window is seen, and the finger is down
    pasted: float | None = None  # a command line that is copied from the documentation; None: all are typed


CAREFUL: Final = Pace()
"""Reads every word, types every letter."""
BRISK: Final = Pace(word=60 / 476, pasted=3.0)
"""Skims, at twice the pace, and copies the long command line from the documentation."""


@dataclass
class Person:
    """Somebody with a pace. `hurried`: takes no time, and only counts it."""

    hurried: bool = True
    pace: Pace = CAREFUL
    counted: dict[str, float] = field(default_factory=dict)

    def takes(self, what: str, seconds: float) -> None:
        self.counted[what] = self.counted.get(what, 0.0) + seconds
        if not self.hurried:
            time.sleep(seconds)

    def reads(self, text: str) -> None:
        """Every word, and neither links, paths and ids nor what was told while the eyes were in the browser."""
        seen = "\n".join(line for line in text.splitlines() if not line.startswith(_MEANWHILE))
        self.takes("reading", self.pace.word * len(_WORD.findall(_NO_WORD.sub("", seen))))

    def types(self, text: str, *, documented: bool = False) -> str:
        pasted = self.pace.pasted if documented else None
        self.takes("typing", self.pace.key * (len(text) + 1) if pasted is None else pasted)
        return text


class Play:
    """One machine with a browser and a security key, and what was seen at its terminal."""

    def __init__(self, room: Path, desktop: Desktop, visitor: Visitor, ports: Ports, person: Person) -> None:
        self.home = room / "home"
        (self.home / ".config" / "chatkeep").mkdir(parents=True)
        (self.home / ".config" / "chatkeep" / "chatkeep.yaml").write_text(_CONFIGURATION)
        (self.home / "Chat").mkdir()
        (self.home / "backup-disk").mkdir()
        fill(self.home / "Chat" / "messages.db")
        (room / "run").mkdir(mode=0o700)
        self._environment = {
            **desktop.environment(),
            **ports.environment(),
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(room / "run"),
            "TZ": "UTC",
            "NO_COLOR": "1",
        }
        self._desktop, self._visitor, self._ports, self.person = desktop, visitor, ports, person
        self.shown: list[str] = []
        self.ended = 0.0  # when the last command did
        self.counted: dict[str, float] = {}  # what the person had taken until then
        self._read = 0  # of what the command has shown so far

    def runs(self, line: str, talk: Sequence[tuple[str, Answer]] = (), aside: str = "") -> None:
        """Types a command line; the answers follow. Keeps what was shown, with what is done elsewhere after the last
        question, in brackets.
        """
        self.person.types(line, documented=" --" in line)
        self._read = 0
        words = shlex.split(line.replace("~", str(self.home)))[1:]
        # Without what would say that somebody is logged in from elsewhere, or has another desktop.
        alone = ["/usr/bin/env", "-u", "SSH_CONNECTION", "-u", "SSH_TTY", "-u", "WAYLAND_DISPLAY"]
        code, shown = converse([*alone, *COMMAND, *words], talk, self._environment)
        shown = _STYLE.sub("", shown).replace(str(self.home), HOME)
        if code != 0:
            raise RuntimeError(f"{line}: ended with {code}: {shown}")
        if aside:
            end = shown.index("\n", shown.index(talk[-1][0])) + 1
            shown = f"{shown[:end]}[{aside}]\n{shown[end:]}"
        self.shown.append(f"$ {line}\n{shown.rstrip()}\n")
        self.ended = time.monotonic()
        self.counted = dict(self.person.counted)
        self._reads_on(shown)

    def _reads_on(self, shown: str) -> None:
        """Reads what is new."""
        self.person.reads(shown[self._read :])
        self._read = len(shown)

    def at_the_page(self, gestures: int) -> tuple[str, Answer]:
        """The answer to the code at the terminal: the page is opened, read, compared, and its button pressed."""

        def follow(shown: str) -> None:
            self._reads_on(shown)
            self._visitor.visit(self._desktop.address())
            self.person.takes("comparing", self.person.pace.compared)
            self.person.reads(self._visitor.page.locator("#detail").inner_text())
            self.person.takes("clicking", self.person.pace.found)
            self.person.takes("touching", gestures * self.person.pace.gesture)
            self._visitor.presses("done")

        return SAME, follow

    def answers(self, question: str, text: str) -> tuple[str, Answer]:
        """An answer at the terminal, after what was shown was read."""

        def answer(shown: str) -> str:
            self._reads_on(shown)
            return self.person.types(text)

        return question, answer

    def copies(self) -> list[tuple[str, Answer]]:
        """The recovery key: written on paper, and typed back."""
        key: list[str] = []

        def write_down(shown: str) -> str:
            key[:] = re.findall(r"^ +[1-8]   (\d{4} \d{4})", shown, re.MULTILINE)
            self.person.takes("writing", self.person.pace.copied * sum(len(each) - 1 for each in key))
            return self.person.types("")

        def line(number: int) -> Callable[[str], str]:
            return lambda _shown: self.person.types(key[number - 1])

        return [("when they are written down", write_down), *((f"line {n}:", line(n)) for n in range(1, 9))]

    def plug_in(self) -> None:
        """A security key with a PIN."""
        self._ports.key("blue", pin=PIN)


@contextlib.contextmanager
def played(room: Path, person: Person, browser: Chromium | None = None) -> Iterator[Play]:
    """A play below `room`, with a browser of its own if none is given. Its session is ended with the block."""
    with contextlib.ExitStack() as stack:
        if browser is None:
            browser = Chromium(stack.enter_context(sync_playwright()))
            stack.callback(browser.close)
        tab: Tab = stack.enter_context(browser.tab())
        tab.authenticator(PRF)
        desktop = Desktop(room / "desktop")
        stack.callback(desktop.close)
        play = Play(room, desktop, Visitor(tab), stack.enter_context(Ports()), person)
        stack.callback(lambda: play.runs("chatkeep lock --all"))
        yield play
