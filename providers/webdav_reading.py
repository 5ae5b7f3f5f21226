"""Reading a range of an object over HTTP: from as many requests as a line that breaks takes, and from servers that
answer a range with less, or with everything. RFC 9110, sections 13 to 15."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from chatkeep.providers import base, webdav_replies
from chatkeep.providers.webdav_replies import Nonsense, Resource

if TYPE_CHECKING:
    import httpx

    from chatkeep.providers.webdav_wire import Wire

_REQUESTS: Final = 256
"""Most requests for one range. Each but the last brought bytes; a server that sends one at a time is not waited for."""


class Reading:
    """One range of one object.

    Args:
        wire: speaks to the server.
        name, place: of the object.
        described: what the server says about the place, None where nothing is.
        absent: makes the error for an object that is not there.
        offset, length: as `base.Provider.get`; not an empty range.
    """

    def __init__(
        self,
        wire: Wire,
        name: str,
        place: str,
        described: Callable[[], Resource | None],
        absent: Callable[[], base.ProviderError],
        offset: int,
        length: int | None,
    ) -> None:
        self._wire, self._name, self._place = wire, name, place
        self._described, self._absent = described, absent
        self._offset, self._length = offset, length
        self._parts: list[bytes] = []
        self._received = 0
        self._start = offset if offset >= 0 else None  # from the end: known when the size is
        self._total: int | None = None
        self._version = ""  # the ETag of the first reply

    def read(self) -> bytes:
        """The bytes.

        Raises:
            Unavailable: the line broke and the next request brought nothing, or the replies do not fit together.
            ObjectNotFound, StorageMissing, PermissionRefused, CredentialRefused: as the server says.
        """
        for _ in range(_REQUESTS):
            before, known = self._received, self._start
            try:
                done = self._once()
            except base.Unavailable:
                if self._received == before:
                    raise
                continue
            except Nonsense as problem:
                raise self._unfit(str(problem.args[0])) from problem
            if done:
                return b"".join(self._parts)
            if self._received == before and self._start == known:
                raise self._unfit("no-progress")
        raise self._unfit("no-end")

    def _once(self) -> bool:
        """One request; whether the range is complete now."""
        with self._wire.reply("GET", self._place, self._headers()) as response:
            status = response.status_code
            if status in (200, 206):
                self._must_fit(response)
                return self._part(response) if status == 206 else self._whole(response)
        if status == 416:
            return self._outside(response)
        raise self._error(response)

    def _headers(self) -> dict[str, str]:
        if self._start is None:
            return {"Range": f"bytes={self._offset}"}
        end = self._end()
        if self._start + self._received == 0 and end is None:
            return {}
        headers = {"Range": f"bytes={self._start + self._received}-{'' if end is None else end - 1}"}
        # A weak tag may not stand there; the tags of the replies are compared instead.
        if self._version and not self._version.startswith("W/"):
            headers["If-Range"] = self._version
        return headers

    def _end(self) -> int | None:
        """The first byte after the range, where that is known."""
        ends = [] if self._total is None else [self._total]
        if self._start is not None and self._length is not None:
            ends.append(self._start + self._length)
        return min(ends) if ends else None

    def _must_fit(self, response: httpx.Response) -> None:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise Nonsense("encoded")
        version = response.headers.get("etag", "")
        if not webdav_replies.same_version(self._version, version):
            raise Nonsense("changed")
        self._version = version or self._version
        # A file has at least one of the two. A collection may be shown as a page for people, and a gateway may answer
        # with a form to log in; neither is the object.
        if not version and "last-modified" not in response.headers:
            found = self._described()
            if found is None or found.collection:
                raise self._absent()

    def _part(self, response: httpx.Response) -> bool:
        span = webdav_replies.span(response.headers.get("content-range", ""))
        if span.total is not None:
            self._sized(span.total)
        if self._start is None:
            self._sized(self._described_size() if span.total is None else span.total)
            self._start = max(0, (self._total or 0) + self._offset)
            if span.start != self._start:
                return False  # a server that counts from the end in its own way: ask by the position
        if span.start != self._start + self._received:
            raise Nonsense("content-range")
        end = self._end()
        stop = span.end if end is None else min(span.end, end)
        self._take(response.iter_raw(), 0, max(0, stop - span.start))
        if self._start + self._received < stop:
            raise base.Unavailable(provider=self._wire.name, object=self._name, reason="broken")
        return end is None or self._start + self._received >= end

    def _whole(self, response: httpx.Response) -> bool:
        """The reply of a server that does not do ranges, or was asked for everything."""
        told = response.headers.get("content-length", "")
        if told.isdigit():
            self._sized(int(told))
        elif "transfer-encoding" not in response.headers or self._start is None:
            self._sized(self._described_size())  # nothing else tells the end from a line that broke
        if self._start is None:
            self._start = max(0, (self._total or 0) + self._offset)
        end = self._end()
        skipped = self._start + self._received
        self._take(response.iter_raw(), skipped, None if end is None else max(0, end - skipped))
        if end is not None and self._start + self._received < end:
            raise base.Unavailable(provider=self._wire.name, object=self._name, reason="broken")
        return True

    def _outside(self, response: httpx.Response) -> bool:
        """Nothing is there: right when the object ends before the range begins."""
        told = webdav_replies.size_outside(response.headers.get("content-range", ""))
        self._sized(self._described_size() if told is None else told)
        if self._start is None:
            self._start = max(0, (self._total or 0) + self._offset)
        return self._start + self._received >= (self._total or 0)

    def _take(self, pieces: Iterator[bytes], skip: int, wanted: int | None) -> None:
        for each in pieces:
            piece = each[skip:]
            skip -= min(skip, len(each))
            if wanted is not None:
                piece = piece[:wanted]
                wanted -= len(piece)
            if piece:
                self._parts.append(piece)
                self._received += len(piece)
            if wanted == 0:
                return

    def _sized(self, total: int) -> None:
        if self._total is not None and self._total != total:
            raise Nonsense("changed")
        self._total = total

    def _described_size(self) -> int:
        found = self._described()
        if found is None or found.collection:
            raise self._absent()
        if found.size is None:
            raise Nonsense("no-size")
        return found.size

    def _error(self, response: httpx.Response) -> base.ProviderError:
        status = response.status_code
        if status in (404, 410):
            return self._absent()
        # Servers refuse to send a collection, or send on to its page, or stumble over a file that just went.
        if 300 <= status < 400 or status in (403, 405, 500, 501):
            found = self._described()
            if found is None or found.collection:
                return self._absent()
        return self._wire.refused(response, object=self._name)

    def _unfit(self, reason: str) -> base.Unavailable:
        return base.Unavailable(provider=self._wire.name, object=self._name, reason=reason)
