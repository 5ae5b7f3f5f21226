"""The process of a session, which holds the keys, and the commands that begin, use and end one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.keys.hardened import harden
from chatkeep.daemon.service.wire import KEYS_LOCKED, NO_CORE, NOT_DUMPABLE
from tests.support.memory_play import Play, expect, gesture, is_ended, is_gone, nothing
from tests.support.memory_scan import Scanner, flags
from tests.support.memory_vault import KINDS, Vault
from tests.support.nobody import as_nobody

SEEDS = {"open 1", "open 2", "checkpoint 2"}
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


@pytest.fixture
def orphans() -> Iterator[None]:
    """Processes that leave their parents become children of this one: it is told how they end."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


@pytest.fixture
def core_files() -> Iterator[None]:
    """Processes that are started may leave core files, as far as this one may."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


@contextlib.contextmanager
def unlocked(vault: Vault, scanner: Scanner, place: Path, kind: str = "recovery") -> Iterator[tuple[Play, int, int]]:
    """A command that has begun a session and knows no key any more; the process of the session, and what it reached."""
    place.mkdir(mode=0o700)
    with Play.scene("handing_over", storage=vault.storage, kind=kind, file=vault.file(kind), place=place) as play:
        if kind == "passkey":
            gesture(play, vault.passkey)
        play.at("unlocked")
        expect(scanner.look(play.pid), vault.held | SEEDS)
        said = play.at("session")
        try:
            yield play, said["pid"], said["hardened"]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(said["pid"], signal.SIGKILL)


@pytest.mark.parametrize("kind", KINDS)
def test_the_keys_are_in_the_session_and_nowhere_else(
    vault: Vault, scanner: Scanner, tmp_path: Path, kind: str
) -> None:
    with unlocked(vault, scanner, tmp_path / "run", kind) as (play, reader, _):
        found = scanner.look(reader)
        expect(found, SEEDS)
        assert not found.names & (vault.certifies | vault.typed | set(vault.of_objects)), found.told()
        nothing(scanner.look(play.pid), scanner)
        assert play.at("locked")["ended"]
        assert is_ended(reader)
        nothing(scanner.look(play.pid), scanner)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_of_the_session_leaves_nothing(
    vault: Vault, scanner: Scanner, tmp_path: Path, orphans: None, core_files: None, number: signal.Signals
) -> None:
    with unlocked(vault, scanner, tmp_path / "run") as (play, reader, _):
        expect(scanner.look(reader), SEEDS)
        os.kill(reader, number)
        ended, status = os.waitpid(reader, 0)
        assert (ended, os.WTERMSIG(status), os.WCOREDUMP(status)) == (reader, number, False)
        assert is_gone(reader)
        nothing(scanner.look(play.pid), scanner)


def test_another_process_would_have_left_a_core_file(tmp_path: Path, core_files: None) -> None:
    """The control of the test above: on this machine a crash is told as one that left its memory behind."""
    process = subprocess.Popen([sys.executable, "-c", "import os; os.abort()"], cwd=tmp_path)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = status
    assert os.WCOREDUMP(status)


def test_it_is_neither_dumped_nor_swapped(vault: Vault, scanner: Scanner, tmp_path: Path) -> None:
    with unlocked(vault, scanner, tmp_path / "run") as (_, reader, reached):
        limits = Path(f"/proc/{reader}/limits").read_text().splitlines()
        assert [line.split()[4:6] for line in limits if line.startswith("Max core file size")] == [["0", "0"]]
        found = scanner.look(reader)
        expect(found, SEEDS)
        seen = flags(reader)
        for hit in found.hits:
            assert {"lo", "dd"} <= seen[hit.region], f"{hit}: {seen[hit.region]}"
        # What it says of itself is what is seen from here.
        assert reached & (NO_CORE | NOT_DUMPABLE | KEYS_LOCKED) == NO_CORE | NOT_DUMPABLE | KEYS_LOCKED


def test_another_process_of_the_same_user_cannot_look_into_it() -> None:
    """Nobody but root can, also not its parent, which could before: that it could is the control."""

    def act() -> None:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            harden()
            os.write(writing, b"hardened")
            signal.pause()
        try:
            assert os.read(reading, 8) == b"hardened"
            with pytest.raises(PermissionError):
                Scanner({"it": b"nothing in particular"}).look(child)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def open_to_its_parent() -> None:
        # A process that changed its user is as closed as one that was hardened, until it is told otherwise.
        assert ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
        it = b"not nothing in particular"
        child = os.fork()
        if child == 0:
            signal.pause()
        try:
            assert Scanner({"it": it}).look(child).names == {"it"}
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        act()

    Scanner({"it": b"the search is built"})
    as_nobody(open_to_its_parent)
