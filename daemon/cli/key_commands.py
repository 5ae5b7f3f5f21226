"""`chatkeep key`: the ways into the vault."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatkeep.daemon.cli import ask, device, paper, proving, rotating, storage, unlocking
from chatkeep.daemon.cli.frame import Frame, Group, pass_frame
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.slots import KINDS
from chatkeep.daemon.cli.unlocking import Secret, secret_options

if TYPE_CHECKING:
    from chatkeep.daemon.vault.create import Way
    from chatkeep.providers.base import Provider


@click.group(cls=Group, short_help="The ways into the vault: list, add, remove; new keys.")
def key() -> None:
    """The ways into the vault: list them, add one, remove one, change the keys behind them."""


@key.command(name="list")
@storage.from_option
@secret_options
@click.option("--labels", is_flag=True, help="Unlock, and show those that count, with what they are called.")
@pass_frame
def list_keys(frame: Frame, folder: Path | None, secret: Secret, labels: bool) -> None:
    """List the ways into the vault.

    Without --labels no secret is needed, and nobody vouches for the list: it is what lies in the storage, and may show
    ways in that were removed. With --labels it shows those that open the vault today, and no others.
    """
    with storage.opened(storage.named(frame, folder)) as providers:
        found = _labelled(frame, folder, providers, secret) if labels else _listed(providers)
        value = {"ways": found}
        rows = [[str(way["id"])[:8], KINDS.get(str(way["kind"]), "damaged"), *_rest(way)] for way in found]
        frame.out.table(value, ["id", "kind", *(["label", "since"] if labels else [])], rows)
        if not labels and not frame.out.as_json:
            frame.out.note(
                "As storage shows them; nobody vouches for that. Those that count: chatkeep key list --labels"
            )
        if len(found) < 2 and not frame.out.as_json:
            frame.out.note(frame.out.remark("Fewer than two ways in. Add one: chatkeep key add", "warn"))


@key.command()
@click.argument("kind", type=click.Choice(["recovery", "passphrase"]))
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
    """Add a way into the vault: another recovery key, or a passphrase. Unlocks with one that exists."""
    config, out = frame.config(), frame.out
    if (new_key_file and kind != "recovery") or (new_passphrase_file and kind != "passphrase"):
        raise click.UsageError(f"That file is not for a new {kind}.")
    if kind == "recovery" and new_key_file is None:
        paper.require_terminal(out)
    from chatkeep.daemon.vault.create import add_slot

    # Not patient: a provider that is down must be told before a secret is asked for.
    with storage.opened(config.providers) as providers:
        storage.require_all(providers)
        with unlocking.unlock_to_enrol(out, providers, secret, device.pin(config)) as enrolment:
            proving.prove(frame, enrolment.vault)
            way = _new_way(out, kind, label, new_key_file, new_passphrase_file)
            try:
                slot = add_slot(providers, enrolment, way, time.time_ns())
            except BaseException:
                if new_key_file is not None:
                    out.note(
                        f"Do not keep {printable(str(new_key_file))}: it was not shown that this key opens the vault."
                    )
                raise
    out.result(
        {"id": slot.hex(), "kind": way.method.kind, "recovery_key_file": new_key_file},
        f"Added and tried: a {KINDS[way.method.kind]} opens the vault now.",
    )


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


def _new_way(out: Output, kind: str, label: str, key_file: Path | None, passphrase_file: Path | None) -> Way:
    from chatkeep.daemon.keys import recovery
    from chatkeep.daemon.keys.methods import PassphraseMethod, RecoveryMethod
    from chatkeep.daemon.vault.create import Way

    if kind == "recovery":
        new = recovery.generate()
        if key_file is None:
            paper.hand_over(out, new)
        else:
            paper.write(key_file, new)
        return Way(RecoveryMethod(new), label or "recovery key")
    phrase = ask.passphrase(out, passphrase_file, new=True, option="--new-passphrase-file")
    return Way(PassphraseMethod(lambda: phrase), label or "passphrase")


def _listed(providers: Sequence[Provider]) -> list[dict[str, Any]]:
    """What storage lists. Nobody vouches for it: only unlocking tells which of them count."""
    from chatkeep.daemon.cli.slots import read_slots

    return [{"id": slot.slot_id.hex(), "kind": slot.kind} for slot in read_slots(providers)]


def _labelled(frame: Frame, folder: Path | None, providers: Sequence[Provider], secret: Secret) -> list[dict[str, Any]]:
    """Those that count in the newest epoch, and those of which that cannot be told for damage."""
    from chatkeep.daemon.cli.slots import answering
    from chatkeep.daemon.vault.members import slot_members

    pin = None if folder is not None else device.pin(frame.config())
    with unlocking.unlock(frame.out, providers, secret, pin=pin) as vault:
        members = slot_members(answering(providers), vault.records)
        found = [rotating.way_of(vault, slot_id, slot) for slot_id, slot in members.slots.items()]
        found += [rotating.way_of(vault, slot_id, None) for slot_id in members.doubtful_slots]
    for way in found:
        if "told" in way:
            frame.out.note(f"{way['id'][:8]}: {way.pop('told')}")
    return found


def _rest(way: dict[str, Any]) -> list[str]:
    if "label" not in way:
        return []
    return [printable(way["label"] or ""), way.pop("shown", "")]
