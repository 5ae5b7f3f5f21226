"""A session from its beginning to its end, with the real process that holds the keys."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from chatkeep.daemon.keys.errors import Unsealable
from chatkeep.daemon.keys.seeds import ReadingSeeds
from chatkeep.daemon.service import places, session
from chatkeep.daemon.service.asking import Session, present
from chatkeep.daemon.service.errors import ReaderFailed
from chatkeep.daemon.service.places import lock_name, socket_name
from chatkeep.daemon.service.wire import ALL_LOCKED, KEYS_LOCKED, NO_CORE, NOT_DUMPABLE, READY, READY_HELLO
from chatkeep.daemon.vault.errors import UnknownKey, VaultLocked
from tests.support.running_out import in_time
from tests.support.sessions import Vault, ask, ended

_PR_CAPBSET_DROP = 24  # <linux/prctl.h>


def found(vault: Vault, runtime: Path) -> Session:
    there = session.find(vault.id, runtime)
    assert there is not None
    return there


def test_it_opens_what_the_vault_holds_until_it_is_locked(vault: Vault, runtime: Path) -> None:
    before = time.time_ns()
    about = vault.begin(runtime)
    assert (about.facts.vault_id, about.facts.head, about.facts.label) == (vault.id, vault.head, "paper")
    assert before <= about.facts.since <= time.time_ns()
    with found(vault, runtime) as there:
        assert ask(there, vault.pack()) == b"k" * 48
        assert ask(there, vault.manifest(1)) == b"k" * 32
        assert (there.ask().opened, there.ask().signed) == (2, 0)
        assert present(runtime) == [vault.id]
        with ended(there.pid):
            assert session.lock(vault.id, runtime)
        with pytest.raises(VaultLocked) as caught:
            ask(there, vault.pack())
        assert caught.value.params["reason"] == "ended"
        with pytest.raises(VaultLocked):
            there.ask()
    assert session.find(vault.id, runtime) is None
    assert not session.lock(vault.id, runtime)
    assert present(runtime) == []


def test_keys_that_were_handed_over_are_wiped(vault: Vault, runtime: Path) -> None:
    seeds = ReadingSeeds.of(vault.epochs)
    assert any(seeds.open[0])
    session.start(session.SessionKeys(vault.facts(), seeds), runtime)
    assert not any(any(seed) for seed in (*seeds.open, seeds.checkpoint))


def test_what_does_not_open_is_told_as_by_a_key(vault: Vault, runtime: Path) -> None:
    vault.begin(runtime)
    stranger = Vault()
    with found(vault, runtime) as there:
        asked = vault.pack()
        with pytest.raises(Unsealable):
            ask(there, asked._replace(sealed=bytes(len(asked.sealed))))
        with pytest.raises(Unsealable):
            ask(there, stranger.pack())  # of another vault: refused
        with pytest.raises(UnknownKey):
            ask(there, Vault.pack(_same(vault, stranger)))
        assert ask(there, asked) == b"k" * 48


def _same(vault: Vault, other: Vault) -> Vault:
    other.id = vault.id
    return other


def test_only_checkpoints_of_the_vault_are_signed(vault: Vault, runtime: Path) -> None:
    about = vault.begin(runtime)
    key = vault.epochs[-1].checkpoint.public
    assert about.checkpoint == key.raw
    head = b"CKCHKP\0\1" + vault.id + (2).to_bytes(4, "big") + key.key_id
    text = head + os.urandom(3 << 20)  # longer than what is taken at a time
    with found(vault, runtime) as there:
        signature = there.sign(text)
        assert vault.epochs[-1].checkpoint.sign_hashed(b"chatkeep/v1/sig/checkpoint\0", text) == signature
        with pytest.raises(ReaderFailed) as caught:
            there.sign(b"x" + text[1:])
        assert caught.value.params["reason"] == "refused"
        assert there.sign(text) == signature, "the connection is as good as before"
        assert there.ask().signed == 2


def test_many_threads_of_a_command_ask_at_once(vault: Vault, runtime: Path) -> None:
    vault.begin(runtime)
    right: list[bytes] = []
    with found(vault, runtime) as there:

        def act(number: int) -> None:
            asked = [vault.pack(1 + at % 2, bytes([number]) * 48) for at in range(10)]
            right.extend(ask(there, one) for one in asked)

        threads = [threading.Thread(target=act, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(right) == [bytes([number]) * 48 for number in range(4) for _ in range(10)]


# -- the process -------------------------------------------------------------------------------------------------------


def test_the_process_is_kept_to_itself(vault: Vault, runtime: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        about = vault.begin(runtime)
        with found(vault, runtime) as there:
            proc = Path(f"/proc/{there.pid}")
            status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
            limits = (proc / "limits").read_text()
            core = next(line.split() for line in limits.splitlines() if line.startswith("Max core file size"))
            assert core[4:6] == ["0", "0"]
            assert status["Umask"] == "0077"
            assert os.readlink(proc / "cwd") == "/"
            assert os.getsid(there.pid) != os.getsid(0)
            assert int((proc / "stat").read_text().rpartition(") ")[2].split()[1]) != os.getpid(), "nobody's child"
            open_files = {number: os.readlink(proc / "fd" / number) for number in os.listdir(proc / "fd")}
            assert [open_files[number] for number in "012"] == ["/dev/null"] * 3
            others = [text for number, text in open_files.items() if int(number) > 2]
            assert sorted(text.partition(":")[0] for text in others) == sorted(
                [str(runtime), "anon_inode", "socket", "socket"]
            ), "its directory, its socket, this connection: nothing that was inherited"
            assert os.path.realpath(proc / "exe") == os.path.realpath(sys.executable)
            assert b"service.reader" in (proc / "cmdline").read_bytes()
        expected = NO_CORE | NOT_DUMPABLE | KEYS_LOCKED
        assert about.hardened & expected == expected
    finally:
        os.close(reading)
        os.close(writing)


def test_its_keys_are_in_pages_that_are_locked_and_in_no_dump(vault: Vault, runtime: Path) -> None:
    about = vault.begin(runtime)
    with found(vault, runtime) as there:
        smaps = Path(f"/proc/{there.pid}/smaps").read_text()
    flags = [set(line.split()[1:]) for line in smaps.splitlines() if line.startswith("VmFlags:")]
    # proc(5): lo locked, dd not in a dump, wf wiped on fork, wr writable
    assert [one for one in flags if {"lo", "dd", "wf", "wr"} <= one]
    if about.hardened & ALL_LOCKED:
        assert all("lo" in one for one in flags if "wr" in one and "sh" not in one)


def _without_powers(locked: int) -> None:
    """What no process of an ordinary user has, and no more memory to lock than this. For preexec_fn."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for power in range(64):  # more than there are; those that there are not, it refuses
            libc.prctl(_PR_CAPBSET_DROP, power, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (locked, locked))


