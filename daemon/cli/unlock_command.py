"""`chatkeep unlock` and `chatkeep lock`: a session in which no command asks for a secret."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli import adding, by_daemon, proving, reading, rotating, sessions, unlocking
from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.slots import answering
from chatkeep.daemon.cli.storage import from_option, named
from chatkeep.daemon.cli.unlocking import Secret, secret_options
from chatkeep.daemon.cli.ways import warnings
from chatkeep.daemon.service import device, storage

if TYPE_CHECKING:
    from chatkeep.daemon.keys.seeds import ReadingSeeds
    from chatkeep.daemon.service.wire import About
    from chatkeep.daemon.vault.epoch import EpochPin
    from chatkeep.daemon.vault.unlocked import UnlockedVault
    from chatkeep.providers.base import Provider


@click.command(cls=Command, short_help="Open the vault for a while: one secret for many commands.")
@from_option
@secret_options
@click.option("--again", is_flag=True, help="Begin a new session, also when there is one.")
@pass_frame
def unlock(frame: Frame, folder: Path | None, secret: Secret, again: bool) -> int:
    """Open the vault for a while: no command asks for a secret until the session ends.

    A process of its own then holds what opens the vault, and nothing else does. The session ends with chatkeep lock, by
    itself after session.lock_after (12 hours, if the configuration does not say otherwise), when the user logs out (of
    the last login, where systemd keeps them), and when the keys of the vault are changed here.

    With a session, whatever runs as this user can read the vault. Commands that change keys ask for the secret still.
    """
    with storage.opened(named(frame, folder)) as providers:
        pin = None if folder is not None else device.pin(frame.config())
        about = None if again else _there(providers, pin)
        began, codes, weight = about is None, list[str](), 0
        if about is None:
            vault, seeds = unlocking.unlock_to_hand_over(frame.out, providers, secret, pin)
            with vault, seeds:
                found = adding.ways(answering(providers), vault)
                codes, weight = warnings(found), reading.weight(vault.findings)
                proving.prove(frame, vault)
                if not frame.out.as_json:
                    reading.tell_findings(frame.out, vault.findings)
                about = _begun(frame, found, vault, seeds)  # last: who stops this before has no session
    if folder is None:
        _tell_daemon(frame)
    facts = about.facts
    first = "Unlocked" if began else "The vault is unlocked already"
    lines = [f"{first}, with {sessions.way(facts)}, until {sessions.until(facts)}."]
    lines.append("Lock it before: chatkeep lock" if began else "To begin anew: chatkeep unlock --again")
    frame.out.result({"began": began, "session": sessions.value(about), "warnings": codes}, *lines)
    if not frame.out.as_json:
        for line in rotating.warning_lines(frame.out, codes):
            frame.out.note(line)
    return weight


@click.command(cls=Command, short_help="Close the vault again.")
@from_option
@click.option("--all", "every", is_flag=True, help="End every session of this user, of whichever vault.")
@pass_frame
def lock(frame: Frame, folder: Path | None, every: bool) -> None:
    """Close the vault again: the process that holds its keys is ended, and gone when this returns.

    A command that reads the vault at that moment stops, and says that it is locked. On a device that is not set up,
    every session of this user is ended.
    """
    from chatkeep.daemon.service.session import lock_every

    if every and folder is not None:
        raise click.UsageError("--all and --from contradict each other.")
    meant = None if every else _meant(frame, folder)
    with _daemon_locking(frame, folder) as by_daemon_too:
        vaults = lock_every(meant)
        ended = by_daemon_too()
    vaults = sorted({*vaults, *ended})
    told = "Locked." if vaults else "The vault is locked: there was no session."
    frame.out.result({"locked": [one.hex() for one in vaults]}, told)


@contextlib.contextmanager
def _daemon_locking(frame: Frame, folder: Path | None) -> Iterator[Callable[[], list[bytes]]]:
    """The daemon does the same meanwhile; what is yielded gives the vault whose session it ended."""
    try:
        config = None if folder is not None else frame.config()
        mine = None if config is None else device.pinned(config)
    except ChatkeepError:
        config = mine = None
    if config is None or mine is None:
        yield list
        return
    vault_id = mine.vault_id
    with by_daemon.locking(config) as ended:
        yield lambda: [vault_id] if ended() else []


def _tell_daemon(frame: Frame) -> None:
    try:
        config = frame.config()
    except ChatkeepError:
        return  # a machine that only restores
    by_daemon.tell_unlocked(config, frame.out)


def _there(providers: Sequence[Provider], pin: EpochPin | None) -> About | None:
    """The session that there is, if it has the newest keys that this device knows of."""
    session = sessions.find(providers, None if pin is None else pin.vault_id)
    if session is None:
        return None
    with session:
        about = session.about
    # After the keys were changed elsewhere, and this device went on to them, it opens nothing new.
    return about if pin is None or pin.epoch <= len(about.key_ids) else None


def _begun(frame: Frame, ways: Sequence[Mapping[str, Any]], vault: UnlockedVault, seeds: ReadingSeeds) -> About:
    from chatkeep.config.running import SessionConfig
    from chatkeep.daemon.service.session import SessionKeys, start
    from chatkeep.daemon.service.wire import Facts

    try:
        lasting = frame.config().session.lock_after
    except ChatkeepError:
        lasting = SessionConfig().lock_after  # a machine that only restores
    way = next((way for way in ways if way["id"] == vault.slot_id.hex()), {})  # for status to show
    kind, label = way.get("kind") or "", way.get("label") or ""
    until = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + lasting.ns
    facts = Facts(vault.vault_id, vault.head.sha256, vault.slot_id, kind, label, until, time.time_ns())
    return start(SessionKeys(facts, seeds))


def _meant(frame: Frame, folder: Path | None) -> Sequence[bytes] | None:
    """The vaults to lock; None for all, where it cannot be said which: better too much is locked than too little."""
    if folder is not None:
        from chatkeep.daemon.vault.fetch import listed
        from chatkeep.daemon.vault.names import VAULTS, VaultName
        from chatkeep.daemon.vault.unlock import MOST_VAULTS

        with storage.opened(named(frame, folder)) as providers:
            found = [name.vault_id for one in providers for name in listed(one, VAULTS, VaultName, MOST_VAULTS)]
            return list(dict.fromkeys(found))
    try:
        pinned = device.pinned(frame.config())
    except ChatkeepError:
        return None
    return None if pinned is None else [pinned.vault_id]
