"""Runs a piece of a test without privileges: for root, permissions refuse nothing."""

from __future__ import annotations

import codecs
import os
import traceback
from collections.abc import Callable

NOBODY = 65534
SEARCH = 0o111

codecs.lookup("idna")  # what connects to a host by name loads it, and nobody may not read where root has its Python


def as_nobody(act: Callable[[], None], *reachable: bytes) -> None:
    """Runs `act` in a child that is not root, and fails with its traceback if it fails.

    `reachable`: directories handed over to that user; what holds them becomes searchable, since pytest's own are
    private.
    """
    if os.geteuid() != 0:
        act()
        return
    for path in reachable:
        _open_the_way(path)
        os.chown(path, NOBODY, NOBODY)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _run(act, writing)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise AssertionError(f"in the child without privileges:\n{said}")


def _run(act: Callable[[], None], writing: int) -> None:
    code = 1
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        act()
        code = 0
    except BaseException:  # whatever it is, the child must not return into the test run
        os.write(writing, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _open_the_way(path: bytes) -> None:
    while path not in (b"/", b""):
        path = os.path.dirname(path)
        facts = os.stat(path)
        if facts.st_uid == os.geteuid() and not facts.st_mode & 0o001:
            os.chmod(path, facts.st_mode | SEARCH)
