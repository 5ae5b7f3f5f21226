"""Capsules proven: whoever unlocks opens what the device that sealed them could not, from a few bytes kept of each."""

from __future__ import annotations

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.state import Capsule, Capsules
from chatkeep.daemon.vault.errors import CapsuleFailed, Malformed, VaultError, VaultLocked
from chatkeep.daemon.vault.manifest import prove_manifest_head
from chatkeep.daemon.vault.names import ManifestName, PackName, parse
from chatkeep.daemon.vault.pack_reader import Opener, prove_footer

_AT_ONCE = 1000


def prove_all(capsules: Capsules, vault_id: bytes, opener: Opener) -> list[CapsuleFailed]:
    """Tries every capsule that was not tried yet; those that open are forgotten, those that do not are remembered and
    returned. Raises VaultLocked, StateError.

    A tenth of a millisecond each: ten thousand take about a second, and nothing is fetched.
    """
    failed: list[CapsuleFailed] = []
    opened: list[str] = []
    for capsule in capsules.unproven():
        problem = _problem(capsule, vault_id, opener)
        if problem is None:
            opened.append(capsule.name)
            if len(opened) >= _AT_ONCE:
                capsules.proven(opened)
                opened = []
        else:
            capsules.failed(capsule.name, problem.code)
            failed.append(CapsuleFailed(name=capsule.name, reason=problem.code))
    capsules.proven(opened)
    return failed


def _problem(capsule: Capsule, vault_id: bytes, opener: Opener) -> ChatkeepError | None:
    try:
        name = parse(capsule.name)
        if isinstance(name, PackName):
            prove_footer(capsule.proof, name, vault_id, opener)
        elif isinstance(name, ManifestName):
            header = prove_manifest_head(capsule.proof, opener)
            found = (header.vault_id, header.device_id, header.stream_id, header.seq)
            if found != (vault_id, name.device_id, name.stream_id, name.seq):
                raise Malformed(what="manifest", reason="name")
    except VaultLocked:
        raise
    except VaultError as exc:
        return exc
    return None
