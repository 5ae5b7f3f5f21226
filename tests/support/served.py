"""A daemon for tests that does nothing but what it is told, behind a real control socket; in a thread, or a process of
its own: `python -m tests.support.served STATE_DIR DIRECTORY`, which says `ready` and runs until it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control.api import Api
from chatkeep.daemon.control.served import Step
from chatkeep.daemon.service.engine.report import Captured, Made, ProviderReport, Remark, Report, SourceReport
from chatkeep.daemon.service.errors import NoSuchJob, NoSuchSource
from chatkeep.daemon.service.events import Bus
from chatkeep.daemon.service.standing import (
    Doing,
    Fault,
    JobStanding,
    Mode,
    OutboxStanding,
    ProblemStanding,
    ProviderStanding,
    SessionStanding,
    SourceStanding,
    Standing,
)
from chatkeep.daemon.sync.errors import OutboxDamaged
from chatkeep.providers.base import Unavailable

Result = TypeVar("Result")
DEADLINE = 30.0


def standing() -> Standing:
    """One with something in every part."""
    return Standing(
        version="0.0.test",
        pid=4242,
        since_ns=1_700_000_000 * 10**9,
        mode=Mode.RUNNING,
        vault="ab" * 16,
        session=SessionStanding(unlocked=False, uploads=False, locked="suspend"),
        outbox=OutboxStanding(123_456, 20 * 10**9, full=False),
        config="/c.yaml",
        config_ns=1_700_000_000 * 10**9,
        config_fault=Fault("config-invalid", {}, 1_700_000_100 * 10**9),
        doing=(Doing("snapshot", "chat", 1_700_000_200 * 10**9, 10, 20),),
        sources=(SourceStanding("chat", "events", changed=True, next_ns=1_700_000_300 * 10**9),),
        providers=(ProviderStanding("disk", required=True, waiting=123_456, fault=Fault("unavailable", {"errno": 5})),),
        jobs=(JobStanding("verify", 86400.0, 1_700_000_400 * 10**9, fault=Fault("object-damaged", {"name": "d/x"})),),
        problems=(ProblemStanding("held", "disk", 1_700_000_500 * 10**9, {"waiting": 123_456}),),
    )


def report() -> Report:
    """One with something in every part, and names that are no UTF-8."""
    remarks = (
        Remark(b"Media/\xff\xfe.jpg", "unreadable", 13),
        Remark(b"a.db", "database-damaged", 0, ChatkeepError(path=b"a\xff")),
    )
    captured = Captured(7, Made(7, "ef" * 32, 1_700_000_000 * 10**9, complete=False), 2, remarks=remarks, pending=3)
    away = Unavailable(provider="disk", reason="timeout")
    return Report(
        sources=[
            SourceReport("chat", captured, None, 2, 1.25),
            SourceReport("other", None, NoSuchSource(name="other", known=["chat"]), 0, 0.0),
            SourceReport("third", None, None, 1, 0.5),
        ],
        providers=[
            ProviderReport("disk", True, 3, 1000, (away, OutboxDamaged(name="d/x", reason="hash")), (2, 50), 0.5)
        ],
        renewed=["chat"],
        waiting=(2, 50),
        cancelled=True,
        findings=[Unavailable(provider="disk")],
        epoch=2,
        notices=[ChatkeepError(reason="x")],
    )


@dataclasses.dataclass
class TestServed:
    """What the control socket serves. What is to be answered is set; what was asked is in `asked`."""

    __test__ = False

    bus: Bus = dataclasses.field(default_factory=Bus)
    asked: list[str] = dataclasses.field(default_factory=list)
    fails: ChatkeepError | Exception | None = None
    unlocked: bool = False
    gate: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)  # what is slow waits for it
    slow: bool = False
    steps: Sequence[tuple[str, int, int | None]] = (("chat", 5, 10), ("to disk", 1, None))
    report: Report = dataclasses.field(default_factory=report)
    owner: str | None = None

    async def standing(self) -> Standing:
        await self._asked("standing")
        return standing()

    def metrics(self) -> str:
        return "# TYPE chatkeep_up gauge\nchatkeep_up 1\n"

    async def backup(self, sources: Sequence[str], step: Step) -> Report:
        for one in self.steps:
            step(*one)
        try:
            await self._asked(f"backup {','.join(sources)}")
        except asyncio.CancelledError:
            self.asked.append("alone")
            raise
        return self.report

    async def session(self) -> bool:
        await self._asked("session")
        return self.unlocked

    async def lock(self) -> bool:
        await self._asked("lock")
        was, self.unlocked = self.unlocked, False
        return was

    async def run_job(self, name: str) -> None:
        await self._asked(f"job {name}")
        if name != "verify":
            raise NoSuchJob(name=name, known=["verify"])

    async def reload(self) -> None:
        await self._asked("reload")

    @contextlib.asynccontextmanager
    async def lend(self, command: str) -> AsyncIterator[None]:
        await self._asked(f"lend {command}")
        self.owner = command
        try:
            yield
        finally:
            self.owner = None
            self.asked.append("returned")

    async def _asked(self, what: str) -> None:
        self.asked.append(what)
        if self.slow:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails


class Serving:
    """An `Api` in a thread of its own."""

    def __init__(self, state_dir: Path, directory: Path, uid: int | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.state_dir, self.directory, self._uid = state_dir, directory, uid

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._begin())
        return self

    def __exit__(self, *raised: object) -> None:
        self.run(self.api.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """In its loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE)

    def call(self, what: Callable[[], Result]) -> Result:
        """The same, for what does not wait."""

        async def called() -> Result:
            return what()

        return self.run(called())

    def open_gate(self) -> None:
        """Lets go on what is slow."""
        self.call(self.served.gate.set)

    async def _begin(self) -> None:
        self.served = TestServed()
        self.api = Api(self.served, self.state_dir, self.directory, self._uid)
        await self.api.start()


def until(what: Callable[[], bool], why: str) -> None:
    """Returns when it is so."""
    end = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.005)


@contextlib.contextmanager
def raised_in_loop(serving: Serving) -> Iterator[list[dict[str, Any]]]:
    """What the loop reports as nobody's."""
    found: list[dict[str, Any]] = []
    serving.call(lambda: serving._loop.set_exception_handler(lambda _, context: found.append(context)))
    yield found


async def _main(state_dir: Path, directory: Path, *, slow: bool) -> None:
    served = TestServed(slow=slow)
    await Api(served, state_dir, directory).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), Path(sys.argv[2]), slow="slow" in sys.argv))
