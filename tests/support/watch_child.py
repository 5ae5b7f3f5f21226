"""A watcher in a process of its own: to be stopped, or to live in namespaces where mounts and limits are its own.

    python watch_child.py DIRECTORY [apart]

It prints a line of JSON for each hint and event, and does what lines on its standard input say: an answer follows each.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_NEWNS, _NEWUSER, _RECURSIVE, _PRIVATE = 0x20000, 0x10000000, 1 << 14, 1 << 18


class Child:
    """The process, asked and listened to."""

    def __init__(self, top: Path, *, apart: bool = False, **rhythm: float) -> None:
        self.lines: list[list[Any]] = []
        self.ever: list[str] = []  # the kinds of all lines
        words = [sys.executable, __file__, str(top), "apart" if apart else "here", json.dumps(rhythm)]
        self.program = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._rest = b""
        self.until("entered")

    def ask(self, verb: str, *arguments: object) -> Any:
        """What it answered. Lines that came before the answer stay to be taken."""
        assert self.program.stdin is not None
        self.program.stdin.write(json.dumps([verb, *map(str, arguments)]).encode() + b"\n")
        self.program.stdin.flush()
        kept: list[list[Any]] = []
        while True:
            while self.lines:
                line = self.lines.pop(0)
                if line[0] == "answer":
                    self.lines = kept + self.lines
                    return line[1]
                kept.append(line)
            self._read(time.monotonic() + 60)

    def until(self, kind: str, *values: object) -> list[Any]:
        """The first line of a kind (and with these values) that was not taken yet; those before it are dropped."""
        deadline = time.monotonic() + 60
        while True:
            while self.lines:
                line = self.lines.pop(0)
                if line[0] == kind and line[1 : 1 + len(values)] == list(values):
                    return line
            self._read(deadline)

    def forget(self) -> None:
        """Drops every line until now."""
        self.ask("nothing")
        self.lines.clear()

    def _read(self, deadline: float) -> None:
        assert self.program.stdout is not None
        ready, _, _ = select.select([self.program.stdout], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, self.ever
        read = os.read(self.program.stdout.fileno(), 1 << 16)
        assert read, f"the process ended: {self.ever}"
        *whole, self._rest = (self._rest + read).split(b"\n")
        self.lines += [json.loads(line) for line in whole]
        self.ever += [json.loads(line)[0] for line in whole]

    def pause(self) -> None:
        self.program.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.program.pid}/stat")
        while state.read_text().rpartition(")")[2].split()[0] != "T":
            os.sched_yield()

    def resume(self) -> None:
        self.program.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.program.kill()
        for pipe in (self.program.stdin, self.program.stdout):
            if pipe is not None:
                pipe.close()
        self.program.wait()


def _say(*line: object) -> None:
    os.write(1, json.dumps(line).encode() + b"\n")  # one call, or threads would mix their lines


def _apart() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    _check(libc.unshare(_NEWNS | _NEWUSER))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _check(libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None))


def _check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _mount(place: str) -> None:
    _check(ctypes.CDLL(None, use_errno=True).mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, None))


def _unmount(place: str) -> None:
    """As a person does: refused while anybody has something open there. Looks pass, so it is tried again."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return _check(ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(place), 0))
        except OSError as exc:
            if exc.errno != errno.EBUSY or time.monotonic() > deadline:
                raise


def _limit(what: str, number: str) -> None:
    # of this namespace alone, and of everything in it
    Path(f"/proc/sys/user/max_inotify_{what}").write_text(number)


def _serve(top: str, rhythm: dict[str, float]) -> None:
    from chatkeep.config.model import Source
    from chatkeep.daemon.service.watching import mounts
    from chatkeep.daemon.service.watching.feed import Feed
    from chatkeep.daemon.service.watching.sentry import Edge, Rhythm
    from chatkeep.daemon.service.watching.watcher import Watcher

    remote: set[str] = set()  # places that are said to be network file systems
    feeds: list[Feed] = []

    class Kept(Feed):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            feeds.append(self)

    def kind_at(directory: bytes) -> str:
        return "nfs4" if os.fsdecode(directory) in remote else mounts.kind_at(directory)

    watcher = Watcher(
        [Source(Path(top), "chat")],
        lambda _, whole: _say("hint", whole),
        lambda event: _say(event.kind, *event.values.values()),
        Rhythm(check=0.05, **rhythm),
        Edge(kind_at, Kept),
    )
    verbs: dict[str, Callable[..., object]] = {
        "nothing": lambda: None,
        "mount": _mount,
        "unmount": _unmount,
        "limit": _limit,
        "remote": remote.add,
        "local": remote.discard,
        "touch": lambda path: Path(path).touch(),
        "mkdir": lambda path: Path(path).mkdir(),
        "watched": lambda: feeds[-1].watched,
        "threads": threading.active_count,
        "cpu": time.process_time,
        "start": watcher.start,
        "settled": lambda: watcher.settled(30),
    }
    _say("entered")
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        _say("answer", verbs[verb](*arguments))


if __name__ == "__main__":
    if sys.argv[2] == "apart":
        _apart()
    _serve(sys.argv[1], json.loads(sys.argv[3]))
