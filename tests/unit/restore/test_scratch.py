"""The private place of a drill: nothing of it is left behind, and nothing beside a database is followed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from chatkeep.daemon.restore.errors import TargetUnwritable
from chatkeep.daemon.restore.scratch import PREFIX, Scratch


def filled(top: bytes) -> None:
    os.makedirs(os.path.join(top, b"tree/a/b"))
    for name in (b"tree/plain", b"tree/a/b/deep"):
        Path(os.fsdecode(os.path.join(top, name))).write_bytes(b"PLAINTEXT")
    os.chmod(os.path.join(top, b"tree/a/b"), 0)
    os.chmod(os.path.join(top, b"tree/a"), 0o500)


def test_it_is_private_and_gone_in_the_end(tmp_path: Path) -> None:
    with Scratch(os.fsencode(tmp_path)) as scratch:
        assert stat.S_IMODE(os.stat(scratch.path).st_mode) == 0o700
        filled(scratch.path)
        scratch.clear()
        assert os.listdir(scratch.path) == []
        filled(scratch.path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = f"""if True:
        import os, signal
        from chatkeep.daemon.restore.scratch import Scratch
        scratch = Scratch({os.fsencode(tmp_path)!r})
        open(os.path.join(scratch.path, b"plain"), "wb").write(b"PLAINTEXT")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "plain").read_bytes() == b"PLAINTEXT"
    (tmp_path / "somebody's").mkdir()
    (tmp_path / f"{PREFIX.decode()}file").write_bytes(b"a file")
    with Scratch(os.fsencode(tmp_path)):
        assert not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{PREFIX.decode()}file", "somebody's"]


def test_one_that_is_at_work_is_left_alone(tmp_path: Path) -> None:
    with Scratch(os.fsencode(tmp_path)) as first, Scratch(os.fsencode(tmp_path)) as second:
        filled(first.path)
        assert first.path != second.path
        Scratch(os.fsencode(tmp_path)).close()
        assert os.path.exists(os.path.join(first.path, b"tree/plain"))


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_bytes(b"x")
    place = tmp_path / "place"
    place.mkdir()
    (place / f"{PREFIX.decode()}link").symlink_to(tmp_path / "outside")
    with Scratch(os.fsencode(place)):
        pass
    assert (tmp_path / "outside" / "kept").exists()


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TargetUnwritable):
        Scratch(os.fsencode(tmp_path / "none"))


def test_a_database_is_alone_with_its_journal(tmp_path: Path) -> None:
    with Scratch(os.fsencode(tmp_path)) as scratch:
        tree = Path(os.fsdecode(scratch.path)) / "tree" / "a"
        tree.mkdir(parents=True)
        for name in ("chat.db", "chat.db-journal", "other"):
            (tree / name).write_bytes(name.encode())
        (tree / "chat.db").chmod(0)
        tree.chmod(0o400)
        with scratch.alone(b"tree/a/chat.db") as folder:
            assert sorted(os.listdir(folder)) == [b"db", b"db-journal"]
            assert Path(os.fsdecode(folder), "db").read_bytes() == b"chat.db"
            assert stat.S_IMODE(os.stat(os.path.join(folder, b"db")).st_mode) == 0o600
        assert not os.path.exists(folder)


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
def test_links_beside_a_database_are_not_there_for_sqlite(tmp_path: Path, suffix: str) -> None:
    """SQLite would follow them, and write."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "place").mkdir()
    with Scratch(os.fsencode(tmp_path / "place")) as scratch:
        tree = Path(os.fsdecode(scratch.path)) / "tree"
        tree.mkdir()
        (tree / "db").write_bytes(b"x")
        (tree / f"db{suffix}").symlink_to(victim)
        with scratch.alone(b"tree/db") as folder:
            assert os.listdir(folder) == [b"db"]
    assert victim.read_bytes() == b"mine"
