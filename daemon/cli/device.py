"""This device: its key for writing, its records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from chatkeep.config.model import Config
    from chatkeep.daemon.state import State
    from chatkeep.daemon.vault.credential import WriterCredential

CREDENTIAL: Final = "chatkeep-writer"
"""The file's name in the state directory, and that of the systemd credential."""


def credential_file(config: Config) -> Path:
    """Where the writer credential is: what systemd passed to this process, else in the state directory."""
    passed = os.environ.get("CREDENTIALS_DIRECTORY")
    if passed and (Path(passed) / CREDENTIAL).exists():
        return Path(passed) / CREDENTIAL
    return config.state_dir / CREDENTIAL


def is_set_up(config: Config) -> bool:
    """Whether this device was enrolled in a vault."""
    return credential_file(config).exists()


def load_credential(config: Config) -> WriterCredential:
    """The key for writing. Raises CredentialRefused, UnsupportedVersion, Malformed."""
    from chatkeep.daemon.vault.credential import WriterCredential

    return WriterCredential.load(credential_file(config))


def open_state(config: Config, credential: WriterCredential) -> State:
    """This device's records, taken for this process. Raises StateError."""
    from chatkeep.daemon.state import State

    return State.open(config.state_dir, credential.vault_id, credential.device_id)


def vault_id(config: Config) -> bytes | None:
    """The id of the vault that this device writes; None when it is not set up. Raises as `load_credential`."""
    if not is_set_up(config):
        return None
    credential = load_credential(config)
    try:
        return credential.vault_id
    finally:
        credential.wipe()
