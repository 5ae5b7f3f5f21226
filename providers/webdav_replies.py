"""What WebDAV servers answer, as values: statuses as errors, listings as resources. Pure.

HTTP semantics: RFC 9110. WebDAV: RFC 4918. Quota properties: RFC 4331.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit
from xml.parsers import expat

from chatkeep.providers import base

PROPERTIES: Final = (
    b'<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/>'
    b"<getlastmodified/></prop></propfind>"
)
"""The body of a PROPFIND: only what is used, since servers compute some of the rest (checksums, locks)."""

QUOTA: Final = (
    b'<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop><quota-available-bytes/></prop></propfind>'
)

# A listing comes from a stranger: it may nest for ever, hold one endless text, or grow in memory by entities. What the
# parser keeps by itself until it ends (a tag, a comment) has a bound of its own, and so have the paths, which stay.
_DEEPEST, _LONGEST, _MOST = 32, 16_384, 2_000_000
_UNENDED, _PATHS = 1 << 20, 256 << 20
_KEPT: Final = frozenset({"resourcetype", "getcontentlength", "getlastmodified", "quota-available-bytes"})
_DAV: Final = "DAV: "
_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_OUTSIDE: Final = re.compile(r"bytes \*/(\d{1,19})")


class Nonsense(ValueError):
    """A reply that is not what the protocol says. `args[0]` is a word for it, and never part of the reply."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One entry of a listing.

    Attributes:
        path: the path of its URL, decoded, without a slash at the end.
        collection: it is a folder.
        size: bytes, None where not said.
        modified: seconds since 1970 UTC, None where not said.
        free: bytes of room left, None where not said. Nextcloud says -1, -2 and -3 for what it does not know, and for
            a quota without a bound; those are None too.
    """

    path: str
    collection: bool = False
    size: int | None = None
    modified: float | None = None
    free: int | None = None


@dataclass
class _Open:
    """The response element that is being read."""

    path: str = ""
    status: str = "200"
    standing: str = ""  # status of the propstat that is being read
    pending: dict[str, str] = field(default_factory=dict)  # of that propstat, until its status is known
    found: dict[str, str] = field(default_factory=dict)


class _Listing:
    """Reads a multistatus as it arrives."""

    def __init__(self) -> None:
        self.resources: list[Resource] = []
        self._stack: list[str] = []
        self._text: list[str] = []
        self._length = 0
        self._open = _Open()
        self._unended = self._paths = 0
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._doctype

    def feed(self, part: bytes, *, last: bool = False) -> None:
        self._unended += len(part)
        if self._unended > _UNENDED:
            raise Nonsense("size")
        try:
            self._parser.Parse(part, last)
        except expat.ExpatError as problem:
            raise Nonsense("xml") from problem

    def _doctype(self, *_: object) -> None:
        raise Nonsense("doctype")  # nothing in WebDAV has one; entities are declared there

    def _begin(self, name: str, _: object) -> None:
        self._unended = 0
        if not self._stack and name != f"{_DAV}multistatus":
            raise Nonsense("root")  # a page of a login form, say
        self._stack.append(name.removeprefix(_DAV) if name.startswith(_DAV) else "")
        if len(self._stack) > _DEEPEST or len(self.resources) > _MOST:
            raise Nonsense("size")
        self._text, self._length = [], 0
        if self._stack[-1] == "response" and len(self._stack) == 2:
            self._open = _Open()
        elif self._stack[-1] == "propstat":
            self._open.standing, self._open.pending = "", {}
        elif self._stack[-1] == "collection" and self._stack[-2] == "resourcetype":
            self._open.pending["collection"] = "yes"

    def _characters(self, text: str) -> None:
        self._length += len(text)
        if self._length > _LONGEST:
            raise Nonsense("size")
        self._text.append(text)

    def _end(self, _: str) -> None:
        name, text = self._stack.pop(), "".join(self._text).strip()
        above = self._stack[-1] if self._stack else ""
        self._text, self._length = [], 0
        if above == "prop" and name in _KEPT:
            self._open.pending.setdefault(name, text)
        elif name == "href" and above == "response":
            self._open.path = _path(text)
            self._paths += len(self._open.path)
            if self._paths > _PATHS:
                raise Nonsense("size")
        elif name == "status" and above == "propstat":
            self._open.standing = _status(text)
        elif name == "status" and above == "response":
            self._open.status = _status(text)
        elif name == "propstat" and self._open.standing == "200":
            self._open.found |= self._open.pending
        elif name == "response" and len(self._stack) == 1 and self._open.status == "200":
            self.resources.append(_resource(self._open))


def listing(parts: Iterable[bytes]) -> list[Resource]:
    """The resources in the body of a 207 reply, in its order.

    Raises:
        Nonsense: it is not a multistatus, or larger than any real one.
    """
    reading = _Listing()
    for part in parts:
        for at in range(0, len(part), _UNENDED):
            reading.feed(part[at : at + _UNENDED])
    reading.feed(b"", last=True)
    return reading.resources


def _resource(opened: _Open) -> Resource:
    found = opened.found
    size, free = found.get("getcontentlength", ""), found.get("quota-available-bytes", "")
    return Resource(
        opened.path,
        "collection" in found,
        int(size) if re.fullmatch(r"[0-9]{1,19}", size) else None,
        _seconds(found.get("getlastmodified", "")),
        int(free) if re.fullmatch(r"[0-9]{1,19}", free) else None,
    )


def _path(href: str) -> str:
    """Servers write a path or a whole URL, and percent-encode differently."""
    try:
        return unquote(urlsplit(href).path, errors="strict").rstrip("/")
    except ValueError:
        return "?"  # no path of ours: left out like any other stranger's


def _status(line: str) -> str:
    words = line.split()
    return words[1] if len(words) > 1 else ""


def _seconds(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Span:
    """What a Content-Range header says: the first byte, the one after the last, and the size of the whole if said."""

    start: int
    end: int
    total: int | None


def span(header: str) -> Span:
    """Reads the Content-Range of a 206 reply. Raises `Nonsense`."""
    found = _RANGE.fullmatch(header.strip())
    if found is None:
        raise Nonsense("content-range")
    read = Span(int(found[1]), int(found[2]) + 1, None if found[3] == "*" else int(found[3]))
    if read.end <= read.start or (read.total is not None and read.end > read.total):
        raise Nonsense("content-range")
    return read


def size_outside(header: str) -> int | None:
    """The size that the Content-Range of a 416 reply tells; None where it does not."""
    found = _OUTSIDE.fullmatch(header.strip())
    return int(found[1]) if found else None


def same_version(first: str, second: str) -> bool:
    """Whether two ETags may be of one version: weak comparison, as Apache calls the tag of a file weak for a second."""
    return not first or not second or first.removeprefix("W/") == second.removeprefix("W/")


def wait_asked(header: str, now: float) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date."""
    if re.fullmatch(r"\s*[0-9]{1,9}\s*", header):
        return float(header)
    when = _seconds(header)
    return None if when is None else max(0.0, when - now)


_REFUSED: Final = {
    401: base.CredentialRefused,
    403: base.PermissionRefused,
    405: base.PermissionRefused,
    501: base.PermissionRefused,
    407: base.PermissionRefused,
    413: base.QuotaExceeded,  # more than the server takes in one request: a person sets another limit
    507: base.QuotaExceeded,
}


def refusal(status: int, after: float | None, path: str, **params: object) -> base.ProviderError:
    """The error that a status means when nothing more is known: everything else may pass. `path`: of the root."""
    # The address is another one from now on. Followed, the password would go where a person never sent it.
    if status in (301, 308):
        return base.StorageMissing(status=status, reason="moved", path=path, **params)
    if status == 429 or (status == 503 and after is not None):
        return base.Throttled(after=after, status=status, **params)
    if status < 400:  # a page, or the way to one: whoever answers like that speaks no WebDAV
        return base.Unavailable(status=status, reason="no-answer", **params)
    return _REFUSED.get(status, base.Unavailable)(status=status, **params)
