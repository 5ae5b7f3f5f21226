"""Capsules that nobody could open when they were sealed, tried before anything older is let go."""

from __future__ import annotations

from chatkeep.daemon.state import Capsules
from chatkeep.daemon.vault.errors import VaultError, VaultLocked
from chatkeep.daemon.vault.manifest import prove_manifest_head
from chatkeep.daemon.vault.names import ManifestName, PackName, parse
from chatkeep.daemon.vault.pack_reader import prove_footer
from chatkeep.daemon.vault.unlocked import UnlockedVault


def prove_capsules(capsules: Capsules, unlocked: UnlockedVault) -> None:
    """Tries every capsule that was not tried yet, and remembers which open. Raises VaultLocked."""
    proven = []
    for one in capsules.unproven():
        try:
            name = parse(one.name)
            if isinstance(name, PackName):
                prove_footer(one.proof, name, unlocked.vault_id, unlocked.opener)
            elif isinstance(name, ManifestName):
                header = prove_manifest_head(one.proof, unlocked.opener)
                found = (header.vault_id, header.device_id, header.stream_id, header.seq)
                if found != (unlocked.vault_id, name.device_id, name.stream_id, name.seq):
                    capsules.failed(one.name, "malformed")
                    continue
        except VaultLocked:
            raise
        except VaultError as exc:
            capsules.failed(one.name, exc.code)
            continue
        proven.append(one.name)
    capsules.proven(proven)
