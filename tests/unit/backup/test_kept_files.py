"""Ordinary files at the edges of sizes, and changes of attributes alone."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.config.errors import Cancelled
from chatkeep.config.model import Source
from chatkeep.daemon.backup.run import back_up
from chatkeep.daemon.backup.writer import Writer
from tests.support.sources import HOUR, Clock, back_and_forth, database, fill
from tests.support.trees import describe
from tests.support.whole import Device

MIB = 1 << 20


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device.make(tmp_path / "state", Clock())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    return made


def test_sizes_at_the_edges_grow_and_shrink(device: Device, source: Path, tmp_path: Path) -> None:
    body = random.Random(1).randbytes(3 * MIB + 1)
    sizes = [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB, 3 * MIB + 1]
    for turn in range(4):
        for number, _ in enumerate(sizes):
            size = sizes[(number * 3 + turn * 5) % len(sizes)]
            with open(source / str(number), "r+b" if turn else "w+b") as file:
                file.truncate(size)
                file.write(body[:size])
        made = device.back_up(source).snapshots[-1]
        assert made.complete
        back_and_forth(device, source, tmp_path / f"t{turn}")


def test_holes_move(device: Device, source: Path, tmp_path: Path) -> None:
    for turn, (start, size) in enumerate([(5, 20), (0, 20), (19, 20), (0, 0), (3, 4), (30, 31)]):
        with open(source / "sparse", "w+b") as file:
            file.truncate(size * MIB + 77 * turn)
            if size:
                file.seek(start * MIB + 5000)
                file.write(b"x" * 100_000)
        device.back_up(source)
        back_and_forth(device, source, tmp_path / f"t{turn}")


def test_attributes_alone_cost_no_content(device: Device, source: Path, tmp_path: Path) -> None:
    (source / "file").write_bytes(os.urandom(200_000))
    (source / "link").symlink_to("somewhere")
    fill(source / "a.db", 500)
    device.back_up(source)

    def relink() -> None:
        (source / "link").unlink()
        (source / "link").symlink_to("elsewhere")

    changes: list[Callable[[], object]] = [
        lambda: os.setxattr(source / "file", "user.tag", b"new"),
        lambda: (source / "file").chmod(0o600),
        lambda: os.utime(source / "file", ns=(1, 1_500_000_000_000_000_001)),
        lambda: os.utime(source / "a.db", ns=(1, 1_500_000_000_000_000_002)),
        lambda: os.setxattr(source / "a.db", "user.tag", b"new"),
        lambda: (source / "a.db").chmod(0o640),
        relink,
        lambda: os.utime(source / "link", ns=(1, 1_500_000_000_000_000_003), follow_symlinks=False),
    ]
    for number, change in enumerate(changes):
        change()
        result = device.back_up(source)
        assert len(result.snapshots) == 1, f"change {number} was not seen"
        assert result.snapshots[0].new_plaintext < 2000, f"change {number} was paid for with content"
        back_and_forth(device, source, tmp_path / f"t{number}")


def test_a_large_file_goes_on_after_every_interruption(device: Device, source: Path, tmp_path: Path, seed: int) -> None:
    video = source / "video"
    video.write_bytes(random.Random(2).randbytes(9 * MIB + 5))
    dice, stopped = random.Random(seed), 0

    def stop() -> bool:
        return dice.random() < (0.12 if stopped else 0.5)

    for _ in range(100):
        with device.open_state() as state:
            assert state.outbox.recover() == []
            writer = Writer(device.credential, state, clock=device.clock, cancelled=stop, budget=2 * MIB)
            try:
                result = back_up(writer, Source(source, name="chat"))
            except Cancelled:
                stopped += 1
                continue
            finally:
                device.send(state)
            assert result.pending == 0
            break
    assert stopped, "the fault did not fire"
    back_and_forth(device, source, tmp_path / "target")
    with device.open_state() as state:
        assert state.partials(state.stream("chat").stream) == {}


def test_a_half_sealed_file_that_is_deleted_leaves_nothing(device: Device, source: Path, tmp_path: Path) -> None:
    device.budget = 2 * MIB
    (source / "video").write_bytes(random.Random(2).randbytes(5 * MIB))
    with device.open_state() as state:
        asked = []

        def stop() -> bool:
            asked.append(1)
            return bool(state.partials(state.stream("chat").stream))

        writer = Writer(device.credential, state, clock=device.clock, cancelled=stop, budget=2 * MIB)
        with pytest.raises(Cancelled):
            back_up(writer, Source(source, name="chat"))
        assert state.partials(state.stream("chat").stream)
    (source / "video").unlink()
    device.back_up(source)
    with device.open_state() as state:
        assert state.partials(state.stream("chat").stream) == {}
    back_and_forth(device, source, tmp_path / "target")


def test_two_sources_share_a_state_and_nothing_else(device: Device, source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for place, seed in ((source, 1), (other, 2)):
        fill(place / "a.db", 100, seed=seed)
        (place / "file").write_text(f"of {seed}")
    for turn in range(3):
        for place, name in ((source, "one"), (other, "two")):
            fill(place / "a.db", 10, seed=turn)
            device.back_up(place, name=name)
    reader = device.reader()
    found = {}
    for stream in reader.streams():
        chain = reader.chain(stream)
        newest = next(iter(reader.snapshots(chain)))
        found[newest.manifest.source_name] = newest.header.seq
    assert found == {"one": 3, "two": 3}


def test_a_source_with_a_new_name_begins_a_new_stream(device: Device, source: Path) -> None:
    (source / "file").write_text("text")
    assert device.back_up(source, name="old").last_seq == 1
    assert device.back_up(source, name="new").last_seq == 1
    assert len(list(device.reader().streams())) == 2


def test_a_source_behind_a_symbolic_link(device: Device, source: Path, tmp_path: Path) -> None:
    fill(source / "a.db", 100)
    (tmp_path / "link").symlink_to(source)
    device.back_up(tmp_path / "link")
    fill(source / "a.db", 10, seed=2)
    device.back_up(tmp_path / "link")
    back_and_forth(device, source, tmp_path / "target")


def test_layers_of_many_files_fold_into_several_parts(device: Device, source: Path, tmp_path: Path) -> None:
    clock = device.clock
    assert isinstance(clock, Clock)
    for number in range(5000):
        (source / f"{number:05d} {'a long name ' * 18}").write_bytes(b"%d" % number)
    device.back_up(source)
    fold_of = []
    for turn in range(2):
        clock.now += 25 * HOUR
        for number in range(0, 5000, 7 + turn):
            (source / f"{number:05d} {'a long name ' * 18}").write_bytes(b"%d %d" % (turn, number))
        device.back_up(source)
        _, (newest, *_) = device.snapshots()
        fold_of += [len(layer.parts) for layer in newest.manifest.stack if layer.level]
    assert max(fold_of) > 1, "no merged layer was longer than one part"
    back_and_forth(device, source, tmp_path / "target")


def test_clocks_jump_and_every_snapshot_stays(device: Device, source: Path, tmp_path: Path, seed: int) -> None:
    clock = device.clock
    assert isinstance(clock, Clock)
    dice = random.Random(seed)
    seen = {}
    with database(source / "a.db") as db:
        db.execute("CREATE TABLE t(a)")
    for number in range(50):
        with database(source / "a.db") as db:
            db.execute("INSERT INTO t VALUES(?)", (dice.randbytes(50),))
        (source / f"f{number % 5}").write_bytes(dice.randbytes(20))
        result = device.back_up(source)
        seen[result.last_seq] = describe(source)
        clock.now += 60_000_000_000
        if number in (20, 35):
            clock.now += (1 if number == 20 else -2) * 365 * 24 * HOUR
    _, found = device.snapshots()
    times = [one.manifest.time for one in found]
    assert times == sorted(times, reverse=True), "chain time ran backwards"
    assert min(one.manifest.clock - one.manifest.time for one in found) < -300 * 24 * HOUR, "no clock jumped"
    assert max(len(one.manifest.stack) for one in found) <= 120
    for seq in (1, 20, 21, 22, 36, 37, 50):
        device.restore(tmp_path / f"t{seq}", seq)
        assert describe(tmp_path / f"t{seq}") == seen[seq]
