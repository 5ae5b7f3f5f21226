"""Where a session's socket is, and everything there that is not trusted: other users', open ones, links, squatters."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.places import default_state_dir
from chatkeep.daemon.service import asking, places, session
from chatkeep.daemon.service.asking import present
from chatkeep.daemon.service.errors import ReaderFailed, SocketRefused
from chatkeep.daemon.service.places import Place, runtime_directory, socket_name, vault_of
from tests.support.nobody import NOBODY
from tests.support.sessions import Vault, ask, ended, named

ACTS: dict[str, Callable[[Vault, Path], object]] = {
    "find": lambda vault, path: session.find(vault.id, path),
    "lock": lambda vault, path: session.lock(vault.id, path),
    "start": lambda vault, path: vault.begin(path),
    "present": lambda _, path: present(path),
}


@pytest.fixture(params=list(ACTS))
def act(request: pytest.FixtureRequest) -> Callable[[Vault, Path], object]:
    """Each thing that reaches for the directory."""
    return ACTS[request.param]


def refused(act: Callable[[Vault, Path], object], vault: Vault, path: Path, reason: str) -> None:
    with pytest.raises(SocketRefused) as caught:
        act(vault, path)
    assert caught.value.params == {"path": str(path), "reason": reason}


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o770, 0o777, 0o1777])
def test_a_directory_that_others_may_use(
    act: Callable[[Vault, Path], object], vault: Vault, tmp_path: Path, mode: int
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(mode)
    refused(act, vault, directory, "mode")
    assert os.listdir(directory) == [], "nothing was left there"


def test_a_symbolic_link(act: Callable[[Vault, Path], object], vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    refused(act, vault, tmp_path / "run", "symlink")
    assert os.listdir(tmp_path / "real") == []


def test_no_directory_at_all(act: Callable[[Vault, Path], object], vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    refused(act, vault, tmp_path / "run", "kind")


def test_another_users_directory(
    act: Callable[[Vault, Path], object], vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    _give_away(directory, monkeypatch)
    refused(act, vault, directory, "owner")
    assert os.listdir(directory) == []


def _give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is another user's now; where this user cannot give it away, this user becomes another one to the product."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    else:
        us = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: us + 1)


def test_what_is_absent_is_no_session_and_is_made_by_none_but_unlock(vault: Vault, runtime: Path) -> None:
    assert session.find(vault.id, runtime) is None
    assert not session.lock(vault.id, runtime)
    assert present(runtime) == []
    assert not runtime.exists()
    vault.begin(runtime)
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE((runtime / socket_name(vault.id)).stat().st_mode) == 0o600


def test_it_is_made_private_whatever_the_mask_is(vault: Vault, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Place.open(tmp_path / "a" / "run", make=True) as place:  # type: ignore[union-attr]
            assert stat.S_IMODE(os.fstat(place.descriptor).st_mode) == 0o700
    finally:
        os.umask(before)


# -- sockets -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def squatted(vault: Vault, tmp_path: Path) -> Iterator[Path]:
    """A directory of this user, in which another user's process listens at the session's name."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    with ExitStack() as stack:
        yield _squatter(directory / socket_name(vault.id), stack)


def _squatter(path: Path, stack: ExitStack) -> Path:
    """A real process as nobody; it was let in as who we are, so the name in the directory is ours."""
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    named(listener, path)
    reading, writing = os.pipe()
    stop_reading, stop_writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            listener.listen(8)  # from here on it answers for this user: unix(7), SO_PEERCRED
            os.write(writing, b"+")
            os.close(stop_writing)
            os.read(stop_reading, 1)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    os.close(stop_reading)

    def end() -> None:
        os.close(stop_writing)
        os.close(reading)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    stack.callback(end)
    assert os.read(reading, 1) == b"+"
    return path.parent


