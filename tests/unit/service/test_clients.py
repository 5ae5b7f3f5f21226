"""Whoever connects to a session: those who send garbage, too much, too slowly, or nothing. Nobody else notices."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.service import reader, session
from chatkeep.daemon.service.asking import Session
from chatkeep.daemon.service.keyring import MOST_OPENING
from chatkeep.daemon.service.places import Place, socket_name
from chatkeep.daemon.service.serving import MOST_CLIENTS, Server
from chatkeep.daemon.service.wire import ABOUT, DONE, FRAME, OPEN, REFUSED, SIGN
from tests.support.nobody import NOBODY, as_nobody
from tests.support.sessions import DEADLINE, Vault, ask


@pytest.fixture
def there(vault: Vault, runtime: Path) -> Iterator[Session]:
    """A client that behaves: it must be served whatever the others do."""
    vault.begin(runtime)
    found = session.find(vault.id, runtime)
    assert found is not None
    with found:
        yield found
        assert ask(found, vault.pack()) == b"k" * 48, "it was served to the end"


def connected(vault: Vault, runtime: Path) -> socket.socket:
    with Place.open(runtime) as place:  # type: ignore[union-attr]
        connection = place.connect(socket_name(vault.id), DEADLINE)
    assert connection is not None
    return connection


def closed(connection: socket.socket) -> bool:
    """Whether the other side closed it, without an answer."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:  # what was sent last was not read any more
        return True


def answer(connection: socket.socket) -> tuple[int, bytes]:
    with connection.makefile("rb") as file:
        status, size = FRAME.unpack(file.read(FRAME.size))
        return status, file.read(size)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 5,
        b"GET / HTTP/1.1\r\n\r\n",
        FRAME.pack(4, 0),
        FRAME.pack(255, 0xFFFFFFFF),
        FRAME.pack(ABOUT, 1) + b"x",
        FRAME.pack(OPEN, MOST_OPENING + 1),
        FRAME.pack(OPEN, 0),
        FRAME.pack(OPEN, 21) + bytes(21),
        FRAME.pack(OPEN, 22) + struct.pack(">I16sH", 1, bytes(16), 1),
        FRAME.pack(SIGN, 0),
        FRAME.pack(SIGN, 0xFFFFFFFF),
        FRAME.pack(SIGN, (64 << 20) - 63),
    ],
)
def test_garbage_closes_its_own_connection(vault: Vault, runtime: Path, there: Session, garbage: bytes) -> None:
    with connected(vault, runtime) as connection:
        connection.sendall(garbage)
        assert closed(connection)


def test_any_garbage(vault: Vault, runtime: Path, there: Session, seed: int) -> None:
    source = random.Random(seed)
    for _ in range(60):
        with connected(vault, runtime) as connection:
            what = source.choice([ABOUT, OPEN, SIGN, source.randrange(256)])
            connection.sendall(FRAME.pack(what, source.randrange(200)) + source.randbytes(source.randrange(400)))
            connection.shutdown(socket.SHUT_WR)
            while True:
                try:
                    if not connection.recv(4096):
                        break
                except ConnectionResetError:
                    break
    assert there.ask().signed == 0


def test_a_request_may_come_byte_by_byte_while_others_are_served(vault: Vault, runtime: Path, there: Session) -> None:
    asked = vault.pack()
    with connected(vault, runtime) as connection:
        raw = asked.encode()
        for byte in FRAME.pack(OPEN, len(raw)) + raw[:-1]:
            connection.send(bytes([byte]))
        assert ask(there, vault.manifest()) == b"k" * 32, "nobody waits for the slow one"
        connection.send(raw[-1:])
        assert answer(connection) == (DONE, b"k" * 48)


def test_who_says_nothing_is_waited_for_by_nobody(vault: Vault, runtime: Path, there: Session) -> None:
    silent = [connected(vault, runtime) for _ in range(20)]
    assert ask(there, vault.pack()) == b"k" * 48
    for connection in silent:
        connection.close()


def test_one_more_than_there_is_room_for_takes_the_place_of_the_most_silent(
    vault: Vault, runtime: Path, there: Session
) -> None:
    silent = [connected(vault, runtime) for _ in range(MOST_CLIENTS - 1)]
    for connection in silent:
        connection.sendall(FRAME.pack(ABOUT, 0))
        assert answer(connection)[0] == DONE, "there is room for all"
    assert there.ask()
    with connected(vault, runtime) as late:
        late.sendall(FRAME.pack(ABOUT, 0))
        assert answer(late)[0] == DONE
    assert closed(silent[0])
    silent[1].sendall(FRAME.pack(ABOUT, 0))
    assert answer(silent[1])[0] == DONE
    for connection in silent:
        connection.close()


def test_who_asks_and_never_reads_is_dropped(vault: Vault, runtime: Path, there: Session) -> None:
    with connected(vault, runtime) as greedy:
        sent = 0
        try:
            while sent < 64 << 20:
                sent += greedy.send(FRAME.pack(ABOUT, 0) * 1000)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sent < 64 << 20, "it was served without end"


