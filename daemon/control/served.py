"""What a daemon lets be asked of it through the control socket. `service` fulfils this by its shape: it imports nothing
of here.

All of it is called in the daemon's event loop, by `api`. Nothing that is passed or returned is or holds a secret. What
goes wrong is raised as a ChatkeepError; its code and parameters go over the socket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, TypeAlias

from chatkeep.daemon.service.events import Bus
from chatkeep.daemon.service.standing import Standing

if TYPE_CHECKING:
    from chatkeep.daemon.service.engine.report import Report

Step: TypeAlias = Callable[[str, int, int | None], None]
"""What is worked at (the name of a source, or `to <provider>`), bytes done, bytes there are if that is known. To be
called in the event loop."""


class Served(Protocol):
    """The daemon, as the control socket sees it. Every call may come at any time, and several at once."""

    @property
    def bus(self) -> Bus:
        """Where its events are published."""

    async def standing(self) -> Standing:
        """How things stand now. Never waits for work that goes on, nor for storage: it answers within a second."""

    def metrics(self) -> str:
        """The same as figures, in the text format of Prometheus."""

    async def backup(self, sources: Sequence[str], step: Step) -> Report:
        """Takes a snapshot of each of these sources now (none named: of all), whatever their pace, and sends everything
        that waits to every provider, once. A snapshot that runs already may have missed the latest change: another
        follows it.

        Returns when that is done, with the same report that a backup without a daemon has. Uploads that are held until
        an unlock are not waited for: their providers are in the report with a problem `UploadsHeld`. What stops the
        daemon, or a lend, stops this: `report.cancelled`. Cancelled (the caller went away), the work goes on, and
        nobody is told.

        Raises ChatkeepError: what keeps a backup from beginning, as without a daemon; NoSuchSource; NotReady while it
        is lent.
        """

    async def session(self) -> bool:
        """A session of the vault may have begun: looks for it, and adopts it. Whether there is one."""

    async def lock(self) -> bool:
        """Ends the session, as on command; whether there was one. When it returns, who held the keys is gone."""

    async def run_job(self, name: str) -> None:
        """Has a job run now, or as soon as it can. Its end is an event. Raises NoSuchJob."""

    async def reload(self) -> None:
        """Reads the configuration again. Raises ConfigError: the one before goes on."""

    def lend(self, command: str) -> AbstractAsyncContextManager[None]:
        """The state directory, for a command that needs it for itself: entered once everything that uses it came to a
        safe point and it is closed, and taken back when the block is left. One at a time: others wait."""
