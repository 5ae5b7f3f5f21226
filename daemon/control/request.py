"""One request to the daemon, and what it answers: HTTP of the standard library, which only those import who ask."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control.errors import DaemonForeign, DaemonLost, DaemonSilent
from chatkeep.daemon.control.wire import ENDS, HEADER, HOST, JSON, LINES, VERSION, Line, Route, revived

_MOST: Final = 16 << 20  # bytes of an answer or a line; the report of a backup names files
_LOST: Final = (http.client.HTTPException, ConnectionError)


class Request:
    """A request by a connection that was found to be the daemon's. To be closed.

    `seconds`: for it to take and to answer it, and between two lines of an answer that goes on.
    """

    def __init__(self, connection: socket.socket, route: Route, seconds: float) -> None:
        self._wire = http.client.HTTPConnection(HOST)
        self._wire.sock = connection  # nothing is looked up or connected to by a name
        connection.settimeout(seconds)
        self._seconds = seconds
        self._route = route
        self._response: http.client.HTTPResponse | None = None

    def send(self, body: Mapping[str, object] | None, name: str = "") -> None:
        """Asks. `name`: the one in the path. Raises DaemonSilent, DaemonLost."""
        raw = None if self._route.method == "GET" else json.dumps(body or {}).encode()
        headers = {"Content-Type": JSON} if raw else {}
        with _told(self._seconds):
            self._wire.request(self._route.method, self._route.path.replace("{name}", name), raw, headers)

    def close(self) -> None:
        """Ends it, whatever it has come to."""
        # The response holds the socket too: while it is open the daemon would not learn that nobody reads any more.
        if self._response is not None:
            self._response.close()
        self._wire.close()

    def answer(self) -> dict[str, Any]:
        """The answer to what is no stream. Raises as `Daemon.ask`."""
        response = self._begin()
        value = _object(self._rest(response))
        if response.status != http.client.OK:
            raise _refusal(response.status, value)
        return value

    def lines(self) -> Iterator[dict[str, Any]]:
        """What it says, up to the last line. Raises the error that it tells."""
        response = self._begin()
        if response.status != http.client.OK:
            raise _refusal(response.status, _object(self._rest(response)))
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

    def _rest(self, response: http.client.HTTPResponse) -> bytes:
        with _told(self._seconds):
            raw = response.read(_MOST + 1)
        if response.length:
            raise DaemonLost  # less came than was announced
        return raw

    def _begin(self) -> http.client.HTTPResponse:
        with _told(self._seconds):
            response = self._response = self._wire.getresponse()
        if response.headers.get(HEADER) != VERSION:
            raise DaemonForeign(reason="version")
        kind = JSON if response.status != http.client.OK or not self._route.streams else LINES
        if response.headers.get("Content-Type") != kind:
            raise DaemonForeign(reason="answer")
        return response


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