_ALONE = """
import sys
from pathlib import Path
from chatkeep.daemon.service import session
from tests.support.sessions import Vault, ask
vault, runtime = Vault(), Path(sys.argv[1])
about = vault.begin(runtime)
with session.find(vault.id, runtime) as there:
    assert ask(there, vault.pack()) == b"k" * 48
    try:
        open(f"/proc/{there.pid}/mem", "rb").close()
        print("mem", end=" ")
    except PermissionError:
        pass
assert session.lock(vault.id, runtime)
print(about.hardened)
"""


@pytest.mark.parametrize(
    ("locked", "reached"),
    [(8 << 20, NO_CORE | NOT_DUMPABLE | KEYS_LOCKED), (0, NO_CORE | NOT_DUMPABLE)],
    ids=["as usual", "nothing may be locked"],
)
def test_without_privileges_it_works_and_says_what_it_reached(runtime: Path, locked: int, reached: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(runtime)],
        preexec_fn=lambda: _without_powers(locked),  # no threads at this point
        capture_output=True,
        check=False,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    # Not dumpable: nobody without privileges sees into it, also not this very user.
    assert (done.stdout.split(), done.stderr) == ([str(reached)], "")


# -- its end -----------------------------------------------------------------------------------------------------------


def test_it_ends_by_itself(vault: Vault, runtime: Path) -> None:
    def begun(seconds: float) -> tuple[int, Session]:
        until = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(seconds * 10**9)
        assert vault.begin(runtime, until).facts.until == until
        there = session.find(vault.id, runtime)
        if there is None:
            raise ReaderFailed(reason="start")
        return until, there

    until, there = in_time(begun, 1, ReaderFailed)
    with there, ended(there.pid):
        pass
    assert time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= until
    assert not (runtime / socket_name(vault.id)).exists()
    assert session.find(vault.id, runtime) is None


