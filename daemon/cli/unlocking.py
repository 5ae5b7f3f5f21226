"""Unlocking in the user's command: which secret, from where, and again when it was mistyped."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli import ask, sessions, used
from chatkeep.daemon.cli.ceremony import DEADLINE, Asking
from chatkeep.daemon.cli.frame import Frame
from chatkeep.daemon.cli.output import Output

if TYPE_CHECKING:
    from chatkeep.daemon.keys.methods import SlotMethod
    from chatkeep.daemon.keys.seeds import ReadingSeeds
    from chatkeep.daemon.vault.agree import Agreed
    from chatkeep.daemon.vault.epoch import EpochPin
    from chatkeep.daemon.vault.unlocked import Enrolment, Pruner, UnlockedVault
    from chatkeep.providers.base import Provider

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Opened = TypeVar("Opened")

ATTEMPTS: Final = 3  # of a typed passphrase
OPTIONS: Final = {
    "passkey": "--passkey",
    "security-key": "--security-key",
    "passphrase": "--passphrase",
    "recovery": "--recovery-key",
}
"""The option of each kind of secret."""
SLOT_KINDS: Final = {
    "passkey": "webauthn-prf",
    "security-key": "webauthn-prf",
    "passphrase": "passphrase",
    "recovery": "recovery-64",
}
"""The kind of slot that each kind of secret opens."""


@dataclass(frozen=True, slots=True)
class Secret:
    """What the command line says about the secret that unlocks.

    Attributes:
        kind: a key of `OPTIONS`, or None: whatever the vault has.
        file: what a recovery key or passphrase is in.
        patience: seconds that a passkey's gesture is waited for.
        folder: the storage, if it was named instead of the configuration.
        frame: of the command.
    """

    kind: str | None = None
    file: Path | None = None
    patience: float = DEADLINE
    folder: Path | None = None
    frame: Frame = field(default_factory=Frame, repr=False, compare=False)

    def vault_name(self) -> str:
        """What the vault is called, for a person."""
        if self.folder is not None:
            return self.folder.resolve().name or str(self.folder)
        try:
            return self.frame.config().vault_name
        except ChatkeepError:
            return "chatkeep"

    def opened_by(self, slot_id: bytes) -> None:
        """Notes that this slot opened something here."""
        used.note(used.state_dir(self.frame), slot_id)


def secret_options(command: Decorated) -> Decorated:
    """Adds the options that say how to unlock, given to the command as `secret: Secret`."""

    @functools.wraps(command)
    def with_secret(
        *args: Any,
        recovery_key: bool,
        passphrase: bool,
        passkey: bool,
        security_key: bool,
        key_file: Path | None,
        passphrase_file: Path | None,
        passkey_timeout: int,
        **kwargs: Any,
    ) -> Any:
        named = {
            "passkey": passkey,
            "security-key": security_key,
            "passphrase": passphrase or passphrase_file is not None,
            "recovery": recovery_key or key_file is not None,
        }
        kinds = [kind for kind, is_named in named.items() if is_named]
        if len(kinds) > 1:
            options = " and ".join(OPTIONS[kind] for kind in kinds)
            raise click.UsageError(f"One secret unlocks: {options} contradict each other.")
        secret = Secret(
            kind=kinds[0] if kinds else None,
            file=key_file or passphrase_file,
            patience=passkey_timeout,
            folder=kwargs.get("folder"),
            frame=click.get_current_context().ensure_object(Frame),
        )
        return command(*args, secret=secret, **kwargs)

    for option in (
        ask.passphrase_file_option,
        ask.key_file_option,
        patience_option,
        click.option("--recovery-key", is_flag=True, help="Unlock with a recovery key, which is asked for."),
        click.option("--passphrase", is_flag=True, help="Unlock with a passphrase, which is asked for."),
        click.option("--security-key", is_flag=True, help="Unlock with a security key plugged in here, no browser."),
        click.option("--passkey", "--browser", "passkey", is_flag=True, help="Unlock with a passkey, in the browser."),
    ):
        option(with_secret)
    return with_secret  # type: ignore[return-value]


def patience_option(command: Decorated) -> Decorated:
    """Adds `--passkey-timeout`, given to the command as `passkey_timeout: int`."""
    return click.option(
        "--passkey-timeout",
        metavar="SECONDS",
        type=click.IntRange(min=1, max=3600),
        default=int(DEADLINE),
        show_default=True,
        help="How long the passkey is waited for.",
    )(command)


def unlock(
    out: Output,
    providers: Sequence[Provider],
    secret: Secret,
    vault_id: bytes | None = None,
    pin: EpochPin | None = None,
) -> UnlockedVault:
    """Unlocks for reading, at the first provider that can be read, in the newest epoch that any has.

    `pin`: the newest epoch that this device has seen. Without a secret named, a session unlocks. Raises as
    `vault.unlock` does, or as `vault.by_session`, CeremonyError, SessionError, and VaultLocked when there is no secret,
    no session and no terminal to ask at.
    """
    from chatkeep.daemon.vault.unlock import unlock as opened

    if secret.kind is None and (by_session := sessions.read_by(providers, vault_id, pin)) is not None:
        return by_session
    vault_id = vault_id if pin is None else pin.vault_id
    with unlocked_by(
        out,
        providers,
        secret,
        lambda provider, method: opened(provider, method, vault_id, others=providers, pin=pin),
    ) as (vault, _):
        secret.opened_by(vault.slot_id)
        return vault


def unlock_to_hand_over(
    out: Output, providers: Sequence[Provider], secret: Secret, pin: EpochPin | None
) -> tuple[UnlockedVault, ReadingSeeds]:
    """Unlocks for a session: also what the process that is to hold the keys is told. Raises as `unlock`."""
    from chatkeep.daemon.vault.unlock import unlock_to_hand_over as opened

    vault_id = None if pin is None else pin.vault_id
    with unlocked_by(
        out,
        providers,
        secret,
        lambda provider, method: opened(provider, method, vault_id, others=providers, pin=pin),
    ) as ((vault, seeds), _):
        secret.opened_by(vault.slot_id)
        return vault, seeds


def unlock_to_enrol(out: Output, providers: Sequence[Provider], secret: Secret, pin: EpochPin | None) -> Enrolment:
    """Unlocks for adding slots and devices, at the newest epoch that any provider has. Raises as `unlocked_newest`."""
    with unlocked_newest(out, providers, secret, pin) as (agreed, _):
        return agreed.enrolment


@contextlib.contextmanager
def unlocked_newest(
    out: Output, providers: Sequence[Provider], secret: Secret, pin: EpochPin | None
) -> Iterator[tuple[Agreed, SlotMethod]]:
    """Unlocks for changing the keys: a change that was cut short is finished at every provider first.

    Gives also what unlocked, for trying it again within the block; the enrolment is the caller's to wipe.

    Raises as `vault.agree.unlock_newest` does, CeremonyError, and VaultLocked.
    """
    from chatkeep.daemon.vault.agree import unlock_newest as opened

    vault_id = None if pin is None else pin.vault_id
    with unlocked_by(
        out, providers, secret, lambda provider, method: opened(providers, provider, method, vault_id, pin)
    ) as (agreed, method):
        secret.opened_by(agreed.enrolment.vault.slot_id)
        yield agreed, method


def unlock_to_prune(out: Output, providers: Sequence[Provider], secret: Secret, pin: EpochPin) -> Pruner:
    """Unlocks for saying which snapshots live, in the newest epoch that any provider has. Raises as `unlock` does, and
    MissingObject where storage does not have the pinned one.
    """
    from chatkeep.daemon.vault.unlock import unlock_to_prune as opened

    if secret.kind is None and (by_session := sessions.prune_by(providers, pin)) is not None:
        return by_session
    with unlocked_by(
        out,
        providers,
        secret,
        lambda provider, method: opened(provider, method, pin.vault_id, others=providers, pin=pin),
    ) as (pruner, _):
        secret.opened_by(pruner.vault.slot_id)
        return pruner


@contextlib.contextmanager
def unlocked_by(
    out: Output,
    providers: Sequence[Provider],
    secret: Secret,
    opened: Callable[[Provider, SlotMethod], Opened],
) -> Iterator[tuple[Opened, SlotMethod]]:
    """What `opened` gives at the first provider, with whatever secret was asked for, and that secret's method.

    The secret is wiped when the block is left. A ceremony is over before the block is entered, and a browser shows that
    it worked, or what did not.
    """
    from chatkeep.daemon.keys.errors import WrongPassphrase

    kind, others = (secret.kind, "") if secret.kind is not None else _kind(providers)
    attempts = ATTEMPTS if kind == "passphrase" and secret.file is None else 1
    with contextlib.ExitStack() as wiping:
        while True:
            ceremony = Asking(
                out,
                "security-key" if kind == "security-key" else "browser",
                "unlock",
                secret.vault_name() if kind in {"passkey", "security-key"} else "",
                deadline=secret.patience,
                others=others,
            )
            method = wiping.enter_context(_method(out, kind, secret.file, ceremony))
            try:
                with ceremony:
                    found = at_any(providers, lambda provider: opened(provider, method))  # noqa: B023  # used at once
                break
            except WrongPassphrase:
                wiping.close()  # the next question may stand there for hours
                attempts -= 1
                if not attempts:
                    raise
                out.note("That is not the passphrase.")
        yield found, method


def at_any(providers: Sequence[Provider], act: Callable[[Provider], Opened]) -> Opened:
    """What the first provider gives that can be asked, has a vault, and does not list without end."""
    from chatkeep.daemon.keys.errors import TooManySlots
    from chatkeep.daemon.vault.errors import Malformed, NoVault
    from chatkeep.providers.base import ProviderError

    first: ProviderError | NoVault | TooManySlots | Malformed | None = None
    for provider in providers:
        try:
            return act(provider)
        except (ProviderError, NoVault, TooManySlots, Malformed) as exc:
            first = first or exc
    assert first is not None, "a vault is read from at least one provider"
    raise first


def _kind(providers: Sequence[Provider]) -> tuple[str, str]:
    """Which secret to ask for when the command line does not say, and what is said about others: a passkey where there
    is one, else a passphrase, which is quicker to type than a recovery key. Raises VaultLocked without a terminal.
    """
    from chatkeep.daemon.cli.slots import read_slots
    from chatkeep.daemon.vault.errors import VaultLocked

    there = {slot.kind for slot in read_slots(providers)}
    if not ask.has_terminal():
        raise VaultLocked
    kind = next((kind for kind in OPTIONS if SLOT_KINDS[kind] in there), "recovery")
    others = [OPTIONS[other] for other in OPTIONS if other != kind and SLOT_KINDS[other] in there]
    return kind, f"Another way to unlock: {', '.join(others)}" if others else ""


@contextlib.contextmanager
def _method(out: Output, kind: str, file: Path | None, ceremony: Asking) -> Iterator[SlotMethod]:
    """The way to come by the secret, which is wiped when the block is left."""
    from chatkeep.daemon.keys.methods import PasskeyMethod, PassphraseMethod, RecoveryMethod

    if kind == "recovery":
        key = ask.recovery_key(out, file)
        try:
            yield RecoveryMethod(key)
        finally:
            key.wipe()
        return
    # Asked for when the first slot needs it: not before it is known that there is a vault.
    method = PassphraseMethod(lambda: ask.passphrase(out, file)) if kind == "passphrase" else PasskeyMethod(ceremony)
    try:
        yield method
    finally:
        method.wipe()
