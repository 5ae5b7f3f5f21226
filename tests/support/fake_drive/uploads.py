"""Uploads as published: simple, multipart/related, and resumable sessions.

https://developers.google.com/workspace/drive/api/guides/manage-uploads
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from dataclasses import dataclass, field

from tests.support.fake_drive.world import File, Refused, World

UNIT = 262_144
SMALL = 5 * 1024 * 1024
"""Most bytes of a simple or multipart upload. The real one is said to be for so much, and takes more."""

_SPAN = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass
class Session:
    """A resumable upload."""

    metadata: dict[str, object]
    size: int | None
    app: str
    stored: bytes = b""
    made: File | None = None


@dataclass
class Progress:
    """308: go on."""

    stored: int


@dataclass
class Sessions:
    """Those that were begun. `expire` ends all that are not done."""

    world: World
    begun: dict[str, Session] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def begin(self, body: bytes, headers: dict[str, str], app: str) -> str:
        """The id of a new session."""
        if headers.get("content-type", "").split(";")[0] != "application/json":
            raise Refused(400, "badContent", "metadata is JSON")
        size = headers.get("x-upload-content-length")
        if size is not None and not size.isdigit():
            raise Refused(400, "badRequest", "X-Upload-Content-Length")
        metadata = self.world.checked(_json(body), app)
        if size is not None:
            self.world.room(int(size))
        ident = f"AF-session-{secrets.token_urlsafe(32)}"
        with self.lock:
            self.begun[ident] = Session(metadata, None if size is None else int(size), app)
        return ident

    def expire(self) -> int:
        """As after a week. Returns how many."""
        with self.lock:
            open_ones = [ident for ident, session in self.begun.items() if session.made is None]
            for ident in open_ones:
                del self.begun[ident]
            return len(open_ones)

    def put(self, ident: str, headers: dict[str, str], body: bytes, *, whole: bool = True) -> File | Progress:
        """A chunk, or the question how far it got. `whole`: the connection did not break inside the body."""
        with self.lock:
            session = self.begun.get(ident)
            if session is None:
                raise Refused(404, "notFound", "No such upload session.")
            start, size = self._span(session, headers, len(body), whole=whole)
            if session.made is not None:
                return session.made
            if start is None:
                return Progress(len(session.stored))
            if start > len(session.stored):
                raise Refused(400, "badRequest", "bytes are missing before the chunk")
            new = body[len(session.stored) - start :]  # what is there already is not taken again
            if not whole:
                new = new[: (len(session.stored) + len(new)) // UNIT * UNIT - len(session.stored)]
            session.stored += new
            session.size = session.size if size is None else size
            if not whole or len(session.stored) != session.size:
                return Progress(len(session.stored))
            session.made = self.world.create(session.metadata, session.stored, session.app)
            session.stored = b""
            return session.made

    def _span(
        self, session: Session, headers: dict[str, str], length: int, *, whole: bool
    ) -> tuple[int | None, int | None]:
        """Where the chunk begins (None: a question) and the size of all, if it is said."""
        said = headers.get("content-range")
        if said is None:
            return 0, length if whole else None
        found = _SPAN.fullmatch(said)
        if found is None:
            raise Refused(400, "badRequest", f"Content-Range: {said}")
        size = None if found[3] == "*" else int(found[3])
        if session.size is not None and size is not None and size != session.size:
            raise Refused(400, "badRequest", "another size than before")
        if found[1] is None:
            if length:
                raise Refused(400, "badRequest", "a question has no body")
            return None, size
        start, end = int(found[1]), int(found[2])
        announced = int(headers["content-length"])
        if announced != end - start + 1 or (size is not None and end >= size):
            raise Refused(400, "badRequest", "Content-Range and body do not agree")
        last = size is not None and end + 1 == size
        if not last and announced % UNIT:
            raise Refused(400, "badRequest", "chunks are multiples of 256 KiB")
        return start, size


def multipart(world: World, headers: dict[str, str], body: bytes, app: str) -> File:
    """Metadata and body in one request. Lines may end in LF alone: so Google's Python client writes them."""
    if len(body) > SMALL:
        raise Refused(413, "uploadTooLarge", "use a resumable upload")
    kind = re.fullmatch(r'multipart/related; *boundary="?([^"]{1,70})"?', headers.get("content-type", ""))
    if kind is None:
        raise Refused(400, "badContent", "multipart/related with a boundary")
    parts = _parts(body, kind[1].encode())
    if len(parts) != 2 or parts[0][0].get("content-type", "").split(";")[0] != "application/json":
        raise Refused(400, "badContent", "two parts, the first of them JSON")
    if "content-type" not in parts[1][0]:
        raise Refused(400, "badContent", "the second part says its type")
    return world.create(world.checked(_json(parts[0][1]), app), parts[1][1], app)


def _parts(body: bytes, boundary: bytes) -> list[tuple[dict[str, str], bytes]]:
    line = rb"--" + re.escape(boundary)
    pieces = re.split(rb"(?:\A|\r?\n)" + line + rb"(?=\r?\n|--)", body)
    if len(pieces) < 2 or pieces[0] or not re.fullmatch(rb"--[ \t]*(\r?\n)?", pieces[-1]):
        raise Refused(400, "badContent", "no parts")
    return [part_of(piece) for piece in pieces[1:-1]]


def part_of(piece: bytes) -> tuple[dict[str, str], bytes]:
    """Headers (names in lower case) and body of what stands between two boundaries."""
    found = re.match(rb"\r?\n((?:[^\r\n]+\r?\n)*)\r?\n", piece)
    if found is None:
        raise Refused(400, "badContent", "a part without headers")
    lines = [line.decode("latin-1").partition(":") for line in found[1].splitlines()]
    return {name.strip().lower(): value.strip() for name, _, value in lines}, piece[found.end() :]


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError as problem:
        raise Refused(400, "parseError", "Parse Error") from problem
