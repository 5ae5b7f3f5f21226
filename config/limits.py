"""How much of the line a provider may take, and when. Rates are bytes in a second, times those of the clock here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from chatkeep.config.amounts import UNLIMITED, Rate, TimeOfDay
from chatkeep.config.key import Key

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class LimitHours:
    """Hours of the day in which other limits hold."""

    from_: Annotated[TimeOfDay, Key("They begin, by the clock of this machine.", example='"08:00"')]
    to: Annotated[
        TimeOfDay,
        Key(
            "They end. Earlier than from: on the next day. The same as from: they last the whole day.",
            example='"18:00"',
        ),
    ]
    days: Annotated[
        tuple[Annotated[Day, Key("A day.", example="mon")], ...],
        Key(
            "The days on which they begin, of: mon, tue, wed, thu, fri, sat, sun. Left out: every day.",
            example="mon",
        ),
    ] = ()
    upload: Annotated[
        Rate | None, Key("As limit.upload, in these hours. Left out: as outside of them.", example="200 KB/s")
    ] = None
    download: Annotated[
        Rate | None, Key("As limit.download, in these hours. Left out: as outside of them.", example="unlimited")
    ] = None


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of the line a provider may take. Each process keeps it by itself: a restore does not ask the daemon."""

    upload: Annotated[
        Rate,
        Key("So much is sent in a second at most: 10 KB/s or more, MB/s, GB/s (1 KB is 1000 bytes), or unlimited."),
    ] = UNLIMITED
    download: Annotated[Rate, Key("So much is received in a second at most, or unlimited.")] = UNLIMITED
    hours: Annotated[
        tuple[LimitHours, ...],
        Key(
            "Hours of the day in which other limits hold. Of several that hold now, the first counts.", example="hours"
        ),
    ] = ()

    @property
    def slows_uploads(self) -> bool:
        """Whether there is an hour in which sending is limited."""
        return any(rate is not None and rate < UNLIMITED for rate in (self.upload, *(one.upload for one in self.hours)))


def in_force(limit: Limit, weekday: int, minute: int) -> tuple[Rate, Rate]:
    """The rates of sending and of receiving. `weekday`: 0 for Monday; `minute`: of that day, by the clock here."""
    for hours in limit.hours:
        if _covers(hours, weekday, minute):
            return (
                limit.upload if hours.upload is None else hours.upload,
                limit.download if hours.download is None else hours.download,
            )
    return limit.upload, limit.download


def _covers(hours: LimitHours, weekday: int, minute: int) -> bool:
    today = not hours.days or _DAYS[weekday] in hours.days
    if hours.from_ < hours.to:
        return today and hours.from_ <= minute < hours.to
    # Over midnight: it began today, or yesterday and has not ended.
    yesterday = not hours.days or _DAYS[weekday - 1] in hours.days
    return (today and minute >= hours.from_) or (yesterday and minute < hours.to)
