"""`chatkeep key`: the ways into the vault."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from chatkeep.daemon.cli import adding, paper, proving, rotating, unlocking, used
from chatkeep.daemon.cli.frame import Frame, Group, pass_frame
from chatkeep.daemon.cli.measures import age, printable, stamp
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.slots import KINDS, lacking, plain
from chatkeep.daemon.cli.storage import from_option, named
from chatkeep.daemon.cli.unlocking import Secret, secret_options
from chatkeep.daemon.cli.ways import warnings
from chatkeep.daemon.service import device, storage

if TYPE_CHECKING:
    from chatkeep.providers.base import Provider

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _place_of_passkey(command: Decorated) -> Decorated:
    """`key add passkey --security-key` says where the passkey is to be, as `key add security-key` does, and not what
    unlocks."""

    @functools.wraps(command)
    def placed(*args: Any, kind: str, security_key: bool, **kwargs: Any) -> Any:
        if kind == "passkey" and security_key:
            kind, security_key = "security-key", False
        return command(*args, kind=kind, security_key=security_key, **kwargs)

    return placed  # type: ignore[return-value]


@click.group(cls=Group, short_help="The ways into the vault: list, add, remove; new keys.")
def key() -> None:
    """The ways into the vault: list them, add one, remove one, change the keys behind them."""


@key.command(name="list")
@from_option
@secret_options
@click.option("--labels", is_flag=True, help="Unlock, and show those that count, with what they are called.")
@pass_frame
def list_keys(frame: Frame, folder: Path | None, secret: Secret, labels: bool) -> None:
    """List the ways into the vault.

    Without --labels no secret is needed, and nobody vouches for the list: it is what lies in the storage, and may show
    ways in that were removed. With --labels it shows those that open the vault today, and no others.
    """
    with storage.opened(named(frame, folder)) as providers:
        if labels:
            found = _labelled(frame, folder, providers, secret)
            _show_labelled(frame, found, lacking(providers, found))
        else:
            _show_listed(frame.out, _listed(providers))


@key.command()
@click.argument("kind", type=click.Choice(["passkey", "security-key", "recovery", "passphrase"]))
@click.option(
    paper.OPTION,
    "new_key_file",
    metavar="F",
    type=click.Path(path_type=Path),
    help="Write the new recovery key to this new file instead of showing it.",
)
@click.option(
    "--new-passphrase-file",
    metavar="F",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Read the new passphrase from a file, - or /dev/fd/N.",
)
@click.option("--label", default="", metavar="TEXT", help="What it is called, for those who can read the vault.")
@_place_of_passkey
@secret_options
@pass_frame
def add(
    frame: Frame,
    kind: str,
    new_key_file: Path | None,
    new_passphrase_file: Path | None,
    label: str,
    secret: Secret,
) -> None:
    """Add a way into the vault. Unlocks with one that exists.

    \b
    passkey       in the browser: of this computer, a phone, a password manager,
                  or a security key; with --security-key as below
    security-key  a passkey on a security key plugged in here, without a browser
    recovery      another recovery key, for another paper
    passphrase    a passphrase
    """
    config, out = frame.config(), frame.out
    if (new_key_file and kind != "recovery") or (new_passphrase_file and kind != "passphrase"):
        raise click.UsageError(f"That file is not for a new {kind}.")
    if kind == "recovery" and new_key_file is None:
        paper.require_terminal(out)

    # Not patient: a provider that is down must be told before a secret is asked for.
    with storage.opened(config.providers) as providers:
        storage.require_all(providers)
        with unlocking.unlock_to_enrol(out, providers, secret, device.pin(config)) as enrolment:
            proving.prove(frame, enrolment.vault)
            # Before it is added: what is wrong with the others must not sound as if this one had failed.
            there = adding.ways(providers, enrolment.vault)
            gone = lacking(providers, there)
            if kind in adding.MEANS:
                made = adding.passkey(out, providers, enrolment, secret, kind, label)
            else:
                made = adding.typed(out, providers, enrolment, kind, label, new_key_file, new_passphrase_file)
    used.note(config.state_dir, made.slot_id)  # it was opened with
    adding.tell(out, made, [*there, {"kind": made.kind, "synced": made.synced}], gone, new_key_file)


@key.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@rotating.yes_option
@secret_options
@pass_frame
def remove(frame: Frame, ids: tuple[str, ...], yes: bool, secret: Secret) -> None:
    """Remove ways into the vault, by their ids or the first digits of them.

    Unlocks with one that stays, and changes the keys of the vault: what is backed up from then on opens with those that
    stay, and with nothing else. The others need not be at hand. What was backed up before stays readable to whoever has
    a removed key and a copy of the storage from before.
    """
    rotating.change(frame, secret, yes=yes, slots=ids)


@key.command()
@rotating.yes_option
@secret_options
@pass_frame
def rotate(frame: Frame, yes: bool, secret: Secret) -> None:
    """Change the keys of the vault. All ways in and all devices stay, and need not be at hand.

    It cannot undo a theft: whoever has stolen the old keys reads what was backed up before, and with a hand in the
    storage could still mislead a machine that never saw the new ones; make a new vault then.
    """
    rotating.change(frame, secret, yes=yes)


def _show_listed(out: Output, found: list[dict[str, Any]]) -> None:
    rows = [[str(way["id"])[:8], KINDS.get(str(way["kind"]), "damaged")] for way in found]
    out.table({"ways": found}, ["id", "kind"], rows)
    if out.as_json:
        return
    out.note("As storage shows them; nobody vouches for that. Those that count: chatkeep key list --labels")
    if len(found) < 2:
        out.note(out.remark("Fewer than two ways in. Add one: chatkeep key add", "warn"))


def _show_labelled(frame: Frame, found: list[dict[str, Any]], gone: Mapping[str, list[bytes]]) -> None:
    out, now = frame.out, time.time_ns()
    state_dir = used.state_dir(frame)
    rows = []
    for way in found:
        last = used.last(state_dir, bytes.fromhex(way["id"]))
        way["used_here"] = None if last is None else stamp(last)
        since = way.pop("shown", "")
        rows.append(
            [
                way["id"][:8],
                rotating.kind_words(way),
                printable(way["label"] or ""),
                since,
                "never" if last is None else age(last, now),
            ]
        )
    codes = warnings(found)
    value = {"ways": found, "lacking": plain(gone), "warnings": codes}
    out.table(value, ["id", "kind", "label", "since", "used here"], rows)
    if not out.as_json:
        for line in [*rotating.lacking_lines(out, gone), *rotating.warning_lines(out, codes)]:
            out.note(line)


def _listed(providers: Sequence[Provider]) -> list[dict[str, Any]]:
    """What storage lists. Nobody vouches for it: only unlocking tells which of them count."""
    from chatkeep.daemon.cli.slots import read_slots

    return [{"id": slot.slot_id.hex(), "kind": slot.kind} for slot in read_slots(providers)]


def _labelled(frame: Frame, folder: Path | None, providers: Sequence[Provider], secret: Secret) -> list[dict[str, Any]]:
    """Those that count in the newest epoch, and those of which that cannot be told for damage."""
    from chatkeep.daemon.cli.slots import answering

    pin = None if folder is not None else device.pin(frame.config())
    with unlocking.unlock(frame.out, providers, secret, pin=pin) as vault:
        found = adding.ways(answering(providers), vault)
    for way in found:
        if "told" in way:
            frame.out.note(f"{way['id'][:8]}: {way.pop('told')}")
    return found
