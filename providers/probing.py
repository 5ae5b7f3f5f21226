"""What a storage does when asked: the common part of every `probe`, and what time it is there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from chatkeep.providers import base

T = TypeVar("T")


def observe(provider: base.Provider, damages: Callable[[str], str | None] | None = None) -> base.Capabilities:
    """Puts, reads, lists and deletes an object of a random name and says what was seen.

    `exclusive_create` is what the verbs show (a second put of other bytes was refused, and the first bytes stand); a
    provider that compares before it writes replaces the field by what its storage guarantees. A credential that may
    not read, list or delete is no failure: the fields say so.

    Args:
        provider: what is asked.
        damages: called with the name of an object that is not there: sends a body that is not the one whose digest it
            declares, and returns the digest that the storage refused it by, or None. What it leaves is deleted here.

    Raises:
        ObjectDamaged: the storage returned other bytes than it was given.
        ProviderError: as the verbs do.
    """
    name, body = f"probe/{os.urandom(16).hex()}", os.urandom(1024)
    provider.put(name, body)
    try:
        listed = _allowed(lambda: any(each.name == name for each in provider.list("probe/")))
        exclusive = _refuses(provider, name, body[::-1])
        seen = _allowed(lambda: (provider.get(name), provider.get(name, -100, 10)))
        # Where the second put was not refused, either body may stand.
        if seen is not None and seen != (body, body[-100:-90]) and exclusive:
            raise base.ObjectDamaged(provider=provider.name, object=name)
        found = _allowed(lambda: provider.stat(name))
        modified = found.modified if found is not None else None
        ahead = None if modified is None else round(modified - time.time(), 1)
        refused_by = _refused_by(provider, damages) if damages is not None else None
    except base.ProviderError:
        _deletes(provider, name)
        raise
    return base.Capabilities(
        exclusive_create=exclusive,
        lists_at_once=bool(listed),
        deletes=_deletes(provider, name),
        modified=modified is not None,
        clock_ahead=ahead,
        free_bytes=None,
        reads=seen is not None,
        lists=listed is not None,
        refuses_damage=refused_by,
    )


def clock(provider: base.Provider) -> float | None:
    """What time it is at the storage, in seconds since 1970 UTC: when it stored an object that was put a moment ago.

    None where it does not tell, or not to this credential. Where nothing can be deleted, the object (16 bytes) stays.

    Raises:
        ProviderError: as `put` and `stat` do.
    """
    name = f"probe/{os.urandom(16).hex()}"
    provider.put(name, os.urandom(16))
    try:
        found = _allowed(lambda: provider.stat(name))
        return found.modified if found is not None else None
    finally:
        _deletes(provider, name)


def _allowed(call: Callable[[], T]) -> T | None:
    """None where this credential may not do that. One that is not accepted at all is an error."""
    try:
        return call()
    except base.CredentialRefused:
        raise
    except base.PermissionRefused:
        return None


def _refuses(provider: base.Provider, name: str, other: bytes) -> bool:
    try:
        provider.put(name, other)
    except base.ObjectConflict:
        return True
    except base.PermissionRefused:  # a put-only credential, which cannot learn why
        return False
    return False


def _refused_by(provider: base.Provider, damages: Callable[[str], str | None]) -> str | None:
    name = f"probe/{os.urandom(16).hex()}"
    try:
        return damages(name)
    finally:
        _deletes(provider, name)


def _deletes(provider: base.Provider, name: str) -> bool:
    try:
        provider.delete(name)
        provider.stat(name)
    except base.ObjectNotFound:
        return True
    except base.ProviderError:  # object lock, a put-only credential: known from now on, and no obstacle to a backup
        return False
    return False
