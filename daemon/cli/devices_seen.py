"""What the devices of a vault are called: their host, their sources, their newest snapshot. For those who can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli.measures import local_time, printable
from chatkeep.daemon.service.errors import SessionError
from chatkeep.daemon.vault.errors import VaultLocked

if TYPE_CHECKING:
    from chatkeep.daemon.vault.unlocked import UnlockedVault
    from chatkeep.providers.base import Provider


@dataclass
class Seen:
    """What a device's newest snapshots say of it. `last`: the time of the newest (ns), None without one."""

    host: str | None = None
    sources: list[str] = field(default_factory=list)
    last: int | None = None

    def words(self) -> str:
        """For a person, on a line."""
        if self.last is None:
            return "no snapshot yet"
        sources = ", ".join(printable(source) for source in self.sources)
        return f"{printable(self.host or '?')}  {sources}  last snapshot {local_time(self.last)}"


def devices_seen(providers: Sequence[Provider], vault: UnlockedVault) -> Mapping[bytes, Seen]:
    """By device id, for those of which any snapshot opens. What is damaged is left out: `verify` tells it.

    Raises:
        ProviderError: no provider could be asked.
        VaultLocked, SessionError: the session has ended, or does not answer.
    """
    from chatkeep.daemon.vault.reader import VaultReader

    reader = VaultReader(providers, vault)
    found: dict[bytes, Seen] = {}
    for stream in reader.streams():
        try:
            newest = next(reader.snapshots(reader.chain(stream)), None)
        except (VaultLocked, SessionError):
            raise  # else a device would look as if it had never backed up
        except ChatkeepError:
            continue
        if newest is None:
            continue
        seen, manifest = found.setdefault(stream.device_id, Seen()), newest.manifest
        if seen.last is None or manifest.clock > seen.last:
            seen.host, seen.last = manifest.host, manifest.clock
        if manifest.source_name not in seen.sources:
            seen.sources.append(manifest.source_name)
    return found
