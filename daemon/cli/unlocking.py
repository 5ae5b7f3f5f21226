"""Unlocking in the user's command: which secret, from where, and again when it was mistyped."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from chatkeep.daemon.cli import ask
from chatkeep.daemon.cli.output import Output

if TYPE_CHECKING:
    from chatkeep.daemon.keys.methods import SlotMethod
    from chatkeep.daemon.vault.agree import Agreed
    from chatkeep.daemon.vault.epoch import EpochPin
    from chatkeep.daemon.vault.unlocked import Enrolment, Pruner, UnlockedVault
    from chatkeep.providers.base import Provider

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Opened = TypeVar("Opened")

ATTEMPTS: Final = 3  # of a typed passphrase


@dataclass(frozen=True, slots=True)
class Secret:
    """What the command line says about the secret that unlocks: which kind, and the file it is in."""

    kind: str | None = None  # "recovery", "passphrase", or None: whatever the vault has
    file: Path | None = None


def secret_options(command: Decorated) -> Decorated:
    """Adds the options that say how to unlock, given to the command as `secret: Secret`."""

    @functools.wraps(command)
    def with_secret(
        *args: Any,
        recovery_key: bool,
        passphrase: bool,
        key_file: Path | None,
        passphrase_file: Path | None,
        **kwargs: Any,
    ) -> Any:
        if sum((recovery_key or key_file is not None, passphrase or passphrase_file is not None)) > 1:
            raise click.UsageError("One secret unlocks: a recovery key or a passphrase, not both.")
        kind = "recovery" if recovery_key or key_file else "passphrase" if passphrase or passphrase_file else None
        return command(*args, secret=Secret(kind, key_file or passphrase_file), **kwargs)

    for option in (
        ask.passphrase_file_option,
        ask.key_file_option,
        click.option("--passphrase", is_flag=True, help="Unlock with a passphrase, which is asked for."),
        click.option("--recovery-key", is_flag=True, help="Unlock with a recovery key, which is asked for."),
    ):
        option(with_secret)
    return with_secret  # type: ignore[return-value]


def unlock(
    out: Output,
    providers: Sequence[Provider],
    secret: Secret,
    vault_id: bytes | None = None,
    pin: EpochPin | None = None,
) -> UnlockedVault:
    """Unlocks for reading, at the first provider that can be read, in the newest epoch that any has.

    `pin`: the newest epoch that this device has seen. Raises as `vault.unlock` does, and VaultLocked when there is
    neither a secret nor a terminal to ask at.
    """
    from chatkeep.daemon.vault.unlock import unlock as opened

    vault_id = vault_id if pin is None else pin.vault_id
    return _unlock(
        out,
        providers,
        secret,
        lambda provider, method: opened(provider, method, vault_id, others=providers, pin=pin),
    )


def unlock_to_enrol(out: Output, providers: Sequence[Provider], secret: Secret, pin: EpochPin | None) -> Enrolment:
    """Unlocks for adding slots and devices, at the newest epoch that any provider has. Raises as `unlock_newest`."""
    return unlock_newest(out, providers, secret, pin)[0].enrolment


def unlock_newest(
    out: Output, providers: Sequence[Provider], secret: Secret, pin: EpochPin | None
) -> tuple[Agreed, SlotMethod]:
    """Unlocks for changing the keys: a change that was cut short is finished at every provider first.

    Returns also what unlocked, for trying it again. Raises as `vault.agree.unlock_newest` does, and VaultLocked.
    """
    from chatkeep.daemon.vault.agree import unlock_newest as opened

    vault_id = None if pin is None else pin.vault_id
    return _unlock(
        out, providers, secret, lambda provider, method: (opened(providers, provider, method, vault_id, pin), method)
    )


def unlock_to_prune(out: Output, providers: Sequence[Provider], secret: Secret, pin: EpochPin) -> Pruner:
    """Unlocks for saying which snapshots live, in the newest epoch that any provider has. Raises as `unlock` does, and
    MissingObject where storage does not have the pinned one.
    """
    from chatkeep.daemon.vault.unlock import unlock_to_prune as opened

    return _unlock(
        out,
        providers,
        secret,
        lambda provider, method: opened(provider, method, pin.vault_id, others=providers, pin=pin),
    )


def _unlock(
    out: Output,
    providers: Sequence[Provider],
    secret: Secret,
    opened: Callable[[Provider, SlotMethod], Opened],
) -> Opened:
    from chatkeep.daemon.keys.errors import WrongPassphrase

    kind = secret.kind or _kind(providers)
    attempts = 1 if kind == "recovery" or secret.file is not None else ATTEMPTS
    while True:
        method = _method(out, kind, secret.file)
        try:
            return _at_any(providers, lambda provider: opened(provider, method))  # noqa: B023  # used before it changes
        except WrongPassphrase:
            attempts -= 1
            if not attempts:
                raise
            out.note("That is not the passphrase.")


def _at_any(providers: Sequence[Provider], act: Callable[[Provider], Opened]) -> Opened:
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


def _kind(providers: Sequence[Provider]) -> str:
    """Which secret to ask for when the command line does not say: a passphrase where there is one, being quicker to
    type. Raises VaultLocked without a terminal.
    """
    from chatkeep.daemon.cli.slots import read_slots
    from chatkeep.daemon.vault.errors import VaultLocked

    there = {slot.kind for slot in read_slots(providers)}
    if not ask.has_terminal():
        raise VaultLocked
    return "passphrase" if "passphrase" in there else "recovery"


def _method(out: Output, kind: str, file: Path | None) -> SlotMethod:
    from chatkeep.daemon.keys.methods import PassphraseMethod, RecoveryMethod

    if kind == "recovery":
        return RecoveryMethod(ask.recovery_key(out, file))
    # Asked for when the first slot needs it: not before it is known that there is a vault.
    return PassphraseMethod(lambda: ask.passphrase(out, file))
