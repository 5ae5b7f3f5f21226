"""Whose a connection is, as the kernel has it: with real sockets, and a real other user where there can be one."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from chatkeep.daemon.control.ceremony import peers
from chatkeep.daemon.control.ceremony.peers import owner
from tests.support.other_user import connected_as_another


@contextlib.contextmanager
def listening(family: socket.AddressFamily, address: str) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as found:
        found.bind((address, 0))
        found.listen()
        found.settimeout(60)
        yield found


def accepted(listener: socket.socket) -> tuple[socket.socket, tuple[str, int], tuple[str, int]]:
    connection, peer = listener.accept()
    return connection, peer[:2], connection.getsockname()[:2]


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_our_own_connection(family: socket.AddressFamily, address: str) -> None:
    with listening(family, address) as listener, socket.create_connection(listener.getsockname()[:2]):
        connection, peer, ours = accepted(listener)
        with connection:
            assert owner(peer, ours) == os.geteuid()
            assert owner(ours, peer) == os.geteuid()  # the two ends are told apart by their order


def test_a_connection_to_ipv4_by_a_socket_of_ipv6() -> None:
    with listening(socket.AF_INET, "127.0.0.1") as listener, socket.socket(socket.AF_INET6) as mapped:
        mapped.connect(("::ffff:127.0.0.1", listener.getsockname()[1]))
        connection, peer, ours = accepted(listener)
        with connection:
            assert owner(peer, ours) == os.geteuid()


def test_a_socket_that_is_closed_has_no_owner() -> None:
    # The kernel lists what is left of it as root's, whosever it was.
    with listening(socket.AF_INET, "127.0.0.1") as listener:
        socket.create_connection(listener.getsockname()).close()
        connection, peer, ours = accepted(listener)
        with connection:
            assert owner(peer, ours) is None


def test_a_connection_that_there_is_not() -> None:
    assert owner(("127.0.0.1", 1), ("127.0.0.1", 2)) is None


def test_tables_that_cannot_be_read_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "TABLES", ("/nonexistent/tcp",))
    with listening(socket.AF_INET, "127.0.0.1") as listener, socket.create_connection(listener.getsockname()):
        connection, peer, ours = accepted(listener)
        with connection:
            assert owner(peer, ours) is None


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_connection_of_another_user(family: socket.AddressFamily, address: str) -> None:
    with listening(family, address) as listener, connected_as_another(listener.getsockname()[:2]) as user:
        connection, peer, ours = accepted(listener)
        with connection:
            assert owner(peer, ours) == user
