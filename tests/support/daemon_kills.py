"""`chatkeep run`, killed at a durable step while an application goes on writing, and started again."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Final, NamedTuple

from chatkeep.daemon.keys.recovery import parse
from chatkeep.daemon.restore.apply import Choices
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.state.glance import Glance
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from tests.support import committing
from tests.support.engines import reader_of
from tests.support.running import Running, configured
from tests.support.seam import TOP, Event, Kind, read_record
from tests.support.station import Station

STORES: Final = ("one", "two")
Names = dict[str, set[str]]


class SeamStation(Station):
    """A device below `room / "device"`: its state and its two folders, and nothing else that it writes. Its `run` has
    the seam in it."""

    def __init__(self, room: Path, library: Path) -> None:
        (room / "device").mkdir()
        super().__init__(room / "device", STORES)
        self.library, self.record, self.at = library, room / "record", -1
        self.source, self.runtime = room / "chat", room / "runtime"
        self.source.mkdir()
        self.runtime.mkdir(mode=0o700)
        configured(self, "session: {require_unlock: false}")

    def argv(self, *words: object) -> list[str]:
        usual = super().argv(*words)
        if words[0] != "run":
            return usual
        asked = json.dumps({"root": str(self.room), "record": str(self.record), "at": self.at})
        environment = ["env", f"LD_PRELOAD={self.library}", f"PYTHONPATH={TOP}"]
        command = [sys.executable, "-m", "tests.support.killed_daemon", asked]
        return [*environment, *command, *usual[usual.index("--config") :]]


class Left(NamedTuple):
    """What a killed daemon left. Names by provider.

    Attributes:
        received: what it has receipts for.
        begun: what it had begun to put, whole or not, as far as the names were given.
        nameless: objects by provider that had no name yet.
        files: what each object's file was, by its path.
    """

    received: Names
    begun: Names
    nameless: dict[str, int]
    files: dict[Path, tuple[int, int, int]]


class Kills:
    """A device with one snapshot everywhere, to be killed in what follows; and everything that is looked at then."""

    def __init__(self, room: Path, library: Path) -> None:
        self.room = room
        self.station = SeamStation(room, library)
        self.note = room / "count"
        committing.begin(self.station.source)
        self.station.init()
        self.station.backup()
        self.recovery = parse(self.station.key.read_text())
        shutil.copytree(self.station.room, room / "template")

    def count(self) -> int:
        """So many messages are committed at least."""
        return int(self.note.read_text())

    def steps(self) -> int:
        """How many there are from a start until three snapshots of that run are everywhere, or a few more."""
        self._anew()
        self._undisturbed(3)
        return len(read_record(self.station.record, self.station.room))

    def at(self, step: int) -> tuple[str, int]:
        """A kill at a step and everything after it. Returns what the step was, and how many objects were put again."""
        self._anew()
        daemon = self._run(step)
        code = daemon.wait()
        events = read_record(self.station.record, self.station.room)
        try:
            last = events.pop()
            assert (code, last.kind, last.offset) == (-9, Kind.NOTE, step), "it was not killed there"
            left = self._left(events)
            for name in STORES:
                self._acknowledged(daemon, name)
            return last.more.decode(), self._again(left)
        except BaseException as exc:
            raise AssertionError(f"killed at step {step}, after {events[-3:]}; it had told {daemon.lines}") from exc

    def _again(self, left: Left) -> int:
        """The daemon is started again. What must be true then; how many objects it put again."""
        known = self.count()
        daemon = self._undisturbed(2)
        assert [line for line in daemon.lines if line["level"] not in ("info", "debug")] == []
        put = self._put(read_record(self.station.record, self.station.room))
        again = 0
        for name in STORES:
            twice = put[name] & left.received[name]
            assert not twice, f"had arrived at {name}, and that was on record: {twice}"
            repeated = len(put[name] & left.begun[name]) + left.nameless[name]
            assert repeated <= 1, f"{repeated} objects were put again at {name}"
            again += repeated
        assert {path: _file(path) for path in left.files} == left.files, "objects were written anew"
        for name in STORES:
            reader, snapshots = self._snapshots(name)
            assert sorted(snapshots) == list(range(1, len(snapshots) + 1))
            assert self._restored(reader, snapshots[len(snapshots)]) >= known, "that is older than the start"
        return again

    # -- runs -------------------------------------------------------------------------------------------------------

    def _anew(self) -> None:
        shutil.rmtree(self.station.room)
        shutil.copytree(self.room / "template", self.station.room)

    def _run(self, at: int) -> Running:
        self.station.at = at
        return Running(self.station)

    def _undisturbed(self, snapshots: int) -> Running:
        """A run until so many snapshots that it took of its own accord are everywhere."""
        daemon = self._run(-1)
        try:
            taken = int(daemon.logged("snapshot-made", snapshots)["taken_ns"])
            daemon.until(lambda: all((_told(daemon, name) or 0) >= taken for name in STORES))
            assert daemon.end() == 0, daemon.lines
        finally:
            if daemon.process.poll() is None:
                daemon.process.kill()
                daemon.wait()
        return daemon

    # -- what there is ----------------------------------------------------------------------------------------------

    def _left(self, events: list[Event]) -> Left:
        with Glance(self.station.state) as seen:
            received = {name: {about for about, _ in seen.expected(name)} for name in STORES}
        nameless: dict[str, int] = {}
        files: dict[Path, tuple[int, int, int]] = {}
        for name in STORES:
            objects = {_name(text): path for text, path in self.station.objects(name).items()}
            assert received[name] <= set(objects), f"{name} lacks what there are receipts for"
            files |= {objects[about]: _file(objects[about]) for about in received[name]}
            staged = (self.station.storage(name) / ".tmp").iterdir()
            nameless[name] = sum(path.stat().st_nlink == 1 for path in staged)
        return Left(received, self._put(events), nameless, files)

    def _put(self, events: list[Event]) -> Names:
        """The objects that a run put: gave a name to, or found there and synced."""
        found: Names = {}
        for name in STORES:
            objects = self.station.objects(name)
            touched = {
                event.more.decode() if event.kind in (Kind.LINK, Kind.RENAME) else event.path for event in events
            }
            found[name] = {_name(text) for text in objects if f"{name}/{text}" in touched}
        return found

    def _snapshots(self, provider: str) -> tuple[VaultReader, dict[int, Snapshot]]:
        """By number, of the one stream, whose chain must be flawless."""
        reader = reader_of(self.station.storage(provider), self.recovery)
        (stream,) = reader.streams()
        chain = reader.chain(stream)
        assert list(chain.findings) == []
        return reader, {one.header.seq: one for one in reader.snapshots(chain)}

    def _acknowledged(self, daemon: Running, provider: str) -> None:
        """The newest snapshot that a provider was known to have restores, and none that was told of is newer."""
        with Glance(self.station.state) as seen:
            (seq,) = seen.provider(provider).frontiers.values()
        reader, snapshots = self._snapshots(provider)
        self._restored(reader, snapshots[seq])
        told = _told(daemon, provider)
        assert told is None or told <= snapshots[seq].manifest.time, "told of what is not on record"

    def _restored(self, reader: VaultReader, snapshot: Snapshot) -> int:
        """A snapshot restores to a state that was committed; the number of its messages."""
        where = self.room / "restored"
        restore(reader, snapshot, plan(reader, snapshot), os.fsencode(where), Choices())
        count = committing.committed(where)
        shutil.rmtree(where)
        return count


def _told(daemon: Running, provider: str) -> int | None:
    """When the newest snapshot was taken that a run told has arrived at a provider."""
    lines = [line for line in daemon.kinds("upload-done") if line["provider"] == provider]
    return max((line["acknowledged_ns"] for line in lines if line["acknowledged_ns"] is not None), default=None)


def _name(path: str) -> str:
    """The name of an object, from its path below the folder."""
    return re.sub(r"(^|/)p/[0-9a-f]{2}/", r"\1p/", path)


def _file(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
