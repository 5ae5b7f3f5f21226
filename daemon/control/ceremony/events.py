"""What a ceremony tells while it runs. Values only; the words are the command's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened that the person may want to know."""


@dataclass(frozen=True, slots=True)
class Ready(Event):
    """The page is served. `url` opens it, once. `opened`: the desktop was asked to open it; it may still not have.
    The page shows the six digits of `code`, for the person to compare.
    """

    url: str
    code: str
    opened: bool


@dataclass(frozen=True, slots=True)
class PageOpened(Event):
    """A browser has loaded the page with the link's token. The link opens nothing more."""


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """The page's server turned something away. `reason`: `used` (the link was opened a second time), `token`, `host`,
    `origin`, or `user` (another user of this machine). Told once for each reason.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Insert(Event):
    """No security key is plugged in; one is waited for."""


@dataclass(frozen=True, slots=True)
class Choose(Event):
    """Several security keys are plugged in: the one to use is to be touched."""

    keys: int


@dataclass(frozen=True, slots=True)
class Touch(Event):
    """A gesture is waited for: the `step`th of `steps`. In the browser, its own window asks for it."""

    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Pin(Event):
    """The PIN is about to be asked for. `retries`: how many tries the key has left, if it said so. `wrong`: the last
    one was wrong.
    """

    retries: int | None
    wrong: bool


@dataclass(frozen=True, slots=True)
class Retry(Event):
    """A gesture came to nothing, and the person can try again. `reason`: what the browser or the key called it."""

    reason: str


EVENTS: Final[Mapping[str, type[Event]]] = {
    "ready": Ready,
    "page-opened": PageOpened,
    "refused": Refused,
    "insert": Insert,
    "choose": Choose,
    "touch": Touch,
    "pin": Pin,
    "retry": Retry,
}
_NAMES: Final = {kind: name for name, kind in EVENTS.items()}


def to_frame(event: Event) -> dict[str, Any]:
    """An event as it goes over the channel."""
    return {"event": _NAMES[type(event)], **dataclasses.asdict(event)}


def from_frame(frame: Mapping[str, Any]) -> Event:
    """The event of a frame. Raises ValueError for one that there is not."""
    fields = dict(frame)
    kind = EVENTS.get(str(fields.pop("event", None)))
    if kind is None or fields.keys() != {field.name for field in dataclasses.fields(kind)}:
        raise ValueError("event")
    return kind(**fields)
