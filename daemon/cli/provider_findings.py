"""What a trial of a provider found: a row for each question, what every "no" means, what follows from all. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli.exits import Exit, worst
from chatkeep.daemon.cli.measures import counted, duration, size
from chatkeep.daemon.cli.telling import tell
from chatkeep.providers.base import ObjectDamaged

if TYPE_CHECKING:
    from chatkeep.providers.base import Capabilities

LOW_ROOM: Final = 1 << 30  # bytes; a snapshot of 256 MiB, its successor, and some air
CLOCK_APART: Final = 60.0  # seconds
CLOCK_REFUSED: Final = 600.0  # seconds from which prune refuses


class Check(enum.StrEnum):
    """The questions, in the order in which they are asked."""

    REACH = "reach"
    LOGIN = "credentials"
    PLACE = "place"  # a bucket, a folder; asked for only where it is missing
    WRITE = "write"
    READ = "read"
    RANGE = "range"
    LIST = "list"
    DELETE = "delete"
    ARRIVAL = "arrival"
    OVERWRITE = "no overwrite"
    DIGEST = "digest check"
    VERSIONS = "versions"
    LOCK = "object lock"
    CLOCK = "clock"
    ROOM = "free room"
    UP = "speed up"
    DOWN = "speed down"


class Answer(enum.StrEnum):
    """What the storage answered."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "not told"  # it does not say, or cannot be asked
    LEFT_OUT = "not tried"


class Level(enum.StrEnum):
    """How much an answer matters."""

    OK = "ok"
    PLAIN = "plain"  # neither good nor bad
    WARN = "warn"  # backups work, and somebody should know
    FAIL = "fail"  # they do not


@dataclass(frozen=True, slots=True)
class Row:
    """One question and its answer. `value`: the figure behind it, in seconds, bytes or bytes per second. `error`: what
    was met, where backups are not possible with it."""

    check: Check
    answer: Answer
    level: Level
    text: str = ""
    remedy: str = ""
    value: float | None = None
    error: ChatkeepError | None = None


class Verdict(enum.StrEnum):
    """What all rows come to."""

    GOOD = "good"
    REMARKS = "remarks"
    PUT_ONLY = "put-only"
    BAD = "bad"


class _Meaning(NamedTuple):
    text: str
    remedy: str = ""


_NOT_ALLOWED: Final = {
    Check.READ: _Meaning(
        "This credential may not read. Backups work with it. Restore, verify and drill need another one.",
        "That can be meant: who steals this machine then cannot read the storage. Keep the other one elsewhere.",
    ),
    Check.LIST: _Meaning(
        "This credential may not list. Backups work with it. Verify, and a restore on a new machine, need another one."
    ),
    Check.DELETE: _Meaning(
        "It lets nothing be deleted: an object lock, or a credential that may only write. Backups work. What prune "
        "lets go stays there, and costs room."
    ),
}
_NO_OVERWRITE: Final = _Meaning(
    "The storage itself would replace an object by another of the same name. Chatkeep looks before it writes, and "
    "names carry hashes: honest devices never meet. Whoever takes over this machine could overwrite."
)
CANNOT_READ: Final = (
    "Making the vault needs to read what was written: every way into it is tried. Give a key that may read and delete "
    "too; when everything is set up, put one that may only write in its place."
)
_NO_DIGEST: Final = _Meaning(
    "It compares nothing with what was sent, and reports no digest. What is damaged on the way or there is found when "
    "it is read: chatkeep verify."
)
_NO_PROTECTION: Final = (
    "Whoever takes over this machine can delete the backup there for good. Versions, an object lock, or a credential "
    "that may only put would prevent it, where the storage has them."
)


def reached(check: Check, seconds: float | None = None) -> Row:
    """It answered, after so long."""
    text = "" if seconds is None else f"answers {_short(seconds)}"
    return Row(check, Answer.YES, Level.OK, text, value=seconds)


def worked(check: Check, text: str = "") -> Row:
    """It did what it was asked."""
    return Row(check, Answer.YES, Level.OK, text)


def failed(check: Check, error: ChatkeepError) -> Row:
    """It did not, and no backup can be made there as long as that is so."""
    told = tell(error, name_provider=False)
    return Row(check, Answer.NO, Level.FAIL, told.text, told.remedy, error=error)


def not_allowed(check: Check) -> Row:
    """The credential may not, which is its own decision and no fault."""
    meaning = _NOT_ALLOWED[check]
    return Row(check, Answer.NO, Level.WARN, meaning.text, meaning.remedy)


def left_out(check: Check, why: str) -> Row:
    """Not asked."""
    return Row(check, Answer.LEFT_OUT, Level.PLAIN, why)


def damaged(check: Check) -> Row:
    """It gave back something else than it was given."""
    text = "It returned other bytes than it was given."
    error = ObjectDamaged(object="probe/")
    return Row(check, Answer.NO, Level.FAIL, text, "Use another storage: this one loses backups.", error=error)


