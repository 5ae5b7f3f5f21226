"""What of the configuration each part of the daemon goes by."""

from __future__ import annotations

from typing import Final

from chatkeep.config.model import Config
from chatkeep.daemon.service import device
from chatkeep.daemon.service.conducting.conductor import Settings
from chatkeep.daemon.service.pace import PaceSettings
from chatkeep.daemon.service.schedule import TERMS
from chatkeep.daemon.service.watching.sentry import Rhythm

REOPENS: Final = ("sources", "providers", "outbox", "retention", "rebuild_patience")
"""What the open engine works by: when it changes, the engine is another one."""


def of(config: Config) -> Settings:
    """The conductor's."""
    watch = config.watch
    pace = PaceSettings(
        float(watch.quiet), float(watch.max_delay), float(watch.min_interval), float(watch.compare_every)
    )
    sources = {source.name: pace for source in config.sources}
    return Settings(sources, tuple(provider.name for provider in config.providers), TERMS)


def rhythm(config: Config) -> Rhythm:
    """The watcher's."""
    return Rhythm(whole=float(config.watch.poll_every))


def idle_after(config: Config) -> float | None:
    """How long nobody is to be there before it counts; None: it does not."""
    return float(config.session.idle_after) if "idle" in config.session.lock_on else None


def vault_of(config: Config) -> bytes:
    """The vault of the device that is set up. Raises CredentialRefused and what else its key for writing comes to."""
    credential = device.load_credential(config)
    try:
        return credential.vault_id
    finally:
        credential.wipe()
