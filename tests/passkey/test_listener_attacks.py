"""What other programs and other users of the machine try on the page's server: the real process of a ceremony."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from chatkeep.daemon.control.ceremony.client import ChildCeremony
from chatkeep.daemon.control.ceremony.events import PageOpened, Refused
from chatkeep.daemon.control.ceremony.server import REQUEST_SECONDS
from chatkeep.daemon.keys.passkey import NewCredential
from tests.support.chromium import Tab
from tests.support.nobody import as_nobody
from tests.support.page_client import call, honest, request, visit
from tests.support.rehearsal import Rehearsal
from tests.support.visitor import Visitor

Enrolling = Rehearsal[NewCredential]
ADDRESSES = (
    ("127.0.0.1", socket.AF_INET),
    ("0.0.0.0", socket.AF_INET),  # noqa: S104 - refused
    ("::1", socket.AF_INET6),
    ("::", socket.AF_INET6),
)


def enrol(ceremony: ChildCeremony) -> NewCredential:
    return ceremony.enrol(())


@pytest.fixture
def served() -> Iterator[Enrolling]:
    """A page that nobody has opened yet."""
    with Rehearsal(enrol) as served:
        yield served
        served.abandon()


def opened(served: Enrolling) -> bool:
    return any(isinstance(event, PageOpened) for event in served.told)


def bound(port: int) -> dict[str, int]:
    """How each attempt to listen on this port ended, by address and by what was said to share it: 0, or an errno."""
    found = {}
    for address, family in ADDRESSES:
        for name in ("", "SO_REUSEADDR", "SO_REUSEPORT"):
            with socket.socket(family, socket.SOCK_STREAM) as squatter:
                if name:
                    squatter.setsockopt(socket.SOL_SOCKET, getattr(socket, name), 1)
                try:
                    squatter.bind((address, port))
                    squatter.listen()
                    found[f"{address} {name}"] = 0
                except OSError as error:
                    found[f"{address} {name}"] = error.errno or -1
    return found


def test_no_other_program_can_listen_at_its_port(served: Enrolling) -> None:
    tried = bound(served.port)
    assert len(tried) == 12
    assert set(tried.values()) == {errno.EADDRINUSE}


def test_when_it_is_over_the_port_is_free_again() -> None:
    with Rehearsal(enrol) as served:
        port = served.port
        served.abandon()
        served.ceremony._process.wait(60)
    assert set(bound(port).values()) == {0}


# In a network of its own, whose kernel gives out three ports; a squatter sits on some of them at [::1].
SQUATTED = """
import fcntl, pathlib, socket, struct, sys
with socket.socket() as any:
    fcntl.ioctl(any, 0x8914, struct.pack("16sh22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP: netdevice(7)
pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("47001 47003")
from chatkeep.daemon.control.ceremony.client import ChildCeremony
from chatkeep.daemon.control.ceremony.events import Ready
from chatkeep.daemon.control.errors import NoLoopbackPort
squatters = []
for port in map(int, sys.argv[1:]):
    squatters.append(socket.create_server(("::1", port), family=socket.AF_INET6))
def tell(event):
    if isinstance(event, Ready):
        print(event.url.split(":")[2].split("/")[0])
        raise KeyboardInterrupt
try:
    with ChildCeremony("browser", vault="v", user="u", steps=3, tell=tell, open_browser=False) as ceremony:
        ceremony.enrol(())
except NoLoopbackPort as error:
    print(error.code)
except Exception as error:
    assert type(error).__name__ == "CeremonyCancelled", error
"""


@pytest.mark.parametrize(
    ("squatted", "found"), [([47001, 47002, 47003], "no-loopback-port"), ([47001, 47003], "47002"), ([], "4700")]
)
def test_a_port_that_somebody_else_has_at_the_other_address_is_not_used(squatted: list[int], found: str) -> None:
    apart = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    words = [*apart, sys.executable, "-c", SQUATTED, *map(str, squatted)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(found)


def cut(act: Callable[[], object]) -> None:
    """The connection is closed without an answer."""
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        act()


if os.geteuid() == 0:  # only root can be somebody else

    @pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
    def test_another_user_who_has_the_link(served: Enrolling, address: str, tab: Tab) -> None:
        port, headers = served.port, honest(served.port, served.token)
        as_nobody(lambda: cut(lambda: call(port, "begin", headers, address=address)))
        as_nobody(lambda: cut(lambda: request(port, "GET", "/", visit(port), address=address)))
        assert served.event(Refused).reason == "user"
        assert not opened(served)
        assert request(port, "GET", "/", visit(port), address=address).status == 200
        assert call(port, "begin", headers, address=address).status == 200  # the same words, from the link's owner
        assert served.event(PageOpened)

    def test_another_user_holds_connections_open(served: Enrolling, tab: Tab) -> None:
        """Far more than the server keeps: it keeps none of them."""
        port = served.port

        def hold() -> None:
            with ExitStack() as stack:
                for _ in range(200):
                    held = stack.enter_context(socket.create_connection(("localhost", port)))
                    held.settimeout(60)
                    assert held.recv(1) == b""

        as_nobody(hold)
        assert served.event(Refused).reason == "user"
        Visitor(tab).visit(served.ready.url)


def kept(held: socket.socket) -> bool:
    """Whether the server still waits for more of this one."""
    held.setblocking(False)
    try:
        held.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def test_slow_clients_hold_nothing_up(served: Enrolling, tab: Tab) -> None:
    """Some stop in the head of a request, some in its body. All are still waited for when the page opens."""
    tab.authenticator()
    lines = [f"{name}: {value}" for name, value in honest(served.port, served.token).items()]
    head = "\r\n".join(["POST /api/begin HTTP/1.1", *lines, "Content-Length: 60000", "", "{"]).encode()
    with ExitStack() as stack:
        began = time.monotonic()
        slow = [stack.enter_context(socket.create_connection(("localhost", served.port))) for _ in range(20)]
        for number, each in enumerate(slow):
            each.sendall(head if number % 2 else head[: 1 + number * 7])
        Visitor(tab).visit(served.ready.url)
        assert all(kept(each) for each in slow) or time.monotonic() - began > REQUEST_SECONDS
        Visitor(tab).presses("done")
        assert served.result().credential
