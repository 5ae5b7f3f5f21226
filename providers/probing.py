"""What a storage does when asked: the common part of every `probe`, and what time it is there."""

from __future__ import annotations

import os
import time

from chatkeep.providers import base


def observe(provider: base.Provider) -> base.Capabilities:
    """Puts, reads, lists and deletes an object of a random name and says what was seen.

    `exclusive_create` is what the verbs show (a second put of other bytes was refused, and the first bytes stand); a
    provider that compares before it writes replaces the field by what its storage guarantees.

    Raises:
        ObjectDamaged: the storage returned other bytes than it was given.
        ProviderError: as the verbs do.
    """
    name, body = f"probe/{os.urandom(16).hex()}", os.urandom(1024)
    provider.put(name, body)
    try:
        listed = any(each.name == name for each in provider.list("probe/"))
        exclusive = _refuses(provider, name, body[::-1])
        if exclusive and not (provider.get(name) == body and provider.get(name, -100, 10) == body[-100:-90]):
            raise base.ObjectDamaged(provider=provider.name, object=name)
        modified = provider.stat(name).modified
        ahead = None if modified is None else round(modified - time.time(), 1)
    except base.ProviderError:
        _deletes(provider, name)
        raise
    deletes = _deletes(provider, name)
    return base.Capabilities(exclusive, listed, deletes, modified is not None, ahead, None)


def clock(provider: base.Provider) -> float | None:
    """What time it is at the storage, in seconds since 1970 UTC: when it stored an object that was put a moment ago.

    None where it does not tell. Where nothing can be deleted, the object (16 bytes) stays.

    Raises:
        ProviderError: as `put` and `stat` do.
    """
    name = f"probe/{os.urandom(16).hex()}"
    provider.put(name, os.urandom(16))
    try:
        return provider.stat(name).modified
    finally:
        _deletes(provider, name)


def _refuses(provider: base.Provider, name: str, other: bytes) -> bool:
    try:
        provider.put(name, other)
    except base.ObjectConflict:
        return True
    return False


def _deletes(provider: base.Provider, name: str) -> bool:
    try:
        provider.delete(name)
        provider.stat(name)
    except base.ObjectNotFound:
        return True
    except base.ProviderError:  # object lock, a put-only credential: known from now on, and no obstacle to a backup
        return False
    return False