@pytest.mark.parametrize("name", ["find", "lock", "start"])
def test_a_squatter_is_found_out_before_anything_is_said(
    vault: Vault, squatted: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = squatted / socket_name(vault.id)
    if os.geteuid() != 0:  # it is this user then: the product becomes another one, to whom the name belongs
        real = places.peer
        monkeypatch.setattr(places, "peer", lambda connection: (real(connection)[0], NOBODY))
        monkeypatch.setattr(session, "peer", places.peer)
    with pytest.raises(SocketRefused) as caught:
        ACTS[name](vault, squatted)
    assert caught.value.params == {"path": str(path), "reason": "peer"}


def test_a_socket_of_another_user(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    path = directory / socket_name(vault.id)
    with socket.socket(socket.AF_UNIX) as listener:
        named(listener, path)
        listener.listen(1)
        real = os.stat

        def foreign(*arguments: Any, **named: Any) -> os.stat_result:
            found = real(*arguments, **named)
            fields = list(found)
            fields[4] = found.st_uid + 1
            return os.stat_result(fields)

        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        else:
            monkeypatch.setattr(os, "stat", foreign)
        for act in (session.find, session.lock):
            with pytest.raises(SocketRefused) as caught:
                act(vault.id, directory)
            assert caught.value.params == {"path": str(path), "reason": "owner"}


@pytest.mark.parametrize(("kind", "reason"), [("file", "kind"), ("link", "symlink"), ("fifo", "kind")])
def test_no_socket_at_all(vault: Vault, tmp_path: Path, kind: str, reason: str) -> None:
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    path = directory / socket_name(vault.id)
    if kind == "file":
        path.write_text("")
    elif kind == "link":
        path.symlink_to(tmp_path)
    else:
        os.mkfifo(path)
    with pytest.raises(SocketRefused) as caught:
        session.find(vault.id, directory)
    assert caught.value.params["reason"] == reason


def test_the_session_of_another_vault(vault: Vault, runtime: Path) -> None:
    other = Vault()
    other.begin(runtime)
    os.link(runtime / socket_name(other.id), runtime / socket_name(vault.id))
    with pytest.raises(SocketRefused) as caught:
        session.find(vault.id, runtime)
    assert caught.value.params["reason"] == "vault"
    assert session.lock(vault.id, runtime)


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\0\5hello", b"\1\0\0\0\0", b"\0\xff\xff\xff\xff", b"\0\0\0\0\0"],
)
def test_something_else_that_answers(vault: Vault, tmp_path: Path, said: bytes) -> None:
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    child = 0
    with socket.socket(socket.AF_UNIX) as listener:
        named(listener, directory / socket_name(vault.id))
        listener.listen(1)
        child = os.fork()
        if child == 0:
            connection, _ = listener.accept()
            connection.recv(5)
            connection.sendall(said)
            os._exit(0)
        with pytest.raises(ReaderFailed) as caught:
            session.find(vault.id, directory)
    assert caught.value.params["reason"] == "answer"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_cannot_be_made_a_socket_is_told(vault: Vault, runtime: Path) -> None:
    runtime.mkdir(mode=0o700)
    (runtime / socket_name(vault.id)).mkdir()
    with pytest.raises(SocketRefused):
        vault.begin(runtime)
    (runtime / socket_name(vault.id)).rmdir()
    (runtime / f"{socket_name(vault.id)}.new").mkdir()
    with pytest.raises(ReaderFailed) as caught:
        vault.begin(runtime)
    assert (caught.value.params["reason"], caught.value.params["path"]) == ("socket", str(runtime))
    assert caught.value.params["errno"]


# -- which directory ---------------------------------------------------------------------------------------------------


def test_the_runtime_directory_of_the_login_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory() == tmp_path / "chatkeep"


@pytest.mark.parametrize("base", ["", "relative", "/nonexistent/runtime", "{file}", "{foreign}"])
def test_without_one_it_is_below_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    (tmp_path / "file").write_text("")
    foreign = "/proc/1" if os.geteuid() else str(tmp_path / "foreign")
    if os.geteuid() == 0:
        (tmp_path / "foreign").mkdir()
        os.chown(foreign, NOBODY, NOBODY)
    monkeypatch.setenv("XDG_RUNTIME_DIR", base.format(file=tmp_path / "file", foreign=foreign))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    real = os.stat

    def stat_of(path: Any, *rest: Any, **named: Any) -> os.stat_result:
        if str(path).startswith("/run/user/"):
            raise FileNotFoundError(path)
        return real(path, *rest, **named)

    monkeypatch.setattr(os, "stat", stat_of)
    assert runtime_directory() == default_state_dir() / "run" == tmp_path / "state" / "chatkeep" / "run"


def test_one_that_was_begun_in_another_environment_is_found_and_ended(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From cron, or before the user logged in: without a runtime directory of a login session, which there is now."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "login"))
    (tmp_path / "login").mkdir(mode=0o700)
    before = default_state_dir() / "run"
    assert runtime_directory() == tmp_path / "login" / "chatkeep"
    vault.begin(before)
    assert present() == [vault.id]
    found = session.find(vault.id)
    assert found is not None
    with found, ended(found.pid):
        assert ask(found, vault.pack()) == b"k" * 48
        assert session.lock(vault.id)
    assert session.find(vault.id) is None
    # Nor does it stay beside a new one.
    vault.begin(before)
    older = session.find(vault.id, before)
    assert older is not None
    with older, ended(older.pid):
        session.start(vault.keys())
    assert session.find(vault.id, before) is None
    assert session.lock(vault.id)


@pytest.mark.parametrize("named", [True, False])
def test_a_directory_that_is_refused_keeps_no_session_elsewhere_open(
    named: bool, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "login"))
    (tmp_path / "login").mkdir(mode=0o700)
    before = default_state_dir() / "run"
    vault.begin(before)
    (tmp_path / "login" / "chatkeep").mkdir()
    (tmp_path / "login" / "chatkeep").chmod(0o755)
    found = session.find(vault.id, before)
    assert found is not None
    with found, ended(found.pid), pytest.raises(SocketRefused) as refused:
        session.lock_every([vault.id] if named else None)
    assert refused.value.params["path"] == str(tmp_path / "login" / "chatkeep")
    assert session.find(vault.id, before) is None


def test_a_session_where_there_is_no_login_session(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "runtime_directories", lambda: [tmp_path / "state" / "chatkeep" / "run"])
    for module in (asking, session):
        monkeypatch.setattr(module, "runtime_directories", places.runtime_directories)
    session.start(vault.keys())
    found = session.find(vault.id)
    assert found is not None
    with found:
        assert ask(found, vault.pack()) == b"k" * 48
    assert session.lock(vault.id)


@pytest.mark.parametrize(
    "name", ["", "x.sock", "00" * 16, "00" * 16 + ".lock", "00" * 15 + ".sock", "zz" * 16 + ".sock"]
)
def test_names_that_are_no_sessions(name: str) -> None:
    assert vault_of(name) is None


def test_names_of_sessions(vault: Vault) -> None:
    assert vault_of(socket_name(vault.id)) == vault.id
