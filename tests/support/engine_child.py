"""An engine in a process of its own that says what it is about to do, and waits to be let: so that it can be killed
there. See `Watched`."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

import pytest

from chatkeep.config.model import ProviderConfig
from chatkeep.daemon.service.engine.engine import Engine, Terms
from chatkeep.providers import base, registry
from tests.support.engines import MIB, Counting, config_of

TOP: Final = Path(__file__).resolve().parents[2]


class Watched:
    """The process, from outside. Every line that it says is one of

    begin NAME SIZE    a put is about to begin
    put NAME           it returned
    receipt            it is on record
    done               everything was captured and is uploaded; the process ends
    """

    def __init__(self, room: Path) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.support.engine_child", json.dumps({"room": str(room)})]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=TOP, stdin=pipe, stdout=pipe, stderr=pipe)
        self.begun: dict[str, int] = {}

    def line(self) -> list[str]:
        """The next thing that it says; nothing when it has ended. It stands still until `go`."""
        assert self.process.stdout is not None
        words = self.process.stdout.readline().decode().split()
        if words and words[0] == "begin":
            assert words[1] not in self.begun, "put twice by one process"
            self.begun[words[1]] = int(words[2])
        return words

    def go(self) -> None:
        """Lets it do what it said."""
        assert self.process.stdin is not None
        self.process.stdin.write(b".")
        self.process.stdin.flush()

    def kill(self) -> None:
        """By the kernel, at once."""
        self.process.kill()
        assert self.process.wait() == -9
        self._close()

    def finish(self) -> None:
        """Lets it come to its end."""
        last: list[str] = []
        while words := self.line():
            last = words
            self.go()
        assert self.process.stderr is not None
        told = self.process.stderr.read().decode()
        assert (self.process.wait(), last) == (0, ["done"]), told
        self._close()

    def _close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def interrupted(room: Path, chance: random.Random, most: int) -> Watched:
    """A run of the engine that is killed at one of its first `most` lines, or in the middle of what that says."""
    child = Watched(room)
    for _ in range(chance.randrange(most)):
        assert child.line() not in ([], ["done"]), "it came to its end"
        child.go()
    assert child.line() not in ([], ["done"]), "it came to its end"
    if chance.random() < 0.5:
        child.go()
        for _ in range(chance.randrange(20_000)):  # a few hundred microseconds, so that it is amid
            pass
    child.kill()
    return child


class _Telling(Counting):
    """A folder that tells of its puts."""

    def put(self, name: str, body: bytes) -> None:
        _say("begin", name, len(body))
        super().put(name, body)
        _say("put", name)


_MUTEX: Final = threading.Lock()


def _say(*words: object) -> None:
    with _MUTEX:
        sys.stdout.write(" ".join(map(str, words)) + "\n")
        sys.stdout.flush()
        if not sys.stdin.buffer.read(1):
            raise AssertionError("nobody listens")


def main() -> None:
    """Snapshots in one thread, uploads in another, until everything is uploaded."""
    room = Path(json.loads(sys.argv[1])["room"])
    config = config_of(room, ["one"], [room / "chat"])

    def opened(provider: ProviderConfig, **_: Any) -> base.Provider:
        return _Telling(provider.name, room / provider.name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "open_provider", opened)
        engine = Engine.open(config, Terms(budget=MIB))
    captured = threading.Event()
    failures: list[object] = []

    def capture() -> None:
        failures.append(engine.snapshot("chat").error)
        captured.set()

    thread = threading.Thread(target=capture)
    thread.start()
    with engine:
        while not captured.is_set() or engine.backlog()["one"]:
            failures.extend(engine.upload("one", lambda *_: _say("receipt")).problems)
        thread.join()
        news = engine.take_news()
    assert failures == [None], failures
    assert [*news.renewed, *news.notices, *news.findings] == []
    _say("done")


if __name__ == "__main__":
    main()