def test_one_that_is_over_before_it_begins_is_none(vault: Vault, runtime: Path) -> None:
    with pytest.raises(ReaderFailed) as caught:
        vault.begin(runtime, 1)
    assert caught.value.params["reason"] == "start"
    assert session.find(vault.id, runtime) is None


def test_one_in_another_container_is_not_said_to_be_locked(
    vault: Vault, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a process namespace a process has no number, and 0 would be told of it."""
    vault.begin(runtime)
    with monkeypatch.context() as patch:
        patch.setattr(session, "peer", lambda _: (0, os.geteuid()))
        with pytest.raises(ReaderFailed) as caught:
            session.lock(vault.id, runtime)
    assert caught.value.params["reason"] == "running"
    found = session.find(vault.id, runtime)
    assert found is not None
    found.close()


def test_it_ends_when_the_user_logs_out(vault: Vault, runtime: Path) -> None:
    vault.begin(runtime)
    with found(vault, runtime) as there, ended(there.pid):
        shutil.rmtree(runtime)


def test_it_ends_when_its_socket_is_taken_away(vault: Vault, runtime: Path) -> None:
    vault.begin(runtime)
    with found(vault, runtime) as there, ended(there.pid):
        os.unlink(runtime / socket_name(vault.id))
        other = socket.socket(socket.AF_UNIX)
        with other, places.Place.open(runtime) or contextlib.nullcontext() as place:
            assert place is not None
            other.bind(place.reach(socket_name(vault.id)))
    assert (runtime / socket_name(vault.id)).exists(), "what is another's stays"


def test_a_socket_that_a_killed_one_left_is_no_session_and_in_nobodys_way(vault: Vault, runtime: Path) -> None:
    vault.begin(runtime)
    with found(vault, runtime) as there, ended(there.pid):
        os.kill(there.pid, signal.SIGKILL)
    assert (runtime / socket_name(vault.id)).exists()
    assert session.find(vault.id, runtime) is None
    assert not session.lock(vault.id, runtime)
    assert not (runtime / socket_name(vault.id)).exists()
    vault.begin(runtime)
    with found(vault, runtime) as there, ended(there.pid):
        os.kill(there.pid, signal.SIGKILL)
    vault.begin(runtime)
    with found(vault, runtime) as again:
        assert ask(again, vault.pack()) == b"k" * 48


def test_one_that_is_stopped_is_locked_all_the_same(vault: Vault, runtime: Path) -> None:
    vault.begin(runtime)
    with found(vault, runtime) as there, ended(there.pid):
        os.kill(there.pid, signal.SIGSTOP)
        assert session.lock(vault.id, runtime)


def test_one_that_is_stopped_is_not_waited_for_without_end(vault: Vault, runtime: Path) -> None:
    vault.begin(runtime)
    with found(vault, runtime) as there:
        os.kill(there.pid, signal.SIGSTOP)
        try:
            with pytest.raises(ReaderFailed) as caught:
                Session.find(vault.id, runtime, patience=0.05)
        finally:
            os.kill(there.pid, signal.SIGCONT)
    assert caught.value.params["reason"] == "silent"


# -- beginning ---------------------------------------------------------------------------------------------------------


def test_the_newer_takes_the_place_of_the_older(vault: Vault, runtime: Path) -> None:
    vault.begin(runtime)
    with found(vault, runtime) as older:
        with ended(older.pid):
            vault.begin(runtime)
        with pytest.raises(VaultLocked):
            older.ask()
    with found(vault, runtime) as newer:
        assert newer.pid != older.pid
        assert ask(newer, vault.pack()) == b"k" * 48


def test_two_vaults_have_a_session_each(vault: Vault, runtime: Path) -> None:
    other = Vault(1)
    vault.begin(runtime)
    other.begin(runtime)
    assert present(runtime) == sorted([vault.id, other.id])
    with found(other, runtime) as there:
        assert ask(there, other.pack(1)) == b"k" * 48
    assert session.lock(other.id, runtime)
    with found(vault, runtime) as there:
        assert ask(there, vault.pack()) == b"k" * 48


def test_two_unlocks_at_once_make_one_session(vault: Vault, runtime: Path) -> None:
    pids: list[int] = []

    def act() -> None:
        vault.begin(runtime)

    threads = [threading.Thread(target=act) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with found(vault, runtime) as there:
        pids = [there.pid]
    assert _readers() & set(_of(runtime)) == set(pids)


def _readers() -> set[int]:
    """Processes that hold keys."""
    found = set()
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and b"service.reader" in Path(f"/proc/{name}/cmdline").read_bytes():
                found.add(int(name))
    return found


def _of(runtime: Path) -> list[int]:
    """Processes that have this directory open."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            numbers = os.listdir(f"/proc/{name}/fd")
            if any(os.readlink(f"/proc/{name}/fd/{number}") == str(runtime) for number in numbers):
                found.append(int(name))
    return found


def test_one_at_a_time_begins_or_ends_a_session(vault: Vault, runtime: Path) -> None:
    vault.begin(runtime)
    with (runtime / lock_name(vault.id)).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = threading.Thread(target=session.lock, args=(vault.id, runtime))
        waiting.start()
        with found(vault, runtime) as there:
            assert ask(there, vault.pack()) == b"k" * 48
            assert waiting.is_alive()
            with ended(there.pid):
                fcntl.flock(file, fcntl.LOCK_UN)
        waiting.join()


def test_an_unlock_that_is_cut_short_leaves_no_session(
    vault: Vault, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = []

    def cut(*arguments: object) -> bytes:
        ready.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "_receive", cut)
    with pytest.raises(KeyboardInterrupt):
        vault.begin(runtime)
    assert ready
    deadline = time.monotonic() + 180
    while _of(runtime):
        assert time.monotonic() < deadline, "it holds the keys still"
    assert session.find(vault.id, runtime) is None


def test_a_failed_start_leaves_the_session_there_was(
    vault: Vault, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.begin(runtime)
    monkeypatch.setattr(session, "MODULE", "chatkeep.daemon.service.nothing")
    keys = vault.keys()
    with pytest.raises(ReaderFailed) as caught:
        session.start(keys, runtime)
    assert caught.value.params["reason"] == "start"
    assert not any(keys.seeds.checkpoint), "wiped, whatever became of it"
    with found(vault, runtime) as there:
        assert ask(there, vault.pack()) == b"k" * 48


def test_a_program_that_cannot_be_run_is_told(vault: Vault, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(ReaderFailed) as caught:
        vault.begin(runtime)
    assert caught.value.params == {"reason": "start", "errno": errno.ENOENT}


def test_it_takes_no_module_from_where_it_is_started(
    vault: Vault, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "struct.py").write_text("open('sprung', 'w')\nraise SystemExit(9)\n")
    monkeypatch.chdir(trap)
    vault.begin(runtime)
    assert not (trap / "sprung").exists()
    # The trap works: without -P, and there, it is what Python takes.
    assert subprocess.run([sys.executable, "-c", "import struct"], check=False).returncode == 9


def test_long_paths_have_sockets_too(vault: Vault, tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100) / ("e" * 100) / "run"
    directory.parent.mkdir(parents=True)
    assert len(str(directory / socket_name(vault.id))) > 200, "longer than a socket's address"
    vault.begin(directory)
    with found(vault, directory) as there:
        assert ask(there, vault.pack()) == b"k" * 48
    assert session.lock(vault.id, directory)


@pytest.mark.parametrize("told", [b"", b"x", bytes(200), b"CKSESS\0\1" + bytes(200), b"CKSESS\0\1" + b"\xff" * 200])
def test_one_that_is_told_nonsense_ends(told: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = session._spawn(theirs.fileno())
        ours.sendall(told)
        ours.shutdown(socket.SHUT_WR)
        assert process.wait(60) == 0, "what was started leaves the rest to another, and ends"
        answer = ours.recv(READY.size, socket.MSG_WAITALL)
        assert READY.unpack(answer)[0] == READY_HELLO
        with contextlib.suppress(ConnectionResetError):  # it did not read to the end
            assert ours.recv(1) == b"", "the process has ended"


def test_a_directory_that_cannot_be_made_is_told(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReaderFailed) as caught:
        vault.begin(tmp_path / "file" / "run")
    assert caught.value.params["reason"] == "socket"
    assert caught.value.params["errno"] in {errno.ENOTDIR, errno.EEXIST}
