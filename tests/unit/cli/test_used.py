"""When a way in was last used here: of use while it is there, and of no harm when it is not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from chatkeep.daemon.cli import used
from chatkeep.daemon.cli.frame import Frame

ONE, TWO = b"\x01" * 16, b"\x02" * 16


def test_the_last_time_counts(tmp_path: Path) -> None:
    before = time.time_ns()
    used.note(tmp_path, ONE)
    os.utime(tmp_path / "used" / ONE.hex(), ns=(1, 1))
    assert used.last(tmp_path, ONE) == 1
    used.note(tmp_path, ONE)
    last = used.last(tmp_path, ONE)
    assert last is not None
    # The clock of a file system ticks more coarsely than the other.
    assert before - 10**9 < last <= time.time_ns()
    assert used.last(tmp_path, TWO) is None


def test_only_this_user_reads_it_and_nothing_is_in_it(tmp_path: Path) -> None:
    used.note(tmp_path, ONE)
    file = tmp_path / "used" / ONE.hex()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert file.read_bytes() == b""


def test_what_was_removed_is_forgotten(tmp_path: Path) -> None:
    used.note(tmp_path, ONE)
    used.note(tmp_path, TWO)
    used.forget(tmp_path, [ONE, b"\x03" * 16])
    assert used.last(tmp_path, ONE) is None
    assert used.last(tmp_path, TWO) is not None


def test_on_a_machine_without_a_state_directory_nothing_is_made(tmp_path: Path) -> None:
    used.note(tmp_path / "none", ONE)
    used.note(None, ONE)
    assert not (tmp_path / "none").exists()
    assert used.last(tmp_path / "none", ONE) is None
    assert used.last(None, ONE) is None


@pytest.mark.parametrize("at", ["used", f"used/{ONE.hex()}"])
def test_a_link_in_the_way_is_not_followed_or_hinders_nobody(tmp_path: Path, at: str) -> None:
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "state" / at
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    used.note(tmp_path / "state", ONE)
    assert not elsewhere.exists()


def test_no_configuration_is_no_place(tmp_path: Path) -> None:
    assert used.state_dir(Frame(tmp_path / "none.yaml")) is None
