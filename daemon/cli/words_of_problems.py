"""The words for what the daemon tells people by itself: on the desktop, to a webhook, to a command, in `status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from chatkeep.daemon.cli.measures import local_time, printable
from chatkeep.daemon.cli.telling import tell_code
from chatkeep.daemon.cli.words import WORDS
from chatkeep.daemon.service.moment import Moment
from chatkeep.daemon.service.telling.notice import Notice, Problem, Said


class _Problem(NamedTuple):
    """`{about}`: the source, provider or job; `{since}`: when it began; `{error}`: the words for the code, if any."""

    title: str
    text: str
    remedy: str
    over: str


STATUS: Final = "See: chatkeep status"

PROBLEMS: Final[Mapping[str, _Problem]] = {
    Problem.BACKUP_FAILING: _Problem(
        "{about} is not backed up",
        "Its backups fail since {since}. {error}",
        STATUS,
        "{about} is backed up again",
    ),
    Problem.BACKUP_OVERDUE: _Problem(
        "{about} was not backed up for long",
        "Nobody looked for changes since {since}: neither a snapshot nor a comparison came to its end.",
        "See what it is at: chatkeep status. If nothing moves: systemctl --user restart chatkeep",
        "{about} is backed up again",
    ),
    Problem.UPLOAD_FAILING: _Problem(
        "Nothing reaches {about}",
        "Uploads fail since {since}. {error}",
        STATUS,
        "Uploads reach {about} again",
    ),
    Problem.UPLOAD_OVERDUE: _Problem(
        "Uploads to {about} stand still",
        "Something waits since {since}, and nothing moves.",
        "See what it is at: chatkeep status. If nothing moves: systemctl --user restart chatkeep",
        "Uploads reach {about} again",
    ),
    Problem.HELD: _Problem(
        "Backups wait to be uploaded",
        "Since {since} what is backed up stays on this device, until the vault is unlocked.",
        "Run: chatkeep unlock",
        "Backups are uploaded again",
    ),
    Problem.UNVERIFIED: _Problem(
        "The backup was not checked for long",
        "Nothing of what is stored was read back since {since}.",
        "Run: chatkeep verify",
        "The backup was checked",
    ),
    Problem.STORAGE_FULL: _Problem(
        "{about} is full",
        "It takes no more since {since}. What waits to be uploaded is kept on this device.",
        "Free some room there, or get more.",
        "{about} has room again",
    ),
    Problem.LOGIN_NEEDED: _Problem(
        "{about} wants somebody to log in again",
        "It takes nothing since {since}. What waits to be uploaded is kept on this device.",
        "Run: chatkeep providers login {about}",
        "{about} lets this device in again",
    ),
    Problem.KEY_REFUSED: _Problem(
        "{about} does not accept its key or password any more",
        "It takes nothing since {since}: it was revoked, has expired, or was wrong. What waits is kept on this device.",
        "Put a new one where the configuration says, then look: chatkeep providers test {about}",
        "{about} lets this device in again",
    ),
    Problem.DISK_FULL: _Problem(
        "No room on this device to back up {about}",
        "Since {since} there is no room for what is to be uploaded.",
        "Free some room on this device.",
        "There is room again to back up {about}",
    ),
    Problem.OUTBOX_FULL: _Problem(
        "So much waits to be uploaded that backups pause",
        "Since {since} nothing more is backed up, until some of it is sent.",
        "See which storage lags behind: chatkeep status. How much may wait: outbox.limit in the configuration.",
        "Backups go on",
    ),
    Problem.WATCH_DEGRADED: _Problem(
        "Changes in {about} are noticed late",
        "Since {since} they cannot be watched ({reason}); it is looked at from time to time, and nothing is missed.",
        "",
        "Changes in {about} are noticed at once again",
    ),
    Problem.DEVICE_REMOVED: _Problem(
        "This device was removed from the vault",
        "Nothing that it backs up counts any more ({about}, since {since}).",
        "If that was not you: chatkeep key list, on another device. To take part again: chatkeep join",
        "This device is part of the vault again",
    ),
    Problem.JOB_FAILED: _Problem(
        "The job {about} failed", "It failed at {since}. {error}", STATUS, "The job {about} ended well"
    ),
    Problem.JOB_OVERDUE: _Problem(
        "The job {about} did not run for long",
        "It did not come to its end since {since}. Some jobs need an unlocked vault.",
        "Run: chatkeep unlock, then leave the machine on for a while.",
        "The job {about} ran again",
    ),
    Problem.RELOAD_REFUSED: _Problem(
        "The new configuration is refused",
        "It is wrong, and the one before it goes on since {since}.",
        "Run: chatkeep config check",
        "The configuration is in force",
    ),
    Problem.CHANNEL_BROKEN: _Problem(
        "Problems cannot be told by {about}",
        "It does not work since {since} ({reason}). {error}",
        STATUS,
        "Problems can be told by {about} again",
    ),
}
_OTHER: Final = _Problem("Something needs you: {name}", "{error}", STATUS, "It is over: {name}")


def phrase(notice: Notice) -> Said:
    """A notice in words."""
    words = PROBLEMS.get(notice.problem, _OTHER)
    code = str(notice.values.get("code", ""))
    params = {name: value for name, value in notice.values.items() if name not in {"code", "disposition"}}
    told = tell_code(code, name_provider=False, **params) if code in WORDS else None
    shown = {
        "about": printable(notice.subject),
        "name": printable(f"{notice.problem.replace('-', ' ')} {notice.subject}".strip()),
        "since": local_time(notice.since_ns),
        "reason": printable(str(notice.values.get("reason", "")).replace("-", " ")) or "no reason is known",
        # A path is in no event, so a sentence that names one would have a gap: the log at debug level has it.
        "error": told.text if told is not None and "?" not in told.text else "",
    }
    if notice.over:
        return Said(words.over.format_map(shown), f"It began at {shown['since']}.", "")
    remedy = told.remedy if told is not None and words.remedy == STATUS and "?" not in told.remedy else ""
    title, text = words.title.format_map(shown), words.text.format_map(shown).strip()
    remedy = remedy or words.remedy.format_map(shown)
    return Said(title[:1].upper() + title[1:] if not notice.subject else title, text, remedy)


def problem_words(problem: str, subject: str, since_ns: int, values: Mapping[str, Any], *, over: bool = False) -> Said:
    """The same for a problem as an event or `status` has it."""
    return phrase(Notice(problem, subject, over, since_ns, Moment(since_ns, 0.0), values=values))
