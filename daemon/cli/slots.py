"""The key slots that storage lists, unverified: whose they are, unlocking tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chatkeep.daemon.keys.errors import KeysError
from chatkeep.daemon.keys.signed import LIMITS
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.vault.errors import NoVault, VaultError
from chatkeep.daemon.vault.fetch import get_bounded, listed
from chatkeep.daemon.vault.names import SLOTS, SlotName
from chatkeep.providers.base import Provider, ProviderError

MOST: Final = 256
KINDS: Final = {"recovery-64": "recovery key", "passphrase": "passphrase", "webauthn-prf": "passkey"}
"""What each kind of slot is called."""


def read_slots(providers: Sequence[Provider]) -> list[SlotFile]:
    """The slots at the first provider that can be asked and has any; those that are no slot files are left out.

    Raises:
        ProviderError, NoVault: of the first provider, when none has any.
    """
    first: ProviderError | NoVault | None = None
    for provider in providers:
        try:
            found = _at(provider)
        except ProviderError as exc:
            first = first or exc
            continue
        if found:
            return found
        first = first or NoVault(provider=provider.name)
    assert first is not None, "a vault is read from at least one provider"
    raise first


def counting(providers: Sequence[Provider], vault_id: bytes) -> set[bytes]:
    """Ids of the slots that open the vault of this id, and of those that may for all that their damaged files show.

    As far as storage shows the newest epoch, which it cannot be made to.

    Raises:
        VaultError: the vault's records are not there or not whole. ProviderError: none could be asked.
    """
    from chatkeep.daemon.vault.chain import Records, walk_from_first
    from chatkeep.daemon.vault.members import slot_members

    there = answering(providers)
    members = slot_members(there, walk_from_first(Records(*there), vault_id).records)
    return {*members.slots, *members.doubtful_slots}


def answering(providers: Sequence[Provider]) -> list[Provider]:
    """Those that list their slots now: for showing what counts, when not all are there.

    Raises:
        ProviderError: of the first, when none answers.
    """
    first: ProviderError | None = None
    found = []
    for provider in providers:
        try:
            listed(provider, SLOTS, SlotName, MOST)
            found.append(provider)
        except ProviderError as exc:
            first = first or exc
    if not found and first is not None:
        raise first
    return found


def _at(provider: Provider) -> list[SlotFile]:
    slots = []
    for name in listed(provider, SLOTS, SlotName, MOST)[:MOST]:
        try:
            slots.append(SlotFile.parse(get_bounded(provider, str(name), LIMITS["slot"])))
        except (KeysError, VaultError):
            continue
    return slots
