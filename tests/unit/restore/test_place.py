"""The order in which files get their names, and a restore that is cut off before every single one of its steps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.restore.beneath import Beneath
from chatkeep.daemon.restore.errors import TargetInUse
from chatkeep.daemon.restore.staging import PREFIX
from tests.support.restoring import Sample, shape_of, unlock_directories


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("packs"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    unlock_directories(tmp_path)


class Killed(BaseException):
    """The process is gone: nothing catches it, no code of ours runs after it but what closes files."""


class Steps:
    """Counts the steps that change names, and dies before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, watch: Callable[[], None]) -> None:
        self.die_at: int | None = None
        self.count = 0
        self._watch = watch
        for name in ("rename", "link", "symlink", "unlink", "make_directory", "create"):
            monkeypatch.setattr(Beneath, name, self._counted(getattr(Beneath, name)))
        for name in ("rmdir", "unlink"):  # what removes the staging directory
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, step: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **kwargs: object) -> object:
            self._watch()
            if self.count == self.die_at:
                raise Killed
            self.count += 1
            return step(*args, **kwargs)

        return counted


OTHER = b"another database"


def old_target(out: Path) -> None:
    """A directory with another database, its log and journal, and another file."""
    out.mkdir()
    (out / "msg.db").write_bytes(OTHER)
    for suffix in ("-wal", "-shm", "-journal"):
        (out / f"msg.db{suffix}").write_bytes(b"of the other database")
    (out / "empty").write_bytes(b"old")


def watch_database(out: Path, sample: Sample) -> None:
    """At no instant does one version's log or journal lie beside the other version's database."""
    database = out / "msg.db"
    journal = out / "msg.db-journal"
    if not database.exists():
        return
    old = database.read_bytes() == OTHER
    assert old or database.read_bytes() == sample.shape[b"msg.db"][3]
    for suffix in ("-wal", "-shm"):
        assert old or not (out / f"msg.db{suffix}").exists()
    if journal.exists():
        assert (journal.read_bytes() == b"of the other database") == old


@pytest.mark.parametrize("target", ["new", "empty", "existing"])
def test_killed_before_every_step_it_goes_on(
    sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    existing = target == "existing"
    monkeypatch.setattr("chatkeep.daemon.restore.fill._THREADS", 1)  # the same steps each time
    out = place / "out"
    steps = Steps(monkeypatch, lambda: watch_database(out, sample) if existing else None)

    def prepare() -> None:
        with pytest.MonkeyPatch.context() as quiet:
            quiet.setattr(steps, "die_at", None)
            if out.exists():
                unlock_directories(out)
                shutil.rmtree(out)
            if existing:
                old_target(out)
            elif target == "empty":
                out.mkdir()
        steps.count = 0

    prepare()
    sample.restore(out, overwrite=existing)
    total = steps.count
    assert total > 25
    for die_at in range(total):
        prepare()
        steps.die_at = die_at
        with pytest.raises(Killed):
            sample.restore(out, overwrite=existing)
        steps.die_at, steps.count = None, 0
        if target == "new":
            # All or nothing: the target is whole or not there. (Its staging directory may still be.)
            assert not out.exists() or shape_of(out).keys() == sample.shape.keys()
        # Cut off before its very last step, the removal of its empty directory, a restore is over; a repeated one
        # finds the target taken.
        leftover = out / (os.fsdecode(PREFIX) + sample.snapshot.name.sha256.hex()[:12])
        over = out.exists() and shape_of(out).keys() - {os.fsencode(leftover.name)} == sample.shape.keys()
        if existing or not over:
            sample.restore(out, overwrite=existing)
        elif leftover.exists():
            leftover.rmdir()
        found = shape_of(out)
        assert found.keys() == sample.shape.keys(), die_at
        assert {path: facts[-1] for path, facts in found.items() if facts[0] != "directory"} == {
            path: facts[-1] for path, facts in sample.shape.items() if facts[0] != "directory"
        }, die_at
        if existing or not over:
            assert found == sample.shape, die_at


APPLICATION = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode=" + sys.argv[2])
database.execute("CREATE TABLE t (a)")
database.execute("BEGIN IMMEDIATE" if sys.argv[2] == "DELETE" else "SELECT 1")
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_database_that_an_application_has_open_is_not_replaced(sample: Sample, place: Path, mode: str) -> None:
    out = place / "out"
    out.mkdir()
    # Another process: a descriptor that this one closes would take the locks of a connection in it along.
    command = [sys.executable, "-c", APPLICATION, str(out / "msg.db"), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as application:
        assert application.stdout is not None
        assert application.stdout.readline() == "open\n"
        before = (out / "msg.db").read_bytes()
        for paths in (None, [b"msg.db"]):
            with pytest.raises(TargetInUse):
                sample.restore(out, paths, overwrite=True)
        assert (out / "msg.db").read_bytes() == before
        sample.restore(out, [b"media"], overwrite=True)  # the rest of the directory is nobody's business
        application.communicate()
    assert application.returncode == 0
    unlock_directories(out)
    sample.restore(out, overwrite=True)
    assert shape_of(out) == sample.shape
