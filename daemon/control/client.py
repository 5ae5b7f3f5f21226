"""A command that asks the running daemon. Quick to import: `status` does it every time.

Nothing is sent before it is known that who listens is this user's own process. Everything has a time in which it must
come; a daemon that hangs, ends half-way or is of another version is an error of its own.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from chatkeep.daemon.control.errors import DaemonLost, DaemonSilent
from chatkeep.daemon.control.noted import noted
from chatkeep.daemon.control.wire import (
    ALIVE_SECONDS,
    BACKUP,
    EVENTS,
    LEND,
    LOCK,
    RELOAD,
    RUN_JOB,
    SESSION,
    STATUS,
    Route,
    socket_name,
)
from chatkeep.daemon.service.places import Place, runtime_directories

if TYPE_CHECKING:
    from chatkeep.daemon.control.request import Request

PATIENCE: Final = 5.0
"""Seconds for a daemon to take a connection, and to answer what it answers at once."""

SILENCE: Final = 4 * ALIVE_SECONDS
"""Seconds without a line, of one that says every `ALIVE_SECONDS` that it goes on."""

WORK: Final = 60.0
"""Seconds for what takes some work: to end a session, to read a configuration."""


class Daemon:
    """The way to a daemon that listens. Each request is a connection of its own."""

    def __init__(self, place: Path, name: str, patience: float = PATIENCE) -> None:
        self._directory = place
        self._name = name
        self._patience = patience

    @classmethod
    def find(cls, state_dir: Path, directory: Path | None = None, patience: float = PATIENCE) -> Self | None:
        """The daemon that has this state directory; None when none listens.

        `directory`: of the sockets; None for every one that it may be in, and the one that it noted itself.

        Raises:
            SocketRefused: what is in its place is not this user's.
            DaemonSilent: it is there, and takes no connection.
            OSError: its place cannot be looked at.
        """
        name = socket_name(state_dir)
        places = runtime_directories() if directory is None else [directory]
        if directory is None and (other := noted(state_dir)) is not None and other not in places:
            places.append(other)
        for each in places:
            connection = _connected(each, name, patience)
            if connection is not None:
                connection.close()
                return cls(each, name, patience)
        return None

    def status(self) -> dict[str, Any]:
        """How things stand with it, as docs/control.md has it. Raises as `ask`."""
        return self.ask(STATUS, seconds=self._patience)

    def unlocked(self) -> bool:
        """Tells it that a session may have begun; whether it found one. Raises as `ask`."""
        return self.ask(SESSION).get("unlocked") is True

    def reload(self) -> None:
        """Has it read its configuration again. Raises as `ask`; a configuration that it refuses."""
        self.ask(RELOAD)

    def run_job(self, name: str) -> None:
        """Has it run a job. Raises as `ask`; NoSuchJob, by its code."""
        self.ask(RUN_JOB, name=name)

    @contextlib.contextmanager
    def locking(self) -> Iterator[Locking]:
        """Has it end its session while the block does so too: nobody waits for a daemon that hangs. Raises as `ask`."""
        with self._begun(LOCK, None, "", self._patience) as talk:
            yield Locking(talk)

    @contextlib.contextmanager
    def events(self) -> Iterator[Iterator[dict[str, Any]]]:
        """Its lines, from now on, until it ends. Raises as `ask`, when a line is drawn too."""
        with self._streamed(EVENTS, None) as lines:
            yield lines

    @contextlib.contextmanager
    def backup(self, sources: Sequence[str]) -> Iterator[Iterator[dict[str, Any]]]:
        """A backup of these sources, none for all: its lines, the last one with its report. Raises as `ask`."""
        with self._streamed(BACKUP, {"sources": list(sources)}) as lines:
            yield lines

    @contextlib.contextmanager
    def borrowed(self, command: str) -> Iterator[Iterator[dict[str, Any]]]:
        """Borrows the state directory: it is this command's from the line `lent` on, until the block is left. Raises as
        `ask`."""
        with self._streamed(LEND, {"command": command}) as lines:
            yield lines

    def ask(
        self, route: Route, body: Mapping[str, object] | None = None, name: str = "", seconds: float = WORK
    ) -> dict[str, Any]:
        """One answer.

        Raises:
            DaemonSilent: none came in time.
            DaemonLost: it ended, or is gone already.
            DaemonForeign: it is of another version.
            SocketRefused: who listens is not this user's.
            ChatkeepError: what it refused, or could not do, by its code.
        """
        with self._begun(route, body, name, seconds) as talk:
            return talk.answer()

    @contextlib.contextmanager
    def _streamed(self, route: Route, body: Mapping[str, object] | None) -> Iterator[Iterator[dict[str, Any]]]:
        with self._begun(route, body, "", max(self._patience, SILENCE)) as talk:
            yield talk.lines()

    @contextlib.contextmanager
    def _begun(self, route: Route, body: Mapping[str, object] | None, name: str, seconds: float) -> Iterator[Request]:
        from chatkeep.daemon.control.request import Request

        connection = _connected(self._directory, self._name, self._patience)
        if connection is None:
            raise DaemonLost
        request = Request(connection, route, seconds)
        try:
            request.send(body, name)
            yield request
        finally:
            request.close()


class Locking:
    """A daemon that is ending its session."""

    def __init__(self, talk: Request) -> None:
        self._talk = talk

    def ended(self) -> bool:
        """Whether there was one. Raises as `Daemon.ask`."""
        return self._talk.answer().get("locked") is True


def _connected(directory: Path, name: str, patience: float) -> socket.socket | None:
    place = Place.open(directory)
    if place is None:
        return None
    with place:
        try:
            return place.connect(name, patience)
        except TimeoutError as exc:
            raise DaemonSilent(seconds=patience) from exc
        except ConnectionError as exc:
            raise DaemonLost from exc
