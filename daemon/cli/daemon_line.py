"""One line of how the daemon is: what `systemctl status` shows."""

from __future__ import annotations

from collections.abc import Iterator

from chatkeep.daemon.cli.measures import counted, printable, size
from chatkeep.daemon.cli.words_of_problems import phrase as phrase
from chatkeep.daemon.service.standing import Mode, Standing


def status_line(standing: Standing) -> str:
    """What a person must do comes first."""
    if standing.mode is Mode.STARTING:
        return "Starting: waits until no other command uses the state directory."
    if standing.mode is Mode.STOPPING:
        return "Stopping."
    return " ".join([*_wanted(standing), *_going_on(standing)]) or "All is kept."


def _wanted(standing: Standing) -> Iterator[str]:
    waiting = sum(provider.waiting for provider in standing.providers)
    if not standing.session.uploads:
        yield f"Locked, {size(waiting)} wait: run chatkeep unlock." if waiting else "Locked: run chatkeep unlock."
    if standing.config_fault is not None:
        yield "The configuration was changed and is refused: run chatkeep config check."
    if standing.outbox.full:
        yield "Too much waits to be uploaded: nothing more is captured."
    doors = {"login-needed": "providers login", "storage-credential-refused": "providers test"}
    for provider in standing.providers:
        if provider.fault is not None and (command := doors.get(provider.fault.code)):
            name = printable(provider.name)
            yield f"{name} does not let this device in: run chatkeep {command} {name}."
    failing = [one.name for one in standing.providers if one.fault is not None and one.fault.code not in doors]
    if failing:
        yield f"Uploads fail: {', '.join(map(printable, failing))}. See chatkeep status."
    failing = [source.name for source in standing.sources if source.fault is not None]
    if failing:
        yield f"Backups fail: {', '.join(map(printable, failing))}. See chatkeep status."


def _going_on(standing: Standing) -> Iterator[str]:
    if standing.mode is Mode.LENT:
        yield f"Waits for chatkeep {printable(standing.lent)}." if standing.lent else "Waits for another command."
        return
    snapshots = sum(1 for one in standing.doing if one.what == "snapshot")
    uploads = sum(1 for one in standing.doing if one.what == "upload")
    if snapshots:
        yield f"{counted(snapshots, 'source')} being captured."
    if uploads:
        yield f"Uploading to {counted(uploads, 'provider')}."
