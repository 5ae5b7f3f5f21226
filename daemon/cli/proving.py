"""What this device sealed is proven as soon as somebody unlocks: quietly, and loudly when something does not open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli import by_daemon
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.frame import Frame
from chatkeep.daemon.cli.telling import tell
from chatkeep.daemon.service import device

if TYPE_CHECKING:
    from chatkeep.config.model import Config
    from chatkeep.daemon.state import State
    from chatkeep.daemon.vault.errors import CapsuleFailed
    from chatkeep.daemon.vault.unlocked import UnlockedVault


def prove(frame: Frame, vault: UnlockedVault) -> list[CapsuleFailed]:
    """Proves the capsules that this device sealed since the last time; returns those that do not open, also those found
    before, and tells them. What stands on them begins anew with the next backup.

    Nothing happens on a device that is not set up for this vault, or while a backup has the records: the next unlock
    does it then. The command is about something else, and no trouble of the records keeps it from that.
    """
    from chatkeep.daemon.state import StateError, glance
    from chatkeep.daemon.vault.errors import VaultError

    try:
        config = frame.config()
        if not device.is_set_up(config) or not glance.exists(config.state_dir):
            return []
        with glance.Glance(config.state_dir) as seen:
            if seen.capsules() == (0, []):
                return []  # the usual case takes no lock
        credential = device.load_credential(config)
    except ChatkeepError:
        return []
    try:
        if credential.vault_id != vault.vault_id:
            return []
        # A daemon has the records all day long. It lends them, or the next unlock does it, if it is too busy.
        with (
            by_daemon.borrowed_quickly(config, "proof of what was sealed"),
            device.open_state(config, credential) as state,
        ):
            return prove_in(frame, config, state, vault)
    except (StateError, VaultError):
        return []
    finally:
        credential.wipe()


def prove_in(frame: Frame, config: Config, state: State, vault: UnlockedVault) -> list[CapsuleFailed]:
    """The same for a command that has the records already."""
    from chatkeep.daemon.backup.anew import heal
    from chatkeep.daemon.vault.errors import CapsuleFailed
    from chatkeep.daemon.verify.capsules import prove_all

    prove_all(state.capsules, vault.vault_id, vault.opener)
    failed = [CapsuleFailed(name=one.name, reason=one.code) for one in state.capsules.failures()]
    if failed:
        heal(state, [provider.name for provider in config.providers])
        frame.least = Exit.INTEGRITY
    for problem in failed:
        told = tell(problem)
        frame.out.note(f"{frame.out.remark(told.text, 'bad')}\n{told.remedy}")
    return failed
