"""What the daemon does by itself, and when: the keys of `chatkeep run`. Durations are seconds, sizes bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from chatkeep.config.amounts import NEVER, Duration, Every, Share, Size
from chatkeep.config.key import Key

_SECOND: Final = Duration(1)
_MINUTE: Final = Duration(60)

Locking = Literal["suspend", "screen-lock", "logout", "idle"]


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """When a source that changes is kept again."""

    quiet: Annotated[
        Duration, Key("A snapshot begins when nothing changed for so long, so that a burst becomes one snapshot.")
    ] = Duration(2)
    max_delay: Annotated[
        Duration, Key("So long after the first change it begins also when the source never rests.", least=_SECOND)
    ] = Duration(8)
    min_interval: Annotated[
        Duration, Key("From the beginning of one snapshot of a source to that of the next at least so long.")
    ] = Duration(60)
    compare_every: Annotated[
        Duration,
        Key("So often everything is compared also when nothing seems to have changed.", least=_MINUTE),
    ] = Duration(6 * 3600)
    poll_every: Annotated[
        Duration,
        Key(
            "Where the system cannot tell what changes, such as on a network drive, the source is looked at so often.",
            least=_SECOND,
        ),
    ] = Duration(5 * 60)


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How long the vault stays open after chatkeep unlock, and what waits for it."""

    lock_after: Annotated[
        Duration,
        Key(
            "The session that chatkeep unlock begins ends by itself after so long. Time asleep counts. It also ends "
            "with chatkeep lock and, where systemd keeps them, the last login.",
            least=_MINUTE,
        ),
    ] = Duration(12 * 3600)
    require_unlock: Annotated[
        bool,
        Key(
            "true: after a login the daemon uploads nothing until the first chatkeep unlock; then it does until the "
            "logout, also after the session ended. false: it uploads at any time. Snapshots are taken either way, and "
            "reading always needs an unlock."
        ),
    ] = True
    lock_on: Annotated[
        tuple[Annotated[Locking, Key("A word.")], ...],
        Key(
            "What ends a session as well, of: suspend, screen-lock, logout, idle. Works where systemd-logind tells of "
            "it. [] for nothing."
        ),
    ] = ("suspend", "logout")
    idle_after: Annotated[
        Duration,
        Key(
            "With idle in lock_on: so long after the desktop became idle. Never longer than lock_after.", least=_MINUTE
        ),
    ] = Duration(15 * 60)


@dataclass(frozen=True, slots=True)
class OutboxConfig:
    """What waits on this device to be uploaded."""

    limit: Annotated[
        Size,
        Key(
            "When more than so much waits to be uploaded, no snapshot is begun until less does: MB, GB or TB. Nothing "
            "is lost by it as long as the source still has it."
        ),
    ] = Size(20 * 10**9)


@dataclass(frozen=True, slots=True)
class VerifyJob:
    """Checks of what storage holds. They need no unlock."""

    every: Annotated[Every, Key("So often, or never.", least=_MINUTE)] = Every(86_400)
    sample: Annotated[Share, Key("The share of the packs that is read back each time: more than 0%, up to 100%.")] = (
        Share(0.01)
    )


@dataclass(frozen=True, slots=True)
class DrillJob:
    """Restores for practice, into a directory that is removed again. They wait for an unlock."""

    every: Annotated[Every, Key("So often, or never.", least=_MINUTE)] = Every(7 * 86_400)


@dataclass(frozen=True, slots=True)
class PruneJob:
    """The end of snapshots that the retention does not keep. It waits for an unlock."""

    every: Annotated[Every, Key("So often, or never.", least=_MINUTE)] = NEVER


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """What the daemon does from time to time. A time that was missed is made up for."""

    verify: Annotated[VerifyJob, Key("A sample of what storage holds is read and checked.")] = VerifyJob()
    drill: Annotated[DrillJob, Key("A sample of the newest snapshots is restored and compared.")] = DrillJob()
    prune: Annotated[PruneJob, Key("Snapshots are removed as retention says.")] = PruneJob()


@dataclass(frozen=True, slots=True)
class TellConfig:
    """Who is told when something is wrong, and how."""

    desktop: Annotated[bool, Key("A notification on the desktop, where there is one.")] = True
    webhook_file: Annotated[
        Path | None,
        Key(
            "A file that holds the URL to which news are posted. The URL can be a secret: it stands in a file that "
            "only this user may read (chmod 600), not here.",
            example="~/.config/chatkeep/webhook-url",
        ),
    ] = None
    command: Annotated[
        tuple[Annotated[str, Key("A word.", example="/usr/local/bin/tell-me")], ...],
        Key(
            "A program and its arguments, run without a shell; the news are on its standard input as JSON.",
            example="/usr/local/bin/tell-me",
        ),
    ] = ()
    heartbeat_file: Annotated[
        Path | None,
        Key(
            "A file that holds a URL which is asked for as long as all is well, for a service that raises the alarm "
            "when that ends. Only this user may read it (chmod 600).",
            example="~/.config/chatkeep/heartbeat-url",
        ),
    ] = None
    metrics_file: Annotated[
        Path | None,
        Key(
            "A file that is written again and again with figures for Prometheus (its textfile collector).",
            example="/var/lib/node_exporter/chatkeep.prom",
        ),
    ] = None
    held_after: Annotated[
        Every, Key("Told when uploads have waited so long for an unlock, or never.", least=_MINUTE)
    ] = Every(86_400)
    unverified_after: Annotated[
        Every,
        Key(
            "Told when nothing of a provider was checked for so long, or never. Longer than jobs.verify.every.",
            least=_MINUTE,
        ),
    ] = Every(7 * 86_400)
