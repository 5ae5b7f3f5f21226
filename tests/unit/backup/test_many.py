"""Many databases, changing kinds, and interruptions: bounds on what a backup holds, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatkeep.config.model import Source
from chatkeep.daemon.backup import databases
from chatkeep.daemon.backup.run import back_up
from chatkeep.daemon.backup.works import MAX_GROUP
from chatkeep.daemon.backup.writer import Progress, Writer
from chatkeep.daemon.capture import database as capture_database
from chatkeep.daemon.capture.database import DatabaseFile
from chatkeep.daemon.capture.pin import Pinned
from tests.support.sources import Clock, back_and_forth, fill
from tests.support.trees import describe
from tests.support.whole import Device

TOP = Path(__file__).resolve().parents[3]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device.make(tmp_path / "state", Clock())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    return made


@contextlib.contextmanager
def few_descriptors(most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_do_not_grow_with_the_databases(device: Device, source: Path, tmp_path: Path) -> None:
    for number in range(3 * MAX_GROUP):
        fill(source / f"{number}.db", 2, synchronous="OFF")
    used = len(os.listdir("/proc/self/fd"))
    with few_descriptors(used + 4 * MAX_GROUP + 30):
        result = device.back_up(source)
    assert (result.problems, result.pending) == ([], 0)
    _, (newest,) = device.snapshots()
    assert not newest.manifest.group
    back_and_forth(device, source, tmp_path / "target")


def test_what_fits_one_pin_is_of_one_moment(device: Device, source: Path) -> None:
    for number in range(MAX_GROUP):
        fill(source / f"{number}.db", 2, synchronous="OFF")
    device.back_up(source)
    _, (newest,) = device.snapshots()
    assert newest.manifest.group


PEAK = """
import sys
from pathlib import Path
from chatkeep.config.model import Source
from chatkeep.daemon.backup.run import back_up
from chatkeep.daemon.backup.writer import Writer
from tests.support.whole import Device
device = Device.make(Path(sys.argv[2]))
with device.open_state() as state:
    assert back_up(Writer(device.credential, state), Source(Path(sys.argv[1]), name="chat")).snapshots
# Not ru_maxrss: that of a new program begins with what its parent had.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_the_databases(source: Path, tmp_path: Path) -> None:
    for number in range(2 * MAX_GROUP):
        fill(source / f"{number}.db", 2, synchronous="OFF")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, source, tmp_path / "state"], cwd=TOP, capture_output=True, check=True
    )
    assert int(done.stdout) < 150 << 10, "KiB"


def test_one_path_becomes_everything(device: Device, source: Path, tmp_path: Path) -> None:
    path, number = source / "p", 0

    def clear() -> None:
        if path.is_dir() and not path.is_symlink():
            (path / "child").unlink()
            path.rmdir()
        else:
            path.unlink(missing_ok=True)

    def directory() -> None:
        path.mkdir()
        (path / "child").write_text(f"child {number}")

    kinds: dict[str, Callable[[], object]] = {
        "file": lambda: path.write_text(f"file {number} " * 500),
        "database": lambda: fill(path, 60, seed=number),
        "directory": directory,
        "link": lambda: path.symlink_to(f"to {number}"),
        "nothing": lambda: None,
    }
    order = list(kinds)
    for first in order:
        for second in order:
            for kind in (first, second):
                clear()
                kinds[kind]()
                number += 1
                device.back_up(source)
            target = tmp_path / f"t{number}"
            device.restore(target)
            assert describe(target) == describe(source), f"{second} after {first}"


def test_two_databases_swap_their_names(device: Device, source: Path, tmp_path: Path) -> None:
    for name, seed in (("a.db", 1), ("b.db", 2)):
        fill(source / name, 300, seed=seed, journal_mode="WAL")
    device.back_up(source)
    for name, to in (("a.db", "t"), ("b.db", "a.db"), ("t", "b.db")):
        (source / name).rename(source / to)
    swapped = device.back_up(source).snapshots[0]
    assert swapped.new_plaintext < 2000, "the swap was paid for with pages"
    back_and_forth(device, source, tmp_path / "swapped")
    fill(source / "a.db", 3, seed=4)
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")


def test_a_database_replaced_between_scan_and_pin(
    device: Device, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.db", "b.db"):
        fill(source / name, 100)
    device.back_up(source)
    old = describe(source)
    for name in ("a.db", "b.db"):
        fill(source / name, 10, seed=4)
    fill(tmp_path / "new.db", 77, seed=9)
    fired: list[object] = []
    pin_all = capture_database.pin_all

    def late(files: list[DatabaseFile]) -> list[Pinned]:
        if not fired:
            fired.append(1)
            (tmp_path / "new.db").replace(source / "b.db")
        return pin_all(files)

    with monkeypatch.context() as patch:
        patch.setattr(databases, "pin_all", late)
        result = device.back_up(source)
    assert fired
    assert (result.busy, result.pending) == (1, 0)
    report = device.restore(tmp_path / "now")
    assert report.stale == (b"b.db",)
    assert describe(tmp_path / "now")[b"b.db"].content == old[b"b.db"].content
    assert describe(tmp_path / "now")[b"a.db"].content == describe(source)[b"a.db"].content
    device.back_up(source)
    back_and_forth(device, source, tmp_path / "later")


@pytest.mark.parametrize("stage", ["databases", "files"])
def test_interrupted_by_the_keyboard(device: Device, source: Path, tmp_path: Path, stage: str) -> None:
    fill(source / "a.db", 110_000)
    (source / "video").write_bytes(os.urandom(3 << 20))
    fired: list[object] = []

    def interrupt(progress: Progress) -> None:
        if progress.stage == stage:
            fired.append(progress)
            raise KeyboardInterrupt

    with device.open_state() as state:
        with pytest.raises(KeyboardInterrupt):
            back_up(Writer(device.credential, state, clock=device.clock, report=interrupt), Source(source, name="chat"))
        assert fired
        assert os.listdir(state.outbox.staging) == []
    assert not [one.name for one in threading.enumerate() if one.name.startswith(("seal", "finish"))]
    assert device.back_up(source).last_seq == 1
    back_and_forth(device, source, tmp_path / "target")
