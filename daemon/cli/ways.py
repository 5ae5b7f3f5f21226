"""Whether the ways into a vault are enough, judged from what they are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

FEW: Final = "few-ways"
ONLY_SYNCED: Final = "only-synced-passkeys"
WORDS: Final[Mapping[str, tuple[str, str]]] = {
    FEW: (
        "There is only one way in that stands by itself: once it is lost, nobody can read the backup, ever.",
        "Add one: chatkeep key add passkey, or a second paper: chatkeep key add recovery",
    ),
    ONLY_SYNCED: (
        "Every passkey is synced: whoever gets into that account opens the backup, and a lost account takes them all.",
        "Keep a recovery key safe on paper, and add a security key: chatkeep key add security-key",
    ),
}
"""What is said of each, and what to do."""


def independent(ways: Iterable[Mapping[str, Any]]) -> int:
    """How many of the ways in fail one by one.

    All synced passkeys are one: they go with the account that syncs them. A passkey of which it is not known counts as
    synced; a way in whose file is damaged does not count.
    """
    found = [way for way in ways if way.get("kind") is not None]
    return sum(not _is_synced(way) for way in found) + any(map(_is_synced, found))


def warnings(ways: Iterable[Mapping[str, Any]]) -> list[str]:
    """Codes of what is wrong with these ways in: `kind` as in the format, `synced` of passkeys."""
    every = list(ways)
    passkeys = [way for way in every if way.get("kind") == "webauthn-prf"]
    found = [FEW] if independent(every) < 2 else []
    if passkeys and all(map(_is_synced, passkeys)):
        found.append(ONLY_SYNCED)
    return found


def _is_synced(way: Mapping[str, Any]) -> bool:
    return way.get("kind") == "webauthn-prf" and way.get("synced") is not False
