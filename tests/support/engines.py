"""A device that is set up, for an engine to work with: folders as storage, of which every call is counted."""

from __future__ import annotations

import dataclasses
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.amounts import Size
from chatkeep.config.model import Config, FolderOptions, ProviderConfig, Source
from chatkeep.config.running import OutboxConfig
from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.keys.recovery import RecoveryKey, generate
from chatkeep.daemon.restore.apply import Choices
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.service.device import CREDENTIAL
from chatkeep.daemon.service.engine.engine import Engine, Terms
from chatkeep.daemon.sync.upload import Pace
from chatkeep.daemon.vault.agree import unlock_newest
from chatkeep.daemon.vault.create import Way, create_vault
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.rotate import plan_rotation, rotate
from chatkeep.daemon.vault.unlock import unlock
from chatkeep.providers import base, registry
from chatkeep.providers.folder import FolderProvider
from chatkeep.providers.wrap import Patience

MIB = 1 << 20
PATIENCE = 60.0  # seconds; what is waited for comes within
Hook = Callable[[str, str], None]


def until(true: Callable[[], bool], what: str) -> None:
    """Looks again and again."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.005)


def untroubled(_verb: str, _name: str) -> None:
    """Nothing happens before a call."""


class Counting:
    """A folder that takes copies only, and counts.

    Attributes:
        calls: by verb.
        sent: bytes of all puts that began.
        listed: listings by prefix.
        before: called before every call, with the verb and the name; may raise a ProviderError.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.calls: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.listed: Counter[str] = Counter()
        self.before: Hook = untroubled
        self._inner = FolderProvider(name, root)
        self._lock = threading.Lock()

    def put(self, name: str, body: bytes) -> None:
        self._count("put", name)
        with self._lock:
            self.sent[name] += len(body)
        self._inner.put(name, body)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._count("get", name)
        return self._inner.get(name, offset, length)

    def stat(self, name: str) -> base.ObjectStat:
        self._count("stat", name)
        return self._inner.stat(name)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        self._count("list", prefix)
        self.listed[prefix] += 1
        return self._inner.list(prefix)

    def delete(self, name: str) -> None:
        self._count("delete", name)
        self._inner.delete(name)

    def probe(self) -> base.Capabilities:
        self._count("probe", "")
        return self._inner.probe()

    def close(self) -> None:
        self._inner.close()

    def asked_for(self, prefix: str) -> int:
        """How many listings of names that begin so."""
        return sum(count for about, count in self.listed.items() if about.startswith(prefix))

    def _count(self, verb: str, name: str) -> None:
        with self._lock:
            self.calls[verb] += 1
        self.before(verb, name)


class Home:
    """One device below `room`. Sources are `chat` and those of `more`, below `sources` if that is given; providers are
    folders.

    Attributes:
        stores: by provider, the one that engines opened here get.
        seconds: the clock of the engine.
    """

    def __init__(
        self,
        room: Path,
        providers: tuple[str, ...] = ("one", "two"),
        more: tuple[str, ...] = (),
        sources: Path | None = None,
    ) -> None:
        self.room = room
        self.sources = sources or room
        self.seconds = 1000.0
        self.recovery = generate()
        for name in ("chat", *more):
            (self.sources / name).mkdir()
        folders = [FolderProvider(name, room / name, create=True) for name in providers]
        made = create_vault(folders, [Way(RecoveryMethod(self.recovery), "paper")], 1)
        self.config = config_of(room, providers, [self.sources / name for name in ("chat", *more)])
        self.config.state_dir.mkdir(mode=0o700)
        made.credential.save(self.config.state_dir / CREDENTIAL)
        self.device_id = made.credential.device_id
        made.credential.wipe()
        self.stores = {name: Counting(name, room / name) for name in providers}

    @property
    def source(self) -> Path:
        """The directory of the source `chat`."""
        return self.sources / "chat"

    def terms(self, **changes: Any) -> Terms:
        """Bounded snapshots of 1 MiB; nothing is tried twice."""
        pace = Pace(threads=1, patience=Patience(attempts=1))
        return dataclasses.replace(Terms(budget=MIB, pace=pace, now=lambda: self.seconds), **changes)

    def limit(self, size: int) -> None:
        """So much may wait."""
        self.config = dataclasses.replace(self.config, outbox=OutboxConfig(Size(size)))

    def open_for_real(self, **changes: Any) -> Engine:
        """An engine that works with the folders as they are configured."""
        return Engine.open(self.config, self.terms(**changes))

    def open(self, **changes: Any) -> Engine:
        """An engine that works with `stores`."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registry, "open_provider", lambda config, **_: self.stores[config.name])
            return Engine.open(self.config, self.terms(**changes))

    def forget_calls(self) -> None:
        """Counts from here."""
        for store in self.stores.values():
            store.calls.clear()

    def calls(self) -> Counter[str]:
        """Of all providers together."""
        return sum((store.calls for store in self.stores.values()), Counter())

    def write(self, name: str, size: int, seed: int = 0, *, source: str = "chat", age: float = 0.0) -> None:
        """A file that cannot be compressed, so many seconds old."""
        path = self.sources / source / name
        path.write_bytes(random.Random(f"{seed} {name}").randbytes(size))
        then = path.stat().st_mtime - age
        os.utime(path, (then, then))

    def rotate(self, *, remove: Sequence[bytes] = ()) -> None:
        """New keys, without these devices."""
        folders = [FolderProvider(name, self.room / name) for name in self.stores]
        method = RecoveryMethod(self.recovery)
        with unlock_newest(folders, folders[0], method, None).enrolment as enrolment:
            rotate(folders, enrolment, plan_rotation(folders, enrolment.vault, remove_devices=remove))

    def reader(self, provider: str = "one") -> VaultReader:
        """The vault, from one folder and the recovery key alone."""
        return reader_of(self.room / provider, self.recovery)

    def snapshots(self, provider: str = "one", source: str = "chat") -> list[Snapshot]:
        """Those of a source, newest first, of every chain; the chains must be flawless."""
        reader = self.reader(provider)
        found = []
        for stream in reader.streams():
            chain = reader.chain(stream)
            assert list(chain.findings) == []
            found += [one for one in reader.snapshots(chain) if one.manifest.source_name == source]
        return sorted(found, key=lambda one: (one.manifest.time, one.header.seq), reverse=True)

    def restore(self, target: str, snapshot: Snapshot | None = None, provider: str = "one") -> Path:
        """A snapshot, the newest of `chat`, in a directory of this name."""
        reader = self.reader(provider)
        snapshot = snapshot or self.snapshots(provider)[0]
        where = self.room / target
        restore(reader, snapshot, plan(reader, snapshot), os.fsencode(where), Choices())
        return where


def reader_of(folder: Path, recovery: RecoveryKey) -> VaultReader:
    """The vault that is in a folder."""
    provider = FolderProvider("folder", folder)
    return VaultReader([provider], unlock(provider, RecoveryMethod(recovery)))


def config_of(room: Path, providers: Sequence[str], sources: Sequence[Path]) -> Config:
    """The configuration of a device below `room`."""
    return Config(
        tuple(Source(path, name=path.name) for path in sources),
        tuple(ProviderConfig(name, "folder", FolderOptions(room / name)) for name in providers),
        state_dir=room / "state",
    )
