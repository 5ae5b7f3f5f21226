"""A connection that another user of this machine holds open: a second process, which is nobody if we are root."""

from __future__ import annotations

import contextlib
import os
import socket
import traceback
from collections.abc import Iterator

from tests.support.nobody import NOBODY


@contextlib.contextmanager
def connected_as_another(place: tuple[str, int], first: bytes = b"") -> Iterator[int]:
    """Within the block, a process of the user id that is yielded is connected to `place`, and has sent `first`.

    Only root can become somebody else: for another user it is our own id, and the test has to take itself for another.
    """
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    reading, writing = os.pipe()
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        _connect(place, first, user, (reading, writing), (told, telling))
    os.close(reading)
    os.close(telling)
    try:
        said = os.read(told, 1 << 16)
        assert said == b"c", f"the other user's process did not connect: {said.decode()}"
        yield user
    finally:
        os.close(writing)
        os.close(told)
        os.waitpid(child, 0)


def _connect(place: tuple[str, int], first: bytes, user: int, held: tuple[int, int], told: tuple[int, int]) -> None:
    try:
        os.close(held[1])
        os.close(told[0])
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        with socket.create_connection(place, timeout=60) as connection:
            with contextlib.suppress(OSError):  # turned away before it could say anything
                connection.sendall(first)
            os.write(told[1], b"c")
            os.read(held[0], 1)  # until the block is left
    except BaseException:  # whatever it is, the child must not return into the test run
        os.write(told[1], traceback.format_exc().encode())
    finally:
        os._exit(0)
