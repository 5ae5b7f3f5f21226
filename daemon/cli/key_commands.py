"""`chatkeep key`: the ways into the vault."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli import ask, device, paper, storage, unlocking
from chatkeep.daemon.cli.frame import Frame, Group, pass_frame
from chatkeep.daemon.cli.measures import local_time, printable, stamp
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.telling import plain_error, tell
from chatkeep.daemon.cli.unlocking import Secret, secret_options

if TYPE_CHECKING:
    from chatkeep.daemon.vault.create import Way
    from chatkeep.providers.base import Provider

KINDS = {"recovery-64": "recovery key", "passphrase": "passphrase", "webauthn-prf": "passkey"}


@click.group(cls=Group, short_help="List the ways into the vault, or add one.")
def key() -> None:
    """List the ways into the vault, or add one."""


@key.command(name="list")
@storage.from_option
@secret_options
@click.option("--labels", is_flag=True, help="Unlock, and show what each is called and since when it is there.")
@pass_frame
def list_keys(frame: Frame, folder: Path | None, secret: Secret, labels: bool) -> None:
    """List the ways into the vault. Needs no secret, but for --labels."""
    with storage.opened(storage.named(frame, folder)) as providers:
        found = _labelled(frame, folder, providers, secret) if labels else _listed(providers)
        value = {"ways": found}
        rows = [[str(way["id"])[:8], KINDS[str(way["kind"])], *_rest(way)] for way in found]
        frame.out.table(value, ["id", "kind", *(["label", "since"] if labels else [])], rows)
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
        _require_all(providers)
        with unlocking.unlock_to_enrol(out, providers, secret, device.vault_id(config)) as enrolment:
            way = _new_way(out, kind, label, new_key_file, new_passphrase_file)
            slot = add_slot(providers, enrolment, way, time.time_ns())
    out.result(
        {"id": slot.hex(), "kind": way.method.kind, "recovery_key_file": new_key_file},
        f"Added and tried: a {KINDS[way.method.kind]} opens the vault now.",
    )


def _require_all(providers: Sequence[Provider]) -> None:
    """A way in that some provider lacks would fail on the day that provider is all there is."""
    from chatkeep.daemon.vault.names import VAULTS

    for provider in providers:
        any(True for _ in provider.list(VAULTS))


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
    from chatkeep.daemon.cli.slots import read_slots
    from chatkeep.daemon.keys.slots import open_label

    vault_id = None if folder is not None else device.vault_id(frame.config())
    found = []
    with unlocking.unlock(frame.out, providers, secret, vault_id) as vault:
        for slot in read_slots(providers):
            way: dict[str, Any] = {"id": slot.slot_id.hex(), "kind": slot.kind, "label": None, "since": None}
            try:
                private = vault.opener(slot.epoch, vault.records[min(slot.epoch, len(vault.records)) - 1].public.key_id)
                way["label"], since = open_label(slot, private)
                way["since"], way["shown"] = stamp(since), local_time(since)
            except ChatkeepError as exc:
                way["error"] = plain_error(exc)
                frame.out.note(f"{slot.slot_id.hex()[:8]}: {tell(exc).text}")
            found.append(way)
    return found


def _rest(way: dict[str, Any]) -> list[str]:
    if "label" not in way:
        return []
    return [printable(way["label"] or ""), way.pop("shown", "")]
