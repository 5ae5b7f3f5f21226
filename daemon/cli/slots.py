"""The key slots that storage lists, unverified: whose they are, unlocking tells."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from chatkeep.daemon.keys.errors import KeysError, TooManySlots
from chatkeep.daemon.keys.signed import LIMITS
from chatkeep.daemon.keys.slot_file import SlotFile
from chatkeep.daemon.vault.errors import NoVault, VaultError
from chatkeep.daemon.vault.fetch import get_bounded, listed
from chatkeep.daemon.vault.names import SLOTS, VAULTS, SlotName, VaultName
from chatkeep.providers.base import Provider, ProviderError

MOST: Final = 256
KINDS: Final = {"recovery-64": "recovery key", "passphrase": "passphrase", "webauthn-prf": "passkey"}
"""What each kind of slot is called."""


def read_slots(providers: Sequence[Provider]) -> list[SlotFile]:
    """The slots at the first provider that can be asked and has any; of one that has some damaged, also those that the
    next ones have whole. None, where a vault is that has lost all of them.

    Raises:
        ProviderError, NoVault: of the first provider, when none has any.
    """
    first: ProviderError | NoVault | None = None
    slots: dict[bytes, SlotFile] = {}
    lost = False
    for provider in providers:
        try:
            found, whole = _at(provider)
            lost = lost or bool(listed(provider, VAULTS, VaultName, 1))
        except ProviderError as exc:
            first = first or exc
            continue
        slots = {slot.slot_id: slot for slot in found} | slots
        if found and whole:
            break
        first = first or NoVault(provider=provider.name)
    if not slots and not lost:
        assert first is not None, "a vault is read from at least one provider"
        raise first
    return list(slots.values())


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


def lacking(providers: Sequence[Provider], ways: Iterable[Mapping[str, Any]]) -> dict[str, list[bytes]]:
    """Which of these ways in have no whole file there, by the provider's name: none of a provider that has them all or
    cannot be asked. A way in that is damaged everywhere is told by itself, and not here.
    """
    wanted = [bytes.fromhex(way["id"]) for way in ways if way["kind"] is not None]
    found = {}
    for provider in providers:
        try:
            there = {slot.slot_id for slot in _at(provider)[0]}
        except ProviderError:
            continue
        if gone := [slot_id for slot_id in wanted if slot_id not in there]:
            found[provider.name] = gone
    return found


def plain(gone: Mapping[str, Iterable[bytes]]) -> list[dict[str, Any]]:
    """What `lacking` found, as --json has it."""
    return [{"provider": name, "ids": [one.hex() for one in slot_ids]} for name, slot_ids in gone.items()]


def answering(providers: Sequence[Provider]) -> list[Provider]:
    """Those whose slots can be read now: for showing what counts, when not all are there. What is wrong with another
    is told where it is unlocked, and must not keep anybody from what one provider alone opens.

    Raises:
        ProviderError, TooManySlots: of the first, when none answers.
    """
    first: ProviderError | TooManySlots | None = None
    found = []
    for provider in providers:
        try:
            if len(names := listed(provider, SLOTS, SlotName, MOST)) > MOST:
                raise TooManySlots(found=len(names), limit=MOST, provider=provider.name)
            for name in names:
                with contextlib.suppress(VaultError):  # damaged: it was read
                    get_bounded(provider, str(name), LIMITS["slot"])
            found.append(provider)
        except (ProviderError, TooManySlots) as exc:
            first = first or exc
    if not found and first is not None:
        raise first
    return found


def _at(provider: Provider) -> tuple[list[SlotFile], bool]:
    """Those that are slot files, and whether all are."""
    slots = []
    names = listed(provider, SLOTS, SlotName, MOST)[:MOST]
    for name in names:
        try:
            slots.append(SlotFile.parse(get_bounded(provider, str(name), LIMITS["slot"])))
        except (KeysError, VaultError):
            continue
    return slots, len(slots) == len(names)
