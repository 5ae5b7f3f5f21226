"""Asking storage for what it lists and for objects of bounded length. Storage is believed in nothing here."""

from __future__ import annotations

from typing import Final, TypeVar

from chatkeep.daemon.vault.errors import Malformed, MissingObject, ObjectMismatch
from chatkeep.daemon.vault.names import DeviceName, EpochName, SlotName, VaultName, parse
from chatkeep.providers.base import ObjectDamaged, ObjectNotFound, Provider

MOST_NAMES: Final = 1 << 20
"""Most names looked at in one listing. Storage could go on for ever."""

Listed = TypeVar("Listed", VaultName, EpochName, SlotName, DeviceName)


def listed(provider: Provider, prefix: str, kind: type[Listed], most: int) -> list[Listed]:
    """The names of one kind that storage lists, in order; no more than `most` and one, which tells that there are more.

    Other names are somebody else's and passed over: a sync program's conflict copies, a person's notes.

    Raises:
        Malformed: there is no end of them.
        ProviderError: storage could not be asked.
    """
    names: list[Listed] = []
    for count, found in enumerate(provider.list(prefix)):
        if count >= MOST_NAMES:
            raise Malformed(what="listing", reason="too-many", name=prefix)
        try:
            name = parse(found.name)
        except Malformed:
            continue
        if isinstance(name, kind):
            names.append(name)
        if len(names) > most:
            break
    return sorted(names, key=str)


def get_bounded(provider: Provider, name: str, limit: int) -> bytes:
    """An object of at most `limit` bytes, whatever length storage would send.

    Raises:
        MissingObject: there is none. ObjectMismatch: it cannot be read whole. Malformed: it is longer.
        ProviderError: storage could not be asked.
    """
    try:
        raw = provider.get(name, 0, limit + 1)
    except ObjectNotFound as exc:
        raise MissingObject(name, provider=provider.name) from exc
    except ObjectDamaged as exc:
        raise ObjectMismatch(name, provider=provider.name) from exc
    if len(raw) > limit:
        raise Malformed(what="object", reason="too-long", name=name)
    return raw
