"""A device that writes into a state directory, for tests of backups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chatkeep.daemon.backup.sealing import Sealer
from chatkeep.daemon.backup.writer import Writer
from chatkeep.daemon.state import State
from tests.support.manifests import TestVault, make_vault


def open_state(directory: Path, vault: TestVault) -> State:
    """The state of the vault's device."""
    return State.open(directory, vault.vault_id, vault.credential.device_id)


def writer_of(vault: TestVault, state: State, clock: Callable[[], int] | None = None) -> Writer:
    """A writer; `clock` gives ns."""
    return Writer(vault.credential, state) if clock is None else Writer(vault.credential, state, clock=clock)


def sealer_of(directory: Path) -> Sealer:
    """A sealer with keys of its own, writing into `directory`."""
    vault = make_vault()
    staging = directory / "staging"
    staging.mkdir(exist_ok=True)
    made = Writer(vault.credential, None)  # type: ignore[arg-type]
    return Sealer(staging, made.new_pack, made.ids)
