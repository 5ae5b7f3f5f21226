"""Resumable uploads to Google Drive: a session that takes a body in chunks and tells how far it got.

The protocol: https://developers.google.com/workspace/drive/api/guides/manage-uploads#resumable. A `PUT` of a chunk is
answered by 308 with `Range: bytes=0-N` (no such header: nothing is there yet), the last one by the file. After a break
an empty `PUT` with `Content-Range: bytes */SIZE` asks how far the session got. 404 and 410: it is gone.

The address of a session is remembered before the first byte goes there, so that the next attempt, in this process or
after a restart, sends what is missing and not everything. One attempt makes each request once: after a connection broke
the error goes to the caller, whose retry begins with the question.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from chatkeep.providers import base
from chatkeep.providers.gdrive_files import OCTETS, DriveFiles, IdTaken, NotThere
from chatkeep.providers.gdrive_replies import DriveFile
from chatkeep.providers.google_http import Pace, Reply
from chatkeep.providers.memo import Memo

UNIT: Final = 262_144
"""Chunks but the last are multiples of it."""
CHUNK: Final = 32 * UNIT
"""Bytes sent in one request, 8 MiB: so much is sent again at most when Drive does not keep a part of a chunk."""

_STORED: Final = re.compile(r"bytes=0-(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """An upload that was begun: where it goes, and for which bytes under which id."""

    address: str = field(repr=False)  # whoever has it may write there
    id: str
    size: int
    sha256: str


class Uploads:
    """Sends bodies through sessions that survive this process. Any thread may call it.

    Args:
        files: the calls.
        memo: where sessions are remembered.
        chunk: bytes in one request; a multiple of `UNIT`.
    """

    def __init__(self, files: DriveFiles, memo: Memo, chunk: int = CHUNK) -> None:
        self._files = files
        self._memo = memo
        self._chunk = chunk
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    def upload(
        self, name: str, metadata: Mapping[str, Any], body: bytes, sha256: str, pace: Pace | None = None
    ) -> DriveFile:
        """Makes the file of `metadata` (with its id) out of `body`; goes on with what an earlier call began.

        Raises:
            IdTaken: the id is in use: perhaps by an earlier call whose reply was lost.
            ProviderError: the session is kept if it may still be good.
        """
        with self._lock:
            # Two calls that write into one session would only get in each other's way: the second begins its own.
            first = name not in self._busy
            self._busy.add(name)
        try:
            return self._through(name, metadata, body, sha256, pace, known=first)
        finally:
            if first:
                with self._lock:
                    self._busy.discard(name)

    def forget(self, name: str) -> None:
        """No upload of this name goes on."""
        self._memo.delete(_key(name))

    def _through(
        self, name: str, metadata: Mapping[str, Any], body: bytes, sha256: str, pace: Pace | None, *, known: bool
    ) -> DriveFile:
        if known and (old := self._remembered(name, str(metadata["id"]), len(body), sha256)) is not None:
            try:
                reply = self._put(old, b"", f"bytes */{old.size}")
                return self._send(name, old, body, pace, reply)
            except NotThere:  # sessions end after about a week
                self.forget(name)
        session = Session(self._files.begin(metadata, len(body)), str(metadata["id"]), len(body), sha256)
        if known:
            self._memo.set(_key(name), _text(session))
        try:
            return self._send(name, session, body, pace, None)
        except NotThere as problem:  # a moment after it was made: nothing that beginning a third one here would mend
            self.forget(name)
            raise base.Unavailable(provider=self._files.provider, object=name, reason="session-gone") from problem

    def _send(self, name: str, session: Session, body: bytes, pace: Pace | None, reply: Reply | None) -> DriveFile:
        """Chunk after chunk, from where the session is, as `reply` says it (None: at the beginning)."""
        at = 0
        if reply is not None and reply.status == 308:
            at = self._stored(reply, session.size)
        while reply is None or reply.status == 308:
            chunk = memoryview(body)[at : at + self._chunk]
            reply = self._put(session, chunk, f"bytes {at}-{at + len(chunk) - 1}/{session.size}", pace)
            if reply.status == 308:
                stored = self._stored(reply, session.size)
                if stored <= at:  # it takes nothing any more, and would be sent the same for ever
                    self.forget(name)
                    raise base.Unavailable(provider=self._files.provider, object=name, reason="session-stuck")
                at = stored
        try:
            made = self._files.made(reply)
        except (base.Unavailable, base.Throttled):
            if reply.status == 400:  # this session and we do not agree: the next attempt begins another
                self.forget(name)
            raise
        except (base.ProviderError, IdTaken):
            self.forget(name)
            raise
        self.forget(name)
        return made

    def _put(self, session: Session, chunk: bytes | memoryview, span: str, pace: Pace | None = None) -> Reply:
        headers = {"Content-Range": span, "Content-Type": OCTETS}
        reply = self._files.send("put", "PUT", session.address, headers, chunk, pace=pace)
        if reply.status in (404, 410):
            raise NotThere
        return reply

    def _stored(self, reply: Reply, size: int) -> int:
        """How many bytes the session has. Never all of them: then it would not say 308."""
        said = reply.headers.get("range")
        if said is None:
            return 0
        found = _STORED.fullmatch(said.strip())
        stored = int(found[1]) + 1 if found else size
        if stored >= size:
            raise base.Unavailable(provider=self._files.provider, reason="reply-senseless")
        return stored

    def _remembered(self, name: str, ident: str, size: int, sha256: str) -> Session | None:
        raw = self._memo.get(_key(name))
        if raw is None:
            return None
        try:
            session = Session(**json.loads(raw))
        except (ValueError, TypeError):
            session = None
        if (
            session is None
            or (session.id, session.size, session.sha256) != (ident, size, sha256)
            or not self._files.google.transport.serves(session.address)
        ):
            self.forget(name)  # of other bytes under the name, an id that was given up, another way to Drive
            return None
        return session


def _key(name: str) -> str:
    return f"upload:{name}"


def _text(session: Session) -> bytes:
    return json.dumps(
        {"address": session.address, "id": session.id, "size": session.size, "sha256": session.sha256}
    ).encode()
