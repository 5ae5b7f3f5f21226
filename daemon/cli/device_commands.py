"""`chatkeep device`: which machines write the vault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatkeep.daemon.cli import rotating, unlocking
from chatkeep.daemon.cli.devices_seen import Seen, devices_seen
from chatkeep.daemon.cli.frame import Frame, Group, pass_frame
from chatkeep.daemon.cli.measures import local_time, printable, stamp
from chatkeep.daemon.cli.storage import from_option, named
from chatkeep.daemon.cli.unlocking import Secret, secret_options
from chatkeep.daemon.service import device as this_device
from chatkeep.daemon.service import storage

if TYPE_CHECKING:
    from chatkeep.daemon.vault.members import Members


@click.group(cls=Group, short_help="The machines that write the vault: list, remove.")
def device() -> None:
    """The machines that write the vault: list them, remove one that is lost. To add one, run chatkeep join on it."""


@device.command(name="list", short_help="List the devices of the vault.")
@from_option
@secret_options
@pass_frame
def list_devices(frame: Frame, folder: Path | None, secret: Secret) -> None:
    """List the devices of the vault, with the host and the sources that their snapshots name."""
    from chatkeep.daemon.cli.slots import answering
    from chatkeep.daemon.vault.members import device_members

    mine = None if folder is not None else this_device.device_id(frame.config())
    pin = None if folder is not None else this_device.pin(frame.config())
    with (
        storage.opened(named(frame, folder)) as providers,
        unlocking.unlock(frame.out, providers, secret, pin=pin) as vault,
    ):
        members = device_members(answering(providers), vault.records)
        found = _listed(members, devices_seen(providers, vault), mine)
        value = {"epoch": vault.head.epoch, "devices": found}
    frame.out.table(value, ["id", "state", "host", "sources", "last snapshot"], [_row(one) for one in found])


@device.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@rotating.yes_option
@secret_options
@pass_frame
def remove(frame: Frame, ids: tuple[str, ...], yes: bool, secret: Secret) -> None:
    """Remove devices from the vault, by their ids or the first digits of them.

    Its snapshots until now stay readable. Nothing that it writes later counts, whoever has its key then, and its next
    backup stops and says so. The keys of the vault are changed: a device that ever unlocked the vault may have kept the
    old ones.
    """
    rotating.change(frame, secret, yes=yes, devices=ids)


def _listed(members: Members, seen: Mapping[bytes, Seen], mine: bytes | None) -> list[dict[str, Any]]:
    states = {
        **dict.fromkeys(members.devices, "writes"),
        **dict.fromkeys(members.doubtful_devices, "damaged"),
        **dict.fromkeys(members.removed_devices, "removed"),
    }
    found = []
    for device_id, state in states.items():
        facts = seen.get(device_id, Seen())
        found.append(
            {
                "id": device_id.hex(),
                "state": state,
                "this_device": device_id == mine,
                "host": facts.host,
                "sources": facts.sources,
                "last_snapshot": None if facts.last is None else stamp(facts.last),
                "shown": "" if facts.last is None else local_time(facts.last),
            }
        )
    return found


def _row(one: dict[str, Any]) -> Sequence[str]:
    state = one["state"] + (", this device" if one["this_device"] else "")
    shown = one.pop("shown")
    sources = ", ".join(printable(source) for source in one["sources"])
    return [one["id"][: rotating.SHOWN], state, printable(one["host"] or ""), sources, shown]
