"""Secrets as they could get into a text, and every error and event there is to put them into."""

from __future__ import annotations

import base64
import importlib
import os
import pkgutil
from collections.abc import Iterator
from typing import Any

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys import recovery
from chatkeep.daemon.service.events import CARRIES, Event, Kind
from chatkeep.daemon.service.moment import Moment
from tests.support.secret_hunt import spellings

AT = Moment(1_700_000_000_000_000_000, 12.5)
TOKEN = "s3cr3t-t0ken"
ADDRESS = f"https://user:pw@hooks.example.org/T0/{TOKEN}?key={TOKEN}"


class Planted:
    """A key and a recovery key, how they could be spelled, and the search for them."""

    def __init__(self) -> None:
        self.raw = os.urandom(32)
        lines = [str(line) for line in recovery.generate().lines]
        said = {name: text.decode("latin-1") for name, text in spellings(self.raw).items()}
        self.texts = [text for name, text in said.items() if "base" not in name]  # those are without their ends
        coders = (base64.b64encode, base64.urlsafe_b64encode, base64.b32encode)
        self.texts += [
            text for coder in coders for text in (coder(self.raw).decode(), coder(self.raw).decode().strip("="))
        ]
        self.texts += [repr(self.raw), str([*self.raw]), self.raw.decode("utf-8", "surrogateescape"), ADDRESS]
        self.texts += ["\n".join(lines), " ".join(lines), "".join(lines).replace(" ", ""), "-".join(lines)]
        self.texts += [":".join(f"{byte:02x}" for byte in self.raw)]
        self._needles = {text for text in self.texts if text != ADDRESS} | {
            TOKEN,
            "hooks.example.org",
            *lines,
            *said.values(),
        }

    def found_in(self, text: str) -> set[str]:
        """Which of them are in a text, written as it is or as JSON or Python would."""
        seen = {needle for needle in self._needles if needle in text}
        seen |= {needle for needle in self._needles if repr(needle)[1:-1] in text}
        return seen | {needle for needle in self._needles if needle.encode("unicode_escape").decode() in text}


def every_error() -> Iterator[type[ChatkeepError]]:
    """Every class of error in the product."""
    for top in ("chatkeep.config", "chatkeep.providers", "chatkeep.daemon"):
        for found in pkgutil.walk_packages(importlib.import_module(top).__path__, f"{top}."):
            if found.name.rpartition(".")[2] in {"errors", "problems", "base"}:
                importlib.import_module(found.name)
    waiting = [ChatkeepError]
    while waiting:
        cls = waiting.pop()
        yield cls
        waiting += [one for one in cls.__subclasses__() if one.__module__.startswith("chatkeep.")]


def events_with(value: Any) -> Iterator[Event]:
    """An event of every kind that has a value wherever it has one, and one of every error."""
    for kind in Kind:
        yield Event(kind, AT, dict.fromkeys((*CARRIES[kind], "other"), value), {"path": value})
    names = ("provider", "source", "reason", "what", "errno", "path", "name", "cause", "problems")
    for cls in every_error():
        error = type("Planted", (ChatkeepError,), {"code": cls.code})(**dict.fromkeys(names, value))
        yield Event.failed(Kind.UPLOAD_FAILED, AT, error)
