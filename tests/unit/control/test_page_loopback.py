"""One port on every address of `localhost`, or none: a browser must never find somebody else there."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

import pytest

from chatkeep.daemon.control.ceremony import loopback
from chatkeep.daemon.control.ceremony.loopback import Loopback, listen
from chatkeep.daemon.control.errors import NoLoopbackPort

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def ours() -> Iterator[Loopback]:
    with contextlib.closing(listen()) as found:
        yield found


def test_both_addresses_are_ours_on_one_port(ours: Loopback) -> None:
    assert [each.getsockname()[:2] for each in ours.sockets] == [("127.0.0.1", ours.port), ("::1", ours.port)]
    for address in ("127.0.0.1", "::1"):
        socket.create_connection((address, ours.port), timeout=60).close()


def test_no_socket_lets_others_share_its_port(ours: Loopback) -> None:
    for each in ours.sockets:
        assert each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
        assert each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0


@pytest.mark.parametrize("sharing", [None, socket.SO_REUSEADDR, socket.SO_REUSEPORT])
@pytest.mark.parametrize(("family", "address"), [(V4, "127.0.0.1"), (V4, ""), (V6, "::1"), (V6, "::")])
def test_nobody_gets_the_port_after_us(
    ours: Loopback, family: socket.AddressFamily, address: str, sharing: int | None
) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as squatter:
        if sharing is not None:
            squatter.setsockopt(socket.SOL_SOCKET, sharing, 1)
        with pytest.raises(OSError) as caught:
            squatter.bind((address, ours.port))
        assert caught.value.errno == errno.EADDRINUSE


class Squatted:
    """Has the first so many tries get ports that somebody else listens on, on ::1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, squatter: socket.socket, times: int) -> None:
        self.port = squatter.getsockname()[1]
        self.left = times
        self.given = 0
        self._listen = loopback._listen
        monkeypatch.setattr(loopback, "_listen", self)

    def __call__(self, taken: list[socket.socket], family: socket.AddressFamily, address: str, port: int) -> int:
        if port == 0 and self.left:
            self.left -= 1
            self.given += 1
            port = self.port
        return self._listen(taken, family, address, port)


@pytest.fixture
def squatter() -> Iterator[socket.socket]:
    """At a port that nobody has on 127.0.0.1 either: of one chosen for ::1 alone a program beside this may have it."""
    with contextlib.closing(listen()) as both:
        for each in both.sockets:
            if each.family == V4:
                each.close()
        yield next(each for each in both.sockets if each.family == V6)


def test_a_port_that_somebody_has_on_one_address_is_not_taken_on_the_other(
    monkeypatch: pytest.MonkeyPatch, squatter: socket.socket
) -> None:
    squatted = Squatted(monkeypatch, squatter, times=2)
    with contextlib.closing(listen()) as found:
        assert squatted.given == 2
        assert found.port != squatted.port
        assert len(found.sockets) == 2
    # What was taken of the squatted port was given back.
    with socket.socket(V4, socket.SOCK_STREAM) as free:
        free.bind(("127.0.0.1", squatted.port))


def test_it_is_given_up_when_somebody_is_always_there_first(
    monkeypatch: pytest.MonkeyPatch, squatter: socket.socket
) -> None:
    squatted = Squatted(monkeypatch, squatter, times=100)
    with pytest.raises(NoLoopbackPort) as caught:
        listen(tries=4)
    assert squatted.given == 4
    assert caught.value.params == {"tried": 4, "errno": errno.EADDRINUSE}


class Without6:
    """Sockets of a machine that says this when it is asked for ::1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, *, at_bind: bool) -> None:
        self.said = 0
        real = socket.socket
        without = self

        class Socket(real):  # type: ignore[misc, valid-type]  # a class that is a value
            def __init__(self, family: int = -1, *rest: int) -> None:
                if family == V6 and not at_bind:
                    without.refuse(number)
                super().__init__(family, *rest)

            def bind(self, address: tuple[str, int]) -> None:
                if self.family == V6:
                    without.refuse(number)
                super().bind(address)

        monkeypatch.setattr(socket, "socket", Socket)

    def refuse(self, number: int) -> None:
        self.said += 1
        raise OSError(number, "not here")


@pytest.mark.parametrize(("number", "at_bind"), [(errno.EAFNOSUPPORT, False), (errno.EADDRNOTAVAIL, True)])
def test_a_machine_without_ipv6_has_one_address(monkeypatch: pytest.MonkeyPatch, number: int, at_bind: bool) -> None:
    without = Without6(monkeypatch, number, at_bind=at_bind)
    with contextlib.closing(listen()) as found:
        assert without.said == 1
        assert [each.getsockname() for each in found.sockets] == [("127.0.0.1", found.port)]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EADDRINUSE, errno.ENOBUFS])
def test_ipv6_that_cannot_be_had_for_another_reason_is_not_done_without(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    without = Without6(monkeypatch, number, at_bind=True)
    with pytest.raises(NoLoopbackPort) as caught:
        listen(tries=3)
    assert without.said == 3
    assert caught.value.params["errno"] == number