def test_several_requests_at_once_are_answered_in_their_order(vault: Vault, runtime: Path, there: Session) -> None:
    asked = [vault.pack(1 + number % 2, bytes([number]) * 48).encode() for number in range(8)]
    with connected(vault, runtime) as connection:
        connection.sendall(b"".join(FRAME.pack(OPEN, len(raw)) + raw for raw in asked))
        assert [answer_of(connection)[1] for _ in asked] == [bytes([number]) * 48 for number in range(8)]


def answer_of(connection: socket.socket) -> tuple[int, bytes]:
    """One answer and not a byte of the next."""

    def exactly(size: int) -> bytes:
        return b"".join(connection.recv(1) for _ in range(size))

    status, size = FRAME.unpack(exactly(FRAME.size))
    return status, exactly(size)


def test_a_refused_text_is_passed_over_and_the_next_request_is_answered(
    vault: Vault, runtime: Path, there: Session
) -> None:
    text = os.urandom(300_000)
    with connected(vault, runtime) as connection:
        connection.sendall(FRAME.pack(SIGN, len(text)) + text + FRAME.pack(ABOUT, 0))
        assert answer_of(connection)[0] == REFUSED
        assert answer_of(connection)[0] == DONE


def test_nobody_makes_it_hold_much(vault: Vault, runtime: Path, there: Session) -> None:
    def peak() -> int:
        lines = Path(f"/proc/{there.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))

    before = peak()
    with connected(vault, runtime) as connection:
        connection.sendall(FRAME.pack(SIGN, 60 << 20))
        for _ in range(60):
            connection.sendall(bytes(1 << 20))
        assert answer_of(connection)[0] == REFUSED
    assert peak() - before < 4 << 10, "kB; what passes through is not kept"


def test_what_is_asked_after_the_end_is_not_answered(vault: Vault, runtime: Path) -> None:
    """The machine slept past the end: what woke the process is a request, and the session is over."""
    times = iter([0, 0, 0, 10])  # twice before and after each wait; it sleeps in the second
    admitted: list[socket.socket] = []

    def admits(connection: socket.socket) -> bool:
        admitted.append(connection)
        return True

    class Ring:
        """No keys at all: nothing may be asked of it."""

    runtime.mkdir()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(runtime / "s"))
        listener.listen(1)
        client.connect(str(runtime / "s"))
        client.sendall(FRAME.pack(ABOUT, 0))
        server = Server(listener, Ring(), vault.facts(until=10), 0, lambda: True, lambda: next(times), admits)  # type: ignore[arg-type]
        server.run()
        assert next(times, None) is None
        admitted[0].close()
        assert closed(client)


def test_it_wakes_up_for_its_end(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not only when it would look around anyway: keys are held for as long as was said, and no longer."""
    half = 5 * 10**8
    times = iter([0, 2 * half, 2 * half, 5 * half])
    waits: list[float] = []
    with socket.socket(socket.AF_UNIX) as listener:
        server = Server(listener, None, vault.facts(until=5 * half), 0, lambda: True, lambda: next(times), bool)  # type: ignore[arg-type]

        def wait(seconds: float) -> list[object]:
            waits.append(seconds)
            return []

        monkeypatch.setattr(server._selector, "select", wait)
        server.run()
    assert waits == [2.0, 1.5]


def test_with_few_descriptors_the_most_silent_goes(vault: Vault, runtime: Path, there: Session) -> None:
    """Whoever is refused a connection for want of descriptors must not keep the process busy for ever."""
    used = len(os.listdir(f"/proc/{there.pid}/fd"))
    resource.prlimit(there.pid, resource.RLIMIT_NOFILE, (used + 3, used + 3))
    silent = [connected(vault, runtime) for _ in range(3)]
    for connection in silent:
        connection.sendall(FRAME.pack(ABOUT, 0))
        assert answer(connection)[0] == DONE
    assert there.ask()
    with connected(vault, runtime) as late:
        late.sendall(FRAME.pack(ABOUT, 0))
        assert answer(late)[0] == DONE
    assert closed(silent[0])
    for connection in silent:
        connection.close()


def test_another_user_is_not_served_even_where_the_directory_lets_them_in(
    vault: Vault, runtime: Path, there: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = runtime / socket_name(vault.id)
    if os.geteuid() != 0:  # there is no other user to be
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert reader._admits(ours)
            monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
            assert not reader._admits(ours)
            monkeypatch.undo()
        return
    runtime.chmod(0o755)
    path.chmod(0o666)

    def act() -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(b"/proc/self/fd/%d/%s" % (directory, path.name.encode()))
            with contextlib.suppress(BrokenPipeError):  # it is closed already
                connection.sendall(FRAME.pack(ABOUT, 0))
            assert closed(connection)

    directory = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY)
    try:
        as_nobody(act)
    finally:
        os.close(directory)
        runtime.chmod(0o700)
