"""A ceremony as a command holds it, in a thread, so that the test can be the person in front of the browser meanwhile.
The process of the ceremony is the real one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from chatkeep.daemon.control.ceremony.client import ChildCeremony
from chatkeep.daemon.control.ceremony.events import Event, Ready

DEADLINE = 120.0  # seconds; what is waited for comes within
Told = TypeVar("Told", bound=Event)
Result = TypeVar("Result")


class Rehearsal(Generic[Result]):
    """Runs `act` with a ceremony. `told`: the events so far."""

    def __init__(
        self,
        act: Callable[[ChildCeremony], Result],
        *,
        steps: int = 3,
        deadline: float = 120.0,
        open_browser: bool = False,
    ) -> None:
        self.told: list[Event] = []
        self._heard = threading.Condition()
        self._act = act
        self._over = False
        self._results: list[Result] = []
        self._error: BaseException | None = None
        self.ceremony = ChildCeremony(
            "browser",
            vault="Ada's chats",
            user="Ada's chats (backup key)",
            steps=steps,
            tell=self._tell,
            deadline=deadline,
            open_browser=open_browser,
        )
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        if error is not None:
            with contextlib.suppress(AttributeError):
                self.ceremony._process.kill()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the ceremony did not end"

    def abandon(self) -> None:
        """What the kernel does for a command that was killed: its end of the channel is closed."""
        with contextlib.suppress(OSError):  # it has ended
            self.ceremony._channel._socket.shutdown(socket.SHUT_RDWR)

    @property
    def ready(self) -> Ready:
        """The page is served."""
        return self.event(Ready)

    @property
    def port(self) -> int:
        return int(self.ready.url.split(":")[2].split("/")[0])

    @property
    def token(self) -> str:
        return self.ready.url.partition("#")[2]

    @property
    def pid(self) -> int:
        """The process of the ceremony."""
        assert self.ready
        return self.ceremony._process.pid

    def event(self, kind: type[Told], count: int = 1) -> Told:
        """The `count`th event of this kind, waited for."""
        with self._heard:
            there = self._heard.wait_for(lambda: self._over or len(self._of(kind)) >= count, DEADLINE)
            found = self._of(kind)
            assert there, f"no {kind.__name__}: {self.told}"
            assert len(found) >= count, f"ended without {kind.__name__}: {self.told}, {self._error!r}"
            return found[count - 1]

    def result(self) -> Result:
        """What `act` returned, when it has; raises what it raised."""
        self._thread.join(DEADLINE)
        assert self._over, f"it goes on: {self.told}"
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _of(self, kind: type[Told]) -> list[Told]:
        return [event for event in self.told if isinstance(event, kind)]

    def _tell(self, event: Event) -> None:
        with self._heard:
            self.told.append(event)
            self._heard.notify_all()

    def _run(self) -> None:
        try:
            with self.ceremony as ceremony:
                self._results.append(self._act(ceremony))
                ceremony.end()
        except BaseException as error:
            self._error = error
        finally:
            with self._heard:
                self._over = True
                self._heard.notify_all()
