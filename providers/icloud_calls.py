"""Requests to CloudKit: signed ones to the database, and those that carry the bytes of assets.

One request for each call, none repeated, no redirect followed. Paths, keys and limits are those of Apple's CloudKit Web
Services Reference.
"""

from __future__ import annotations

import email.utils
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import httpx

from chatkeep.config.storages import CloudKitOptions
from chatkeep.providers import base, http_client, icloud_places, icloud_replies
from chatkeep.providers.icloud_signing import Signer

CONNECT_WITHIN: Final = 10.0
SILENT_FOR: Final = 60.0
"""Seconds to wait for a connection, and for the next byte in either direction."""

STEP: Final = 65_536
"""Most bytes of a body that leave at once when they are paced, as `base.Paced` says."""

_REPLY_LIMIT: Final = 8 << 20  # bytes; 200 records of ours have some 200 KB
_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)", re.ASCII)
# How a host of assets says that an address is used up or was cut out for another time: a new one is asked for.
_STALE: Final = frozenset({400, 401, 403, 404, 410, 416})


class AddressStale(Exception):
    """The address of an asset is not good any more. Never leaves the provider."""


class SizeDiffers(Exception):
    """An asset is not of the size that its record says. Never leaves the provider."""


class Calls:
    """Sends requests. Safe to use from any thread.

    Args:
        provider: the configured name, for errors.
        options: of the configuration.
        signer: of requests to the database.
        silent_for: seconds to wait for the next byte; tests wait less.

    Raises:
        Unavailable: the proxy that the environment names cannot be used.
    """

    def __init__(self, provider: str, options: CloudKitOptions, signer: Signer, silent_for: float = SILENT_FOR) -> None:
        self._provider, self._container = provider, options.container
        self._endpoint = options.endpoint.rstrip("/")
        self._path = f"/database/1/{options.container}/{options.environment}/public/"
        self._signer = signer
        self._lock = threading.Lock()
        self._counted: Counter[str] = Counter()
        self.clock_ahead: float | None = None  # seconds, by the Date of the newest reply
        self._client = http_client.opened(
            provider,
            timeout=httpx.Timeout(silent_for, connect=min(silent_for, CONNECT_WITHIN)),
            follow_redirects=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
            # A proxy of the environment is for hosts outside; what is on this machine is not sent to it.
            trust_env=not icloud_places.is_local(self._endpoint),
            headers={"User-Agent": "chatkeep", "Accept-Encoding": "identity"},
        )

    @property
    def place(self) -> icloud_replies.Place:
        """Who is asked, as errors say it; the clock is that of the newest reply."""
        return icloud_replies.Place(self._provider, self._container, self.clock_ahead)

    def close(self) -> None:
        """Gives back the connections."""
        self._client.close()

    def counted(self) -> Mapping[str, int]:
        """Requests made, by kind: the paths of the database, and `asset-put` and `asset-get`."""
        with self._lock:
            return dict(self._counted)

    def database(self, operation: str, question: Mapping[str, Any]) -> dict[str, Any]:
        """Asks the public database, and returns its answer, in which single records may still be refused.

        Raises:
            ProviderError: no answer, or the whole request was refused.
        """
        body = json.dumps(question, separators=(",", ":")).encode()
        headers = self._signer.headers(self._path + operation, body, time.time())
        with self._answer(operation, "POST", self._endpoint + self._path + operation, body, headers) as reply:
            return self._json(reply)

    def send(self, url: str, body: bytes, pace: Callable[[int], None] | None) -> dict[str, Any]:
        """Sends the bytes of an asset to the address that was named for them; returns the answer.

        Raises:
            ProviderError: no answer, or they were refused.
        """
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(body))}
        content: bytes | Iterator[bytes] = body if pace is None else _paced(body, pace)
        with self._answer("asset-put", "POST", self._allowed(url), content, headers) as reply:
            return self._json(reply)

    def receive(self, url: str, start: int, into: bytearray, wanted: int, size: int) -> None:
        """Appends bytes of an asset, from `start` on and `wanted` at most, to `into`. Fewer when the reply breaks off.

        Raises:
            AddressStale: the address is used up.
            SizeDiffers: it is not of the size that its record says.
            ProviderError: no byte came.
        """
        begun = len(into)
        headers = {"Range": f"bytes={start}-{start + wanted - 1}"}
        try:
            with self._answer("asset-get", "GET", self._allowed(url), None, headers) as reply:
                skip = self._skipped(reply, start, size)
                for part in reply.iter_raw():  # as it comes: a size asked for would be lost in a buffer at a break
                    into += part[skip : skip + wanted - (len(into) - begun)]
                    skip = max(0, skip - len(part))
                    if len(into) - begun == wanted:
                        return
        except base.Unavailable:
            if len(into) == begun:
                raise  # else what came is used, and the rest asked for
        if len(into) == begun:
            raise base.Unavailable(reason="body-cut")

    def _allowed(self, url: str) -> str:
        return icloud_places.allowed(url, self._endpoint)

    @contextmanager
    def _answer(
        self, kind: str, method: str, url: str, content: bytes | Iterator[bytes] | None, headers: Mapping[str, str]
    ) -> Iterator[httpx.Response]:
        """The only place that speaks to the network, and translates what the library says."""
        with self._lock:
            self._counted[kind] += 1
        sent = time.time()
        try:
            with self._client.stream(method, url, content=content, headers=dict(headers)) as reply:
                self._note_clock(reply, sent)
                yield reply
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as problem:
            # Not its text, which may quote the address.
            raise base.Unavailable(reason=type(problem).__name__) from problem

    def _note_clock(self, reply: httpx.Response, sent: float) -> None:
        try:
            theirs = email.utils.parsedate_to_datetime(reply.headers.get("Date", "")).timestamp()
        except (ValueError, TypeError, OverflowError):
            return
        self.clock_ahead = round(theirs - (sent + time.time()) / 2, 1)

    def _skipped(self, reply: httpx.Response, start: int, size: int) -> int:
        """Bytes of the reply's body that come before those that were asked for."""
        if reply.status_code in _STALE:
            raise AddressStale
        if reply.headers.get("Content-Encoding", "identity") != "identity":
            raise base.Unavailable(reason="encoded")
        if reply.status_code == 200:  # the range was not heeded: all of it comes
            length, skip = reply.headers.get("Content-Length", str(size)), start
        elif reply.status_code == 206 and (found := _RANGE.fullmatch(reply.headers.get("Content-Range", ""))):
            length, skip = found[3], start - int(found[1])
        else:
            raise icloud_replies.error_of(
                icloud_replies.Refusal("", "", _retry_after(reply)), reply.status_code, self.place
            )
        if length != str(size):
            raise SizeDiffers
        if skip < 0:
            raise base.Unavailable(reason="range")
        return skip

    def _json(self, reply: httpx.Response) -> dict[str, Any]:
        raw = bytearray()
        for part in reply.iter_raw():
            raw += part
            if len(raw) > _REPLY_LIMIT:
                raise base.Unavailable(reason="too-long")
        status = reply.status_code
        try:
            found = icloud_replies.parse(bytes(raw))
        except base.Unavailable:
            if status == 200:
                raise
            found = {}
        refused = icloud_replies.refusal(found)
        if status != 200 or (refused is not None and "records" not in found):
            refused = refused or icloud_replies.Refusal("", "", _retry_after(reply))
            raise icloud_replies.error_of(refused, status, self.place)
        return found


def _retry_after(reply: httpx.Response) -> float | None:
    text = reply.headers.get("Retry-After", "")
    return min(float(text), 86400.0) if text.isascii() and text.isdigit() else None


def _paced(body: bytes, pace: Callable[[int], None]) -> Iterator[bytes]:
    for start in range(0, len(body), STEP):
        part = body[start : start + STEP]
        pace(len(part))
        yield part
