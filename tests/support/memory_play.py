"""Plays scenes of `memory_child`, and real commands, up to the points where their memory is looked at."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.support.memory_scan import TALLY, Found, Scanner
from tests.support.memory_vault import Vault
from tests.support.seam import TOP
from tests.support.soft_passkey import SoftPage, SoftPasskey

DEADLINE: Final = 180.0  # seconds; what is waited for comes within one
HOARD: Final = Path(__file__).with_name("memory_hoard.c")


class Play:
    """A process that stops at points. Ended when the block is left, whatever it does."""

    def __init__(self, argv: list[str], environment: dict[str, str], *, pass_fds: tuple[int, ...] = ()) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        self._process = subprocess.Popen(argv, cwd=TOP, env=environment, pass_fds=pass_fds, **pipes)
        self._said = b""
        self._waits = False

    @classmethod
    def scene(cls, scene: str, hoard: Path | None = None, pass_fds: tuple[int, ...] = (), **said: object) -> Self:
        """A scene of `memory_child`. `hoard`: a library of `build_hoard`."""
        environment = {**os.environ, "PYTHONPATH": str(TOP)}
        if hoard is not None:
            environment |= {"LD_PRELOAD": str(hoard), "PYTHONMALLOC": "malloc"}
        argv = [sys.executable, "-P", "-W", "error", "-m", "tests.support.memory_child"]
        return cls([*argv, json.dumps({"scene": scene, **said}, default=str)], environment, pass_fds=pass_fds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def at(self, point: str) -> dict[str, Any]:
        """Waits until it stops at this point, which must be the next; what it says there."""
        said = self.hear("point")
        assert said["point"] == point, said
        return said

    def hear(self, key: str) -> dict[str, Any]:
        """Goes on to the next thing it says, which must have this key."""
        if self._waits:
            self._waits = False
            assert self._process.stdin is not None
            self._process.stdin.write(b"\n")
        said: dict[str, Any] = json.loads(self._line())
        assert key in said, said
        self._waits = key == "point"
        return said

    def ends(self, code: int = 0) -> None:
        """Goes on to the end."""
        self._process.communicate(b"\n" if self._waits else b"", timeout=DEADLINE)
        assert self._process.returncode == code

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        end = time.monotonic() + DEADLINE
        while b"\n" not in self._said:
            assert poll.poll(max(0.0, end - time.monotonic()) * 1000), "it never came to be so"
            piece = os.read(descriptor, 65536)
            assert piece, "it ended"
            self._said += piece
        line, _, self._said = self._said.partition(b"\n")
        return line


def give(url: str, passkey: SoftPasskey, secret: bytes | None = None) -> Any:
    """Does one gesture in the page of a ceremony, as an honest page and authenticator do, and sees how it ended."""
    page = SoftPage(url)
    page.begin()
    return page.got(page.say(say="next"), passkey, secret)


@contextlib.contextmanager
def unlocking(
    vault: Vault,
    kind: str,
    file: str = "",
    *,
    way: str = "read",
    storage: Path | None = None,
    leak: str | None = None,
    hoard: Path | None = None,
) -> Iterator[Play]:
    """A process that is about to unlock. `file`: the secret, where it is not the right one of its kind."""
    secret, disk = vault.file(file or kind), storage or vault.storage
    with Play.scene("unlocking", hoard, storage=disk, kind=kind, file=secret, way=way, leak=leak) as play:
        play.at("begun")
        yield play


def gesture(play: Play, passkey: SoftPasskey) -> int:
    """Does the ceremony; the process that it had."""
    ceremony: int = play.hear("ceremony")["ceremony"]
    give(play.hear("page")["page"], passkey)
    return ceremony


def is_gone(pid: int) -> bool:
    """Whether there is no such process any more."""
    return not os.path.exists(f"/proc/{pid}")


def is_ended(pid: int) -> bool:
    """Whether a process is no more, or only waits for somebody to hear that it is no more."""
    try:
        return b") Z" in Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return True


def expect(found: Found, names: set[str]) -> None:
    """The positive control: each of these is there. Counted."""
    assert names, "a control that looks for nothing"
    assert names <= found.names, f"not found, and so the search is worth nothing: {sorted(names - found.names)}"
    TALLY.controls += len(names)


def nothing(found: Found, scanner: Scanner) -> None:
    """Nothing is there, and it was looked for."""
    assert found.secrets == len(scanner.secrets) > 0
    assert found.bytes > 8 << 20  # the interpreter and the libraries alone are more
    assert not found.hits, f"\n{found.told()}"


def build_hoard(directory: Path) -> Path:
    """Compiles the allocator that overwrites nothing. Needs a C compiler, `cc`."""
    library = directory / "memory_hoard.so"
    command = ["cc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, HOARD]
    subprocess.run(list(map(str, command)), check=True)
    return library
