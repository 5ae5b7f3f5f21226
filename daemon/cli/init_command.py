"""`chatkeep init`: a new vault, its first ways in, this device enrolled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.config.proposal import short
from chatkeep.daemon.cli import adding, ask, paper, rotating, used
from chatkeep.daemon.cli.adding import Made
from chatkeep.daemon.cli.errors import AlreadySetUp, RecordsInTheWay
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.output import Output, fields, paragraph
from chatkeep.daemon.cli.telling import plain_error, tell
from chatkeep.daemon.cli.unlocking import Secret, patience_option
from chatkeep.daemon.cli.ways import warnings
from chatkeep.daemon.service import storage
from chatkeep.daemon.service.device import CREDENTIAL, credential_file, is_set_up, load_credential

if TYPE_CHECKING:
    from chatkeep.config.model import Config
    from chatkeep.daemon.keys.recovery import RecoveryKey
    from chatkeep.daemon.vault.create import CreatedVault, Way
    from chatkeep.providers.base import Provider

_NOTHING = " Nothing was changed."  # said of a ceremony that failed, and not of a vault that was just made


@click.command(cls=Command, short_help="Make the vault, its recovery key, and a passkey.")
@click.option(
    paper.OPTION,
    "key_file",
    metavar="F",
    type=click.Path(path_type=Path),
    help="Write the recovery key to this new file instead of showing it.",
)
@click.option(
    "--passkey/--no-passkey", default=None, help="Add a passkey in the browser, which opens it with one touch, or not."
)
@click.option("--security-key", is_flag=True, help="Add a passkey on a security key plugged in here, no browser.")
@click.option(
    "--passphrase/--no-passphrase", "wanted", default=None, help="Add a passphrase as another way in, or not."
)
@ask.passphrase_file_option
@patience_option
@pass_frame
def init(
    frame: Frame,
    key_file: Path | None,
    passkey: bool | None,
    security_key: bool,
    wanted: bool | None,
    passphrase_file: Path | None,
    passkey_timeout: int,
) -> None:
    """Make the vault, its recovery key, and a passkey.

    The recovery key is shown once and typed back. It opens the backup when everything else is lost. A passkey opens it
    with one touch. It is added once the vault is whole, or later: chatkeep key add passkey
    """
    config = frame.config()
    refuse_second(config)
    if wanted is False and passphrase_file is not None:
        raise click.UsageError("--no-passphrase and --passphrase-file contradict each other.")
    wishes = Wishes(key_file, passkey, security_key, wanted, passphrase_file, passkey_timeout)
    outcome = perform(frame, config, wishes)
    frame.least = outcome.exit
    frame.out.result(outcome.value, *outcome.lines, "", "Next: chatkeep backup")
    for remark in outcome.remarks:
        frame.out.note(remark)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted of a new vault. None where a person is to be asked, if there is one.

    Attributes:
        key_file: where the recovery key goes; None: on paper. patience: seconds for one gesture with a passkey.
    """

    key_file: Path | None
    passkey: bool | None
    security_key: bool
    passphrase: bool | None
    passphrase_file: Path | None
    patience: float

    def check(self, out: Output) -> None:
        """Returns when the wishes can be fulfilled, as far as can be told before anything is done. Raises
        click.UsageError."""
        if self.passkey is False and self.security_key:
            raise click.UsageError("--no-passkey and --security-key contradict each other.")
        if self.key_file is None:
            paper.require_terminal(out)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A vault that was made: as a value, in lines, what is remarked besides, and how a command ends that did nothing
    more."""

    value: dict[str, Any]
    lines: tuple[str, ...]
    remarks: tuple[str, ...]
    exit: Exit


def perform(frame: Frame, config: Config, wishes: Wishes) -> Outcome:
    """Makes the vault with its ways in and enrols this device; what has to be asked is asked first.

    Raises click.UsageError, Cancelled when a person gave up, and what keeps it from being made.
    """
    out, key_file = frame.out, wishes.key_file
    wishes.check(out)
    from chatkeep.config.paths import check_paths
    from chatkeep.daemon.keys import recovery
    from chatkeep.daemon.vault.create import require_empty

    with storage.opened(config.providers, create=True) as providers:
        check_paths(config)
        require_empty(providers)
        _require_working(config, providers)
        if key_file is not None:
            paper.require_new(key_file, first=True)
        make_state_dir(config)
        with _nothing_made():
            kind = "security-key" if wishes.security_key else _passkey_kind(out, wishes.passkey, key_file)
            phrase = _passphrase(out, wishes.passphrase, wishes.passphrase_file, offered=kind is None)
        key = recovery.generate()
        try:
            with _nothing_made():
                _keep(out, key, key_file)
            made = _create(out, providers, key, phrase, key_file)
            made.credential.save(config.state_dir / CREDENTIAL)
            added = None
            if kind is not None:
                added = _add_passkey(out, providers, key, made, kind, Secret(patience=wishes.patience, frame=frame))
        finally:
            key.wipe()
    exit_code = Exit.DONE
    if isinstance(added, ChatkeepError) and (wishes.passkey or wishes.security_key):
        exit_code = tell(added).exit
    return _outcome(frame, config, made, key_file, added, exit_code)


def _require_working(config: Config, providers: Sequence[Provider]) -> None:
    """Returns when storage lets a vault be made: nobody is to write down the key of one that then cannot be. A folder
    shows that by being made. Raises ProviderError, click.UsageError."""
    from chatkeep.daemon.cli.provider_findings import CANNOT_READ

    for one, provider in zip(config.providers, providers, strict=True):
        if one.type != "folder":
            seen = provider.probe()
            if not (seen.reads and seen.lists):
                raise click.UsageError(f"{printable(one.name)}: {CANNOT_READ}")


@contextlib.contextmanager
def _nothing_made() -> Iterator[None]:
    """Whoever gives up in the block is told that there is no vault: the key on his paper must be no riddle."""
    try:
        yield
    except (click.Abort, KeyboardInterrupt) as exc:
        raise Cancelled(reason="no-vault") from exc


def refuse_second(config: Config) -> None:
    """Raises AlreadySetUp or RecordsInTheWay when this device writes a vault, or did."""
    if is_set_up(config):
        credential = load_credential(config)
        vault = credential.vault_id.hex()
        credential.wipe()
        raise AlreadySetUp(vault=vault, path=str(credential_file(config)))
    if (config.state_dir / "state.db").exists():
        raise RecordsInTheWay(path=str(config.state_dir))


def _passkey_kind(out: Output, wanted: bool | None, key_file: Path | None) -> str | None:
    """Which kind of passkey is to be added; None for none."""
    if wanted is None and ask.has_terminal() and not out.as_json:
        text = (
            "A passkey opens the backup with one touch: of this computer, your phone, a password manager or a security "
            f"key.{' It comes after the recovery key, which goes on paper.' if key_file is None else ''}"
        )
        out.note("\n".join(paragraph(text)))
        wanted = ask.agreed("Add one now?", default=True)
    return "passkey" if wanted else None


def _passphrase(out: Output, wanted: bool | None, file: Path | None, *, offered: bool) -> bytearray | None:
    if offered and wanted is None and file is None and ask.has_terminal() and not out.as_json:
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
    out: Output, providers: Sequence[Provider], key: RecoveryKey, phrase: bytearray | None, key_file: Path | None
) -> CreatedVault:
    from chatkeep.daemon.keys.methods import PassphraseMethod, RecoveryMethod
    from chatkeep.daemon.vault.create import Way, create_vault

    ways: list[Way] = [Way(RecoveryMethod(key), "recovery key")]
    if phrase is not None:
        ways.append(Way(PassphraseMethod(lambda: bytearray(phrase)), "passphrase"))
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


def _add_passkey(
    out: Output, providers: Sequence[Provider], key: RecoveryKey, made: CreatedVault, kind: str, secret: Secret
) -> Made | ChatkeepError:
    """The passkey, or why there is none. The vault is whole by now, and stays so whatever becomes of this: nobody has
    to write down another recovery key because a phone was not at hand.
    """
    from chatkeep.daemon.keys.methods import RecoveryMethod
    from chatkeep.daemon.vault.unlock import unlock_to_enrol

    try:
        with unlock_to_enrol(providers[0], RecoveryMethod(key), made.vault_id, others=providers) as enrolment:
            return adding.passkey(out, providers, enrolment, secret, kind, "")
    except KeyboardInterrupt:
        return Cancelled()
    except ChatkeepError as exc:
        return exc


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


def _outcome(
    frame: Frame,
    config: Config,
    made: CreatedVault,
    key_file: Path | None,
    added: Made | ChatkeepError | None,
    exit_code: Exit,
) -> Outcome:
    out = frame.out
    kinds = ["recovery-64", "passphrase"][: len(made.slots)]
    slots: list[dict[str, Any]] = [
        {"id": slot.hex(), "kind": kind} for slot, kind in zip(made.slots, kinds, strict=True)
    ]
    place = "on your paper" if key_file is None else f"in {printable(str(key_file))}"
    shown = [f"a recovery key, {place}", *(["a passphrase"] if len(kinds) > 1 else [])]
    if isinstance(added, Made):
        slots.append({"id": added.slot_id.hex(), "kind": added.kind, "synced": added.synced})
        shown.append(f"a {rotating.kind_words(slots[-1])}")
        used.note(config.state_dir, added.slot_id)
    failed = added if isinstance(added, ChatkeepError) else None
    codes = warnings(slots)
    value: dict[str, Any] = {
        "vault": made.vault_id.hex(),
        "device": made.credential.device_id.hex(),
        "providers": [provider.name for provider in config.providers],
        "slots": slots,
        "credential": config.state_dir / CREDENTIAL,
        "recovery_key_file": key_file,
        "passkey_error": None if failed is None else plain_error(failed),
        "warnings": codes,
    }
    rows = [
        ("vault", made.vault_id.hex()),
        ("stored at", ", ".join(printable(provider.name) for provider in config.providers)),
        ("ways in", "\n".join(shown)),
        (
            "this device",
            f"writes with {printable(short(config.state_dir / CREDENTIAL, Path.home()))},\nand cannot read",
        ),
    ]
    head = out.styled("The vault is made, and every way into it was tried.", "head")
    remarks = () if out.as_json else tuple(_remarks(out, key_file, failed, codes))
    return Outcome(value, (head, "", *fields(rows)), remarks, exit_code)


def _remarks(out: Output, key_file: Path | None, failed: ChatkeepError | None, codes: Sequence[str]) -> Iterator[str]:
    if key_file is not None:
        yield f"Move {printable(str(key_file))} to a safe place that is not this machine."
    if failed is not None:
        yield (
            f"{out.remark('There is no passkey yet.', 'warn')} {tell(failed).text.removesuffix(_NOTHING)}\n"
            "The vault is whole, and the recovery key opens it. Add a passkey later: chatkeep key add passkey"
        )
    yield from rotating.warning_lines(out, codes)
