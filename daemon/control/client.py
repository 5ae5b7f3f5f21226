"""A command that asks the running daemon. Quick to import: `status` does it every time.

Nothing is sent before it is known that who listens is this user's own process. Everything has a time in which it must
come; a daemon that hangs, ends half-way or is of another version is an error of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control.errors import DaemonForeign, DaemonLost, DaemonSilent
from chatkeep.daemon.control.wire import (
    ALIVE_SECONDS,
    BACKUP,
    ENDS,
    EVENTS,
    HEADER,
    HOST,
    JSON,
    LEND,
    LINES,
    LOCK,
    RELOAD,
    RUN_JOB,
    SESSION,
    STATUS,
    VERSION,
    Line,
    Route,
    revived,
    socket_name,
)
from chatkeep.daemon.service.places import Place, runtime_directories

PATIENCE: Final = 5.0
"""Seconds for a daemon to take a connection, and to answer what it answers at once."""

SILENCE: Final = 4 * ALIVE_SECONDS
"""Seconds without a line, of one that says every `ALIVE_SECONDS` that it goes on."""

WORK: Final = 60.0
"""Seconds for what takes some work: to end a session, to read a configuration."""

_MOST: Final = 16 << 20  # bytes of an answer or a line; the report of a backup names files

_LOST: Final = (http.client.HTTPException, ConnectionError)


class Daemon:
    """The way to a daemon that listens. Each request is a connection of its own."""

    def __init__(self, place: Path, name: str, patience: float = PATIENCE) -> None:
        self._directory = place
        self._name = name
        self._patience = patience

    @classmethod
    def find(cls, state_dir: Path, directory: Path | None = None, patience: float = PATIENCE) -> Self | None:
        """The daemon that has this state directory; None when none listens.

        `directory`: of the sockets; None for every one that it may be in.

        Raises:
            SocketRefused: what is in its place is not this user's.
            DaemonSilent: it is there, and takes no connection.
            OSError: its place cannot be looked at.
        """
        name = socket_name(state_dir)
        for each in runtime_directories() if directory is None else [directory]:
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
    def _begun(self, route: Route, body: Mapping[str, object] | None, name: str, seconds: float) -> Iterator[_Talk]:
        connection = _connected(self._directory, self._name, self._patience)
        if connection is None:
            raise DaemonLost
        wire = http.client.HTTPConnection(HOST)
        wire.sock = connection  # nothing is looked up or connected to by a name
        talk = _Talk(wire, seconds, streams=route.streams)
        try:
            connection.settimeout(seconds)
            raw = b"" if route.method == "GET" else json.dumps(body or {}).encode()
            headers = {"Content-Type": JSON} if raw else {}
            with _told(seconds):
                wire.request(route.method, route.path.replace("{name}", name), raw or None, headers)
            yield talk
        finally:
            talk.close()


class Locking:
    """A daemon that is ending its session."""

    def __init__(self, talk: _Talk) -> None:
        self._talk = talk

    def ended(self) -> bool:
        """Whether there was one. Raises as `Daemon.ask`."""
        return self._talk.answer().get("locked") is True


class _Talk:
    """A request that was sent."""

    def __init__(self, wire: http.client.HTTPConnection, seconds: float, *, streams: bool) -> None:
        self._wire = wire
        self._seconds = seconds
        self._streams = streams
        self._response: http.client.HTTPResponse | None = None

    def close(self) -> None:
        # The response holds the socket too: while it is open the daemon would not learn that nobody reads any more.
        if self._response is not None:
            self._response.close()
        self._wire.close()

    def answer(self) -> dict[str, Any]:
        response = self._begin()
        with _told(self._seconds):
            raw = response.read(_MOST + 1)
        value = _object(raw)
        if response.status != http.client.OK:
            raise _refusal(response.status, value)
        return value

    def lines(self) -> Iterator[dict[str, Any]]:
        """What it says, up to the last line. Raises the error that it tells."""
        response = self._begin()
        if response.status != http.client.OK:
            with _told(self._seconds):
                raw = response.read(_MOST + 1)
            raise _refusal(response.status, _object(raw))
        while True:
            with _told(self._seconds):
                raw = response.readline(_MOST + 1)
            if not raw.endswith(b"\n"):
                raise DaemonLost
            value = _object(raw)
            if value.get("line") == Line.ERROR:
                raise revived(value.get("error"))
            yield value
            if value.get("line") in ENDS:
                return

    def _begin(self) -> http.client.HTTPResponse:
        with _told(self._seconds):
            response = self._response = self._wire.getresponse()
        if response.headers.get(HEADER) != VERSION:
            raise DaemonForeign(reason="version")
        kind = JSON if response.status != http.client.OK or not self._streams else LINES
        if response.headers.get("Content-Type") != kind:
            raise DaemonForeign(reason="answer")
        return response


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


@contextlib.contextmanager
def _told(seconds: float) -> Iterator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise DaemonSilent(seconds=seconds) from exc
    except _LOST as exc:
        raise DaemonLost from exc


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise DaemonForeign(reason="answer") from exc
    if not isinstance(value, dict):
        raise DaemonForeign(reason="answer")
    return value


def _refusal(status: int, value: Mapping[str, Any]) -> ChatkeepError:
    error = revived(value.get("error"))
    if status == http.client.NOT_FOUND and error.params.get("reason") == "path":
        return DaemonForeign(reason="path")
    return error
