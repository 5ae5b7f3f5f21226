"""The program that the torture of crashes runs with the seam in it: one scene, one fault, every step."""

from __future__ import annotations

import copy
import errno
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.backup import databases, publish, sealing, works
from chatkeep.daemon.state.connection import Connection
from chatkeep.providers import durable
from tests.support import power_cut
from tests.support.crash_scenes import Scene
from tests.support.crash_scenes_vault import SCENES
from tests.support.seam import Event, Fault, Kind, Seam, read_record

PATCH: Final = pytest.MonkeyPatch()


class InTurn:
    """A pool that works at once: the steps of a backup come in one order."""

    def __init__(self, **_: object) -> None:
        pass

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Do it."""
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments))
        except BaseException as exc:
            future.set_exception(exc)
        return future

    def shutdown(self, **_: object) -> None:
        """Nothing waits."""


# -- what a careless change would be ----------------------------------------------------------------------------------


def _nothing(*_: object) -> None:
    pass


def _without_outbox_names() -> None:
    """The names in the outbox are not synced before the commit."""
    sync = durable.fsync_directory

    def careless(path: Path) -> None:
        if path.name != "outbox":
            sync(path)

    PATCH.setattr(durable, "fsync_directory", careless)
    PATCH.setattr(publish, "fsync_directory", careless)


def _without_file_sync() -> None:
    """`durable` gives a name to bytes that it did not sync."""
    real = os.fsync

    class Careless:
        def __getattr__(self, name: str) -> Any:
            return self._fsync if name == "fsync" else getattr(os, name)

        @staticmethod
        def _fsync(descriptor: int) -> None:
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):
                real(descriptor)

    PATCH.setattr(durable, "os", Careless())


def _with_synchronous(level: str) -> Callable[[], None]:
    def change() -> None:
        real = Connection.__init__

        def made(self: Connection, *arguments: Any) -> None:
            real(self, *arguments)
            self._connection.execute(f"PRAGMA synchronous={level}")

        PATCH.setattr(Connection, "__init__", made)

    return change


MUTATIONS: Final[dict[str, Callable[[], None]]] = {
    "": _nothing,
    "no sync of the outbox": _without_outbox_names,
    "no sync in durable": _without_file_sync,
    "synchronous off": _with_synchronous("OFF"),
    "synchronous normal": _with_synchronous("NORMAL"),
}


# -- a fault at every step --------------------------------------------------------------------------------------------


def at_every_step(scene: Scene, seam: Seam, fault: Fault, error: int, thin: bool) -> dict[str, Any]:
    """The work, again and again, with the fault at each step in turn; then what must be true."""
    _, events = recorded(scene, seam)
    steps = [event for event in events if event.kind != Kind.NOTE]
    chosen = [at for at in range(len(steps)) if not thin or not _amid(steps, at)]
    if fault in (Fault.SHORT, Fault.TORN):  # numbered among the writes
        writes = [at for at, event in enumerate(steps) if event.kind == Kind.WRITE]
        chosen = [number for number, at in enumerate(writes) if at in chosen]
    fired: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    looked: set[bytes] = set()
    for at in chosen:
        scene.reset()
        outcome, what = _killed(scene, seam, at) if fault is Fault.KILL else _refused(scene, seam, at, fault, error)
        if not what:
            # A folder that was there already, by chance: its name is the beginning of a hash.
            assert at >= chosen[-1] - 12, f"step {at} of {len(steps)} was not reached"
            continue
        fired[what.partition(" ")[0]] += 1
        outcomes[outcome] += 1
        digest = _digest(scene.root)
        if digest not in looked:
            looked.add(digest)
            _check(scene, f"{fault.name} at step {at}: {what}: {outcome}", ())
    return {
        "steps": len(steps),
        "tried": fired.total(),
        "looked": len(looked),
        "fired": dict(fired),
        "outcomes": dict(outcomes),
    }


def _amid(steps: Sequence[Event], at: int) -> bool:
    """In the middle of a row of writes to one file: as the first and the last of them."""
    near = steps[max(0, at - 1) : at + 2]
    return len(near) == 3 and len({(event.kind, event.path) for event in near}) == 1 and near[1].kind == Kind.WRITE


def _killed(scene: Scene, seam: Seam, at: int) -> tuple[str, str]:
    pid = os.fork()
    if pid == 0:
        try:
            seam.begin(scene.root, None, at, Fault.KILL)
            scene.work(_nothing)
        finally:
            os._exit(7)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed", "kill"
    assert os.WEXITSTATUS(status) == 7
    return "", ""


def _refused(scene: Scene, seam: Seam, at: int, fault: Fault, error: int) -> tuple[str, str]:
    outcome = "done"
    seam.begin(scene.root, None, at, fault, error)
    try:
        scene.work(_nothing)
    except ChatkeepError as exc:
        outcome = exc.code
        # Half a write is no failure: who takes it for one, or for a whole one, is wrong.
        if fault is Fault.SHORT:
            raise
    finally:
        seam.end()
    return outcome, seam.fired()


def _digest(root: Path) -> bytes:
    disk = power_cut.Disk(root)
    return power_cut.digest_of(disk.image(power_cut.KEPT), power_cut.KEPT)


# -- a power cut at every step ----------------------------------------------------------------------------------------


def recorded(scene: Scene, seam: Seam) -> tuple[power_cut.Disk, list[Event]]:
    """The disk before the work, and its steps; with proof that they are all there are."""
    scene.reset()
    before = power_cut.Disk(scene.root)
    after = copy.deepcopy(before)
    seam.begin(scene.root, scene.room / "record")
    try:
        scene.work(seam.note)
    finally:
        seam.end()
    events = read_record(scene.room / "record", scene.root)
    for event in events:
        after.play(event)
    rebuilt = {
        path: None if node.is_directory else node.content("kept") for path, node in after.image(power_cut.KEPT).items()
    }
    assert rebuilt == power_cut.tree_of(scene.root), "the seam misses a way of writing"
    return before, events


def after_every_cut(scene: Scene, seam: Seam, variants: Sequence[power_cut.Variant], thin: bool) -> dict[str, Any]:
    """The work once, and every disk that a power cut could have left."""
    disk, events = recorded(scene, seam)
    looked: set[tuple[bytes, tuple[str, ...]]] = set()
    cuts = 0
    for number, variant, image in power_cut.cuts(disk, events, variants):
        if thin and 0 < number < len(events) and _amid(events, number - 1):
            continue
        cuts += 1
        told = tuple(event.path for event in events[:number] if event.kind == Kind.NOTE)
        key = power_cut.digest_of(image, variant), told
        if key in looked:
            continue
        looked.add(key)
        power_cut.write_image(image, variant, scene.root)
        scene.reset_source()
        last = next((f"{event.kind.name} {event.path}" for event in reversed(events[:number])), "nothing")
        _check(scene, f"cut {number} of {len(events)}, after {last}; {variant}", told)
    steps = sum(event.kind != Kind.NOTE for event in events)
    kinds = Counter(event.kind.name.lower() for event in events if event.kind != Kind.NOTE)
    return {"steps": steps, "tried": cuts, "looked": len(looked), "fired": dict(kinds)}


class Violated(Exception):
    """What must be true is not, and where."""


def _check(scene: Scene, where: str, told: tuple[str, ...]) -> None:
    try:
        scene.check(told)
    except Exception as exc:
        raise Violated(where) from exc


def main() -> None:
    """Arguments as JSON: scene, room, fault, and what goes with it. Prints counts, or the violation, as JSON."""
    asked = json.loads(sys.argv[1])
    PATCH.setattr(sealing, "ThreadPoolExecutor", InTurn)
    for module, name in ((databases, "ROOM"), (works, "ROOM"), (works, "LOG_ROOM")):
        PATCH.setattr(module, name, 1 << 20)  # enough for a scene: hundreds are made and thrown away
    seam = Seam()
    scene = SCENES[asked["scene"]](Path(asked["room"]))
    MUTATIONS[asked.get("mutation", "")]()
    try:
        if asked["fault"] == "CUT":
            variants = power_cut.MORE_VARIANTS if asked.get("long") else power_cut.VARIANTS[: asked.get("variants")]
            found = after_every_cut(scene, seam, variants, not asked.get("long"))
        else:
            error = getattr(errno, asked.get("error") or "EIO")
            found = at_every_step(scene, seam, Fault[asked["fault"]], error, not asked.get("long"))
    except Violated as exc:
        if not asked.get("mutation"):
            raise
        found = {"violated": str(exc), "by": repr(exc.__cause__)}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
