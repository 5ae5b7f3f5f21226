"""Which provider has which pack of this device: by its own word, or, while it cannot be asked, by its receipts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chatkeep.daemon.state import State
from chatkeep.daemon.vault.errors import Malformed
from chatkeep.daemon.vault.names import PackName, pack_prefix, parse
from chatkeep.providers.base import ObjectNotFound, Provider, ProviderError


class Whereabouts:
    """Asks each provider for a list; what it does not list, by name.

    Raises ProviderError: one cannot be asked, and there are no receipts of it.
    """

    def __init__(self, state: State, providers: Sequence[Provider], device_id: bytes) -> None:
        self._device_id: Final = device_id
        self._providers: Final = tuple(providers)
        self._receipts: Final = {one.name: state.known.acknowledged([one.name]) for one in providers}
        self._listed: Final[dict[str, dict[bytes, int]]] = {}
        self._stats: Final[dict[tuple[str, bytes], int | None]] = {}
        self._away: Final[set[str]] = set()
        for provider in providers:
            try:
                self._listed[provider.name] = _packs(provider, device_id)
            except ProviderError:
                if not self._receipts[provider.name]:
                    raise
                self._away.add(provider.name)

    @property
    def all_asked(self) -> bool:
        """Whether every provider could be asked so far: else nobody can say that a pack is gone."""
        return not self._away

    def having(self, sha256: bytes) -> list[str]:
        """The providers that have a pack."""
        return [one.name for one in self._providers if self._size(one, sha256) is not None]

    def acknowledged(self, sha256: bytes) -> list[str]:
        """The providers that had it, as the records have it."""
        return [name for name, packs in self._receipts.items() if sha256 in packs]

    def size(self, sha256: bytes) -> int:
        """Its size in bytes; 0 when nobody who can be asked has it."""
        return max((self._size(one, sha256) or 0 for one in self._providers), default=0)

    def _size(self, provider: Provider, sha256: bytes) -> int | None:
        listed = self._listed.get(provider.name, {}).get(sha256)
        key = (provider.name, sha256)
        if listed is None and key not in self._stats:
            self._stats[key] = self._stat(provider, sha256)
        return self._stats[key] if listed is None else listed

    def _stat(self, provider: Provider, sha256: bytes) -> int | None:
        if provider.name not in self._away:
            try:
                return provider.stat(str(PackName(self._device_id, sha256))).size
            except ObjectNotFound:
                return None
            except ProviderError:
                self._away.add(provider.name)
        return 0 if sha256 in self._receipts[provider.name] else None


def _packs(provider: Provider, device_id: bytes) -> dict[bytes, int]:
    found = {}
    for shown in provider.list(pack_prefix(device_id)):
        try:
            name = parse(shown.name)
        except Malformed:
            continue
        if isinstance(name, PackName):
            found[name.sha256] = shown.size
    return found
