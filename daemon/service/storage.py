"""The providers of a configuration, open; and whether the right vault is there."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from chatkeep.config.model import ProviderConfig
    from chatkeep.providers.base import Provider
    from chatkeep.providers.memo import Memo

_LOG: Final = logging.getLogger(__name__)


@contextlib.contextmanager
def opened(
    configs: Sequence[ProviderConfig], *, create: bool = False, patient: bool = True
) -> Iterator[list[Provider]]:
    """The providers, open, in the order given. One that cannot be opened says why whenever it is asked for something,
    and is opened as soon as it can be; with `create` it raises ProviderError at once.

    Each keeps to its limits and remembers what it must on this device. `create`: make the places that are not there.
    `patient`: calls are repeated while that may help.
    """
    from chatkeep.providers.wrap import Retrying, wrapped

    with contextlib.ExitStack() as stack:
        found: list[Provider] = []
        for config in configs:
            memo = stack.enter_context(contextlib.closing(_memo(config, create=create)))
            opened = _opened(config, memo, create=create)
            # Closed before its memo, into which it writes until the end.
            provider = stack.enter_context(contextlib.closing(wrapped(opened, config, memo)))
            found.append(Retrying(provider) if patient else provider)
        yield found


def _opened(config: ProviderConfig, memo: Memo, *, create: bool) -> Provider:
    from chatkeep.providers import registry
    from chatkeep.providers.base import ProviderError
    from chatkeep.providers.wrap import Renewed, Unopened

    def again() -> Provider:
        return registry.open_provider(config, memo=memo)

    try:
        return Renewed(registry.open_provider(config, memo=memo, create=create), again)
    except ProviderError:
        if create:
            raise
        return Unopened(config.name, lambda: Renewed(again(), again))


def _memo(config: ProviderConfig, *, create: bool) -> Memo:
    """What is remembered about a provider. Where this device remembers nothing at all, nor does it about storage: a
    restore on a new machine leaves no traces beside its target. A memo that cannot be used is gone without, for it
    would keep the last backup from being read; what that costs is said in the log."""
    from chatkeep.providers.memo import FileMemo, MemoryMemo, MemoUnusable

    if config.memory is None or not (create or config.memory.parent.parent.is_dir()):
        return MemoryMemo()
    try:
        return FileMemo(config.memory)
    except MemoUnusable as problem:
        _LOG.warning("memo-unusable: %s", problem)
        return MemoryMemo()


def require_all(providers: Sequence[Provider]) -> None:
    """Returns when every provider can be asked: a way in that one of them lacks would fail on the day that this one is
    all there is. Raises ProviderError.
    """
    from chatkeep.daemon.vault.names import VAULTS

    for provider in providers:
        any(True for _ in provider.list(VAULTS))


def require_vault(provider: Provider, vault_id: bytes) -> None:
    """Returns when the vault is at the provider.

    Another disk in place of the right one would otherwise be filled, and called up to date.

    Raises:
        WrongVault, NoVault: another vault is there, or none.
        ProviderError: it cannot be asked.
    """
    from chatkeep.daemon.vault.errors import NoVault, WrongVault
    from chatkeep.daemon.vault.names import VAULTS, VaultName
    from chatkeep.providers.base import ObjectNotFound

    try:
        provider.stat(str(VaultName(vault_id)))
    except ObjectNotFound as exc:
        others = [found.name for found in provider.list(VAULTS)]
        if others:
            raise WrongVault(what="storage", provider=provider.name) from exc
        raise NoVault(reason="expected", provider=provider.name) from exc