def shown(at_once: bool) -> Row:
    """It lists."""
    text = "" if at_once else "What was put shows later in it. Nothing relies on that."
    return worked(Check.LIST, text)


def of_capabilities(seen: Capabilities) -> Iterable[Row]:
    """What `probe` saw, as far as no other row says it."""
    if not seen.acknowledges:
        text = (
            "It is handed over to another program, which uploads it. Whether it arrived cannot be seen from here: look "
            "at that program."
        )
        yield Row(Check.ARRIVAL, Answer.UNKNOWN, Level.PLAIN, text)
    if seen.exclusive_create:
        yield worked(Check.OVERWRITE, "the storage itself refuses a second object of a name")
    else:
        yield Row(Check.OVERWRITE, Answer.NO, Level.PLAIN, *_NO_OVERWRITE)
    yield _digest(seen)
    yield from _protection(seen)
    yield _clock(seen.clock_ahead)
    yield _room(seen.free_bytes)


def speed(check: Check, sent: int, seconds: float, limited: bool = False) -> Row:
    """How fast one connection was."""
    rate = sent / max(seconds, 1e-6)
    text = f"{size(round(rate))}/s" + (", as the configuration limits it now" if limited else "")
    return Row(check, Answer.YES, Level.OK, text, value=rate)


def verdict(rows: Sequence[Row]) -> Verdict:
    """What all rows come to."""
    if any(row.level is Level.FAIL for row in rows):
        return Verdict.BAD
    if any(row.check is Check.READ and row.answer is Answer.NO for row in rows):
        return Verdict.PUT_ONLY
    return Verdict.REMARKS if any(row.level is Level.WARN for row in rows) else Verdict.GOOD


def exit_of(rows: Sequence[Row]) -> Exit:
    """How a command ends that was asked about this one."""
    return worst(tell(row.error).exit for row in rows if row.error is not None)


def sentence(found: Verdict, left_behind: int) -> str:
    """The verdict in words."""
    text = {
        Verdict.GOOD: "Backups can go there.",
        Verdict.REMARKS: "Backups can go there; see what is remarked above.",
        Verdict.PUT_ONLY: "Backups can go there. This machine cannot read them back with this credential.",
        Verdict.BAD: "Nothing can be backed up there now.",
    }[found]
    if left_behind:
        text += f" {counted(left_behind, 'object')} of the trial could not be removed: harmless, below probe/."
    return text


def _digest(seen: Capabilities) -> Row:
    if seen.refuses_damage is not None:
        text = f"it refused a body that was damaged on the way ({seen.refuses_damage})"
        return worked(Check.DIGEST, text)
    if seen.reports_digest is not None:
        text = f"it tells the {seen.reports_digest} of what it stored, which is compared"
        return worked(Check.DIGEST, text)
    return Row(Check.DIGEST, Answer.NO, Level.PLAIN, *_NO_DIGEST)


def _protection(seen: Capabilities) -> Iterable[Row]:
    """Whether what is there can be taken away by whoever has this machine."""
    told = [
        (
            Check.VERSIONS,
            seen.versions,
            "what is deleted stays there as an old version, and costs room until a rule ends it",
        ),
        (Check.LOCK, seen.object_lock, "an object can be kept from deletion until a date"),
    ]
    rows = [
        worked(check, text) if there else Row(check, Answer.NO, Level.PLAIN)
        for check, there, text in told
        if there is not None
    ] or [Row(Check.VERSIONS, Answer.UNKNOWN, Level.PLAIN)]
    if seen.deletes and not (seen.versions or seen.object_lock):
        rows[-1] = dataclasses.replace(rows[-1], text=_NO_PROTECTION)
    return rows


def _clock(ahead: float | None) -> Row:
    if ahead is None:
        text = "It tells no time. What was pruned is deleted by the clock of this machine."
        return Row(Check.CLOCK, Answer.UNKNOWN, Level.PLAIN, text)
    side = "ahead of" if ahead > 0 else "behind"
    apart = f"{duration(abs(ahead))} {side} this machine's" if abs(ahead) >= 1 else "as this machine's"
    if abs(ahead) <= CLOCK_APART:
        return Row(Check.CLOCK, Answer.YES, Level.OK, apart, value=ahead)
    text = f"Its clock is {apart}."
    if abs(ahead) > CLOCK_REFUSED:
        text += " Nothing is pruned as long as that is so."
    return Row(Check.CLOCK, Answer.NO, Level.WARN, text, "Set the one that is wrong.", ahead)


def _room(free: int | None) -> Row:
    if free is None:
        return Row(Check.ROOM, Answer.UNKNOWN, Level.PLAIN)
    if free < LOW_ROOM:
        return Row(Check.ROOM, Answer.NO, Level.WARN, f"{size(free)} are left.", "Free some, or get more.", free)
    return Row(Check.ROOM, Answer.YES, Level.OK, size(free), value=free)


def _short(seconds: float) -> str:
    """`in 12 ms`, or at once."""
    if seconds < 0.001:
        return "at once"
    return f"in {seconds * 1000:.0f} ms" if seconds < 1 else f"in {duration(seconds)}"
