"""The session as commands see it: found and used when no secret was named, ended when the keys were changed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli.measures import local_time, printable, stamp
from chatkeep.daemon.cli.output import Output

if TYPE_CHECKING:
    from chatkeep.daemon.service.asking import Session
    from chatkeep.daemon.service.wire import About, Facts
    from chatkeep.daemon.vault.by_session import Held
    from chatkeep.daemon.vault.epoch import EpochPin
    from chatkeep.daemon.vault.unlocked import Pruner, UnlockedVault
    from chatkeep.providers.base import Provider

Opened = TypeVar("Opened")

HARDENING = ("no-core", "not-dumpable", "keys-locked", "all-locked")
"""What a session reached, by its bit."""
# Not those of `slots`, which takes slot files apart: status asks too, and is quick.
_KINDS = {
    "recovery-64": "recovery key",
    "passphrase": "passphrase",
    "webauthn-prf": "passkey",
}


def read_by(providers: Sequence[Provider], vault_id: bytes | None, pin: EpochPin | None) -> UnlockedVault | None:
    """The vault, for reading, by the session that there is; None when there is none.

    Raises as `vault.by_session` does, and SessionError.
    """
    from chatkeep.daemon.vault.by_session import open_by_session

    return _by(
        providers,
        vault_id if pin is None else pin.vault_id,
        lambda session, provider: open_by_session(session, held(session.about), provider, others=providers, pin=pin),
    )


def prune_by(providers: Sequence[Provider], pin: EpochPin) -> Pruner | None:
    """The same for saying which snapshots live."""
    from chatkeep.daemon.vault.by_session import prune_by_session

    return _by(
        providers,
        pin.vault_id,
        lambda session, provider: prune_by_session(session, held(session.about), provider, others=providers, pin=pin),
    )


def find(providers: Sequence[Provider], vault_id: bytes | None) -> Session | None:
    """The session of this vault, or of the one that is at these providers. Raises SessionError, OSError."""
    from chatkeep.daemon.service.asking import Session, present

    if vault_id is None:
        vault_id = stored(providers) if present() else None
    return None if vault_id is None else Session.find(vault_id)


def stored(providers: Sequence[Provider]) -> bytes | None:
    """The vault at the first provider that can be asked; None when there is none, or more than one."""
    from chatkeep.daemon.vault.errors import VaultError
    from chatkeep.daemon.vault.fetch import listed
    from chatkeep.daemon.vault.names import VAULTS, VaultName
    from chatkeep.providers.base import ProviderError

    for provider in providers:
        with contextlib.suppress(ProviderError, VaultError):
            marked = listed(provider, VAULTS, VaultName, 1)
            return marked[0].vault_id if len(marked) == 1 else None
    return None


def held(about: About) -> Held:
    """What a session says it holds."""
    from chatkeep.daemon.vault.by_session import Held

    facts = about.facts
    return Held(facts.vault_id, facts.head, facts.slot_id, about.key_ids, about.checkpoint)


def end(out: Output, vault_id: bytes) -> None:
    """Ends the session of a vault whose keys were changed, and says so: it could not read what comes next."""
    from chatkeep.daemon.service.session import lock

    try:
        ended = lock(vault_id)
    except (ChatkeepError, OSError):
        return  # it reads nothing newer than this, and says so itself
    if ended:
        out.note("The session had the keys from before, and was ended. Begin another with: chatkeep unlock")


def value(about: About) -> dict[str, Any]:
    """A session, for --json."""
    facts = about.facts
    return {
        "vault": facts.vault_id.hex(),
        "since": stamp(facts.since),
        "until": stamp(ends(facts)),
        "slot": facts.slot_id.hex(),
        "kind": facts.kind,
        "label": facts.label,
        "epoch": len(about.key_ids),
        "opened": about.opened,
        "signed": about.signed,
        "hardened": [name for bit, name in enumerate(HARDENING) if about.hardened >> bit & 1],
    }


def words(about: About) -> str:
    """A session, on a line."""
    facts = about.facts
    return f"unlocked since {local_time(facts.since)} with {way(facts)}, until {until(facts)}"


def way(facts: Facts) -> str:
    """The way in that began a session: `passkey "phone"`."""
    kind = _KINDS.get(facts.kind, facts.kind)
    return f'{kind} "{printable(facts.label)}"' if facts.label and facts.label != kind else kind


def until(facts: Facts) -> str:
    """When a session ends, for a person."""
    return local_time(ends(facts))


def ends(facts: Facts) -> int:
    """When a session ends by the clock on the wall, as that goes now (ns since 1970)."""
    return time.time_ns() + facts.until - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _by(
    providers: Sequence[Provider], vault_id: bytes | None, opened: Callable[[Session, Provider], Opened]
) -> Opened | None:
    from chatkeep.daemon.cli.unlocking import at_any

    session = find(providers, vault_id)
    if session is None:
        return None
    try:
        return at_any(providers, lambda provider: opened(session, provider))
    except BaseException:
        session.close()
        raise
