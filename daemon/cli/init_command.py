"""`chatkeep init`: a new vault, its first ways in, this device enrolled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatkeep.daemon.cli import ask, paper, storage
from chatkeep.daemon.cli.device import CREDENTIAL, credential_file, is_set_up, load_credential
from chatkeep.daemon.cli.errors import AlreadySetUp, RecordsInTheWay
from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.output import Output, fields

if TYPE_CHECKING:
    from chatkeep.config.model import Config
    from chatkeep.daemon.keys.recovery import RecoveryKey
    from chatkeep.daemon.vault.create import CreatedVault, Way
    from chatkeep.providers.base import Provider


@click.command(cls=Command, short_help="Make the vault, and its recovery key.")
@click.option(
    paper.OPTION,
    "key_file",
    metavar="F",
    type=click.Path(path_type=Path),
    help="Write the recovery key to this new file instead of showing it.",
)
@click.option(
    "--passphrase/--no-passphrase", "wanted", default=None, help="Add a passphrase as a second way in, or not."
)
@ask.passphrase_file_option
@pass_frame
def init(frame: Frame, key_file: Path | None, wanted: bool | None, passphrase_file: Path | None) -> None:
    """Make the vault, and its recovery key.

    The recovery key is shown once and typed back. It is the way into the backup that cannot be forgotten by a machine.
    """
    config, out = frame.config(), frame.out
    refuse_second(config)
    if wanted is False and passphrase_file is not None:
        raise click.UsageError("--no-passphrase and --passphrase-file contradict each other.")
    if key_file is None:
        paper.require_terminal(out)
    from chatkeep.config.paths import check_paths
    from chatkeep.daemon.keys import recovery

    with storage.opened(config.providers, create=True) as providers:
        check_paths(config)
        make_state_dir(config)
        phrase = _passphrase(out, wanted, passphrase_file)
        key = recovery.generate()
        try:
            _keep(out, key, key_file)
            made = _create(out, providers, key, phrase, key_file)
        finally:
            key.wipe()
        made.credential.save(config.state_dir / CREDENTIAL)
        _tell(frame, config, made, key_file)


def refuse_second(config: Config) -> None:
    """Raises AlreadySetUp or RecordsInTheWay when this device writes a vault, or did."""
    if is_set_up(config):
        credential = load_credential(config)
        vault = credential.vault_id.hex()
        credential.wipe()
        raise AlreadySetUp(vault=vault, path=str(credential_file(config)))
    if (config.state_dir / "state.db").exists():
        raise RecordsInTheWay(path=str(config.state_dir))


def _passphrase(out: Output, wanted: bool | None, file: Path | None) -> str | None:
    if wanted is None and file is None and ask.has_terminal() and not out.as_json:
        out.note("A passphrase can be a second way in: handy, and only as good as it is long.")
        wanted = ask.agreed("Add a passphrase?")
    if wanted or file is not None:
        return ask.passphrase(out, file, new=True)
    return None


def _keep(out: Output, key: RecoveryKey, file: Path | None) -> None:
    """The person has the key before anything can depend on it."""
    if file is None:
        paper.hand_over(out, key)
    else:
        paper.write(file, key)


def _create(
    out: Output, providers: Sequence[Provider], key: RecoveryKey, phrase: str | None, key_file: Path | None
) -> CreatedVault:
    from chatkeep.daemon.keys.methods import PassphraseMethod, RecoveryMethod
    from chatkeep.daemon.vault.create import Way, create_vault

    ways: list[Way] = [Way(RecoveryMethod(key), "recovery key")]
    if phrase is not None:
        ways.append(Way(PassphraseMethod(lambda: phrase), "passphrase"))
    try:
        with out.progress() as step:
            step("Making the vault and trying every way in", 0, None)
            return create_vault(providers, ways, time.time_ns())
    except BaseException:
        # The key of a vault that was not made opens nothing. Where one may have been made it stays.
        if key_file is not None and not _has_marker(providers):
            with contextlib.suppress(OSError):
                key_file.unlink()
        raise


def _has_marker(providers: Sequence[Provider]) -> bool:
    from chatkeep.daemon.vault.names import VAULTS
    from chatkeep.providers.base import ProviderError

    try:
        return any(True for provider in providers for _ in provider.list(VAULTS))
    except ProviderError:
        return True


def make_state_dir(config: Config) -> None:
    """The directory, for this user only. Raises StateUnusable."""
    from chatkeep.daemon.state import StateUnusable
    from chatkeep.providers.durable import make_directories

    try:
        # Durable: a power cut an instant after the key for writing was saved in it must not take both.
        make_directories(config.state_dir)
    except OSError as exc:
        raise StateUnusable(path=str(config.state_dir), errno=exc.errno) from exc


def _tell(frame: Frame, config: Config, made: CreatedVault, key_file: Path | None) -> None:
    out = frame.out
    kinds = ["recovery-64", "passphrase"][: len(made.slots)]
    value: dict[str, Any] = {
        "vault": made.vault_id.hex(),
        "device": made.credential.device_id.hex(),
        "providers": [provider.name for provider in config.providers],
        "slots": [{"id": slot.hex(), "kind": kind} for slot, kind in zip(made.slots, kinds, strict=True)],
        "credential": config.state_dir / CREDENTIAL,
        "recovery_key_file": key_file,
    }
    place = "on your paper" if key_file is None else f"in {printable(str(key_file))}"
    rows = [
        ("vault", made.vault_id.hex()),
        ("stored at", ", ".join(printable(provider.name) for provider in config.providers)),
        ("ways in", f"a recovery key, {place}" + ("\na passphrase" if len(kinds) > 1 else "")),
        ("this device", f"writes with {printable(str(config.state_dir / CREDENTIAL))}, and cannot read"),
    ]
    head = out.styled("The vault is made, and every way into it was tried.", "head")
    out.result(value, head, "", *fields(rows), "", "Next: chatkeep backup")
    if out.as_json:
        return
    if key_file is not None:
        out.note(f"Move {printable(str(key_file))} to a safe place that is not this machine.")
    if len(kinds) < 2:
        out.note(
            out.remark("There is only one way in: without the recovery key, nobody can read the backup, ever.", "warn")
            + "\nAdd another: chatkeep key add passphrase, or a second paper: chatkeep key add recovery"
        )
