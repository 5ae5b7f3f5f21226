"""The session of the vault, seen by the daemon: found, watched until it ends, ended.

The process that holds the keys is nobody's child here: a person's command began it. What tells of its end is a
descriptor of that very process, so that another one that gets its number is never taken for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.service import session as sessions
from chatkeep.daemon.service.asking import Session
from chatkeep.daemon.service.running.workers import Workers
from chatkeep.daemon.service.wire import About
from chatkeep.daemon.vault.errors import VaultLocked

PATIENCE: Final = 5.0  # seconds for what takes a thousandth; a session that hangs is none that a daemon can adopt
_USED_UP: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class SessionWatch:
    """At most one session. For the thread of the loop.

    Args:
        ended: called when the session that was adopted is gone, whoever ended it, and no other took its place.
        directory: of the sockets; None for every one that this user's may be in.
    """

    def __init__(
        self, vault_id: bytes, workers: Workers, ended: Callable[[], None], directory: Path | None = None
    ) -> None:
        self._vault_id = vault_id
        self._workers = workers
        self._ended = ended
        self._directory = directory
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._process: int | None = None
        self._one = asyncio.Lock()
        self.about: About | None = None

    async def look(self) -> bool:
        """Whether there is a session, which is adopted if it is a new one. Raises SessionError, OSError."""
        async with self._one:
            found = await self._workers.call("session look", self._find)
            if found is None:
                return False
            process, about = found
            if self.about is not None and self._process is not None and about.facts == self.about.facts:
                os.close(process)
                return True
            self._let_go()  # of one that this one took the place of
            self._process, self.about = process, about
            self._loop.add_reader(process, self._gone)
            return True

    async def end(self) -> bool:
        """Ends the session; whether there was one. When it returns, who held the keys is gone. Raises SessionError."""
        return await self._workers.call("session end", lambda: sessions.lock(self._vault_id, self._directory))

    def close(self) -> None:
        """The session goes on, and is not watched any more."""
        self._let_go()

    def _find(self) -> tuple[int, About] | None:
        session = Session.find(self._vault_id, self._directory, patience=PATIENCE)
        if session is None:
            return None
        with session:
            try:
                process = os.pidfd_open(session.pid)
            except OSError as exc:
                if exc.errno in _USED_UP:
                    raise  # there is one: nobody is to be told that the vault is locked
                return None
            try:
                # Had it ended before it was opened, the number could be another's by now, and nobody would answer.
                return process, session.ask()
            except VaultLocked:
                os.close(process)
                return None
            except ChatkeepError:
                os.close(process)
                raise

    def _gone(self) -> None:
        self._let_go()
        task = self._loop.create_task(self._look_again())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_again(self) -> None:
        found = False
        with contextlib.suppress(ChatkeepError, OSError):
            found = await self.look()
        if not found:
            self._ended()

    def _let_go(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._loop.remove_reader(self._process)
            os.close(self._process)
        self._process = self.about = None
