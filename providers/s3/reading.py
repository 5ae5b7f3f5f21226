"""Bytes of an object, however the service answers a range, and whatever breaks on the way.

The client library never resumes a body that breaks; this does, by a range with If-Match, so that both halves are of one
object. Services that hold to the standard answer 206; rclone answers 200 with the right bytes; one that does not know
ranges sends everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from botocore.exceptions import ClientError

from chatkeep.providers.s3 import errors

_BLOCK: Final = 1 << 20
_BREAKS: Final = 40
"""Requests for one object after which it is given up although each brought something."""
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Broken(OSError):
    """The body ended early, and asking for the rest brought nothing."""


def read(
    client: Any, key: dict[str, Any], offset: int, length: int | None, size: Callable[[], int]
) -> bytes:  # fmt: skip
    """The bytes that `base.Provider.get` promises.

    Args:
        key: bucket and key.
        size: asks for the object's size; needed only where the service leaves open what it has sent.

    Raises:
        Broken, ClientError, BotoCoreError: as the service and the line have it. 412: replaced meanwhile.
    """
    if length == 0:
        size()  # nothing is wanted, and there must be an object to want nothing of
        return b""
    asked = _asked(offset, length)
    try:
        reply = client.get_object(**key, **({"Range": asked} if asked else {}))
    except ClientError as problem:
        if errors.status_of(problem) != 416:
            raise
        # The object is there. It ends before the range begins, or is shorter than the suffix, which rclone refuses.
        total = size()
        if offset >= 0 and offset < total:
            raise
        return b"" if offset >= 0 or not total else read(client, key, 0, length, size)
    if "ETag" not in reply or "ContentLength" not in reply:  # a gateway that wants a login, say
        reply["Body"].close()
        raise Broken("no reply of S3")
    start, wanted, skip = _given(reply, offset, length, size) if asked else (0, int(reply["ContentLength"]), 0)
    found = _Body(client, key, start, wanted + skip, str(reply.get("ETag", ""))).read(reply["Body"])
    return found[skip : skip + wanted] if skip or len(found) != wanted else found


def _asked(offset: int, length: int | None) -> str | None:
    if offset < 0:
        # A suffix and a length: what is too much comes too, which is never much, in place of a question for the size.
        return f"bytes={offset}"
    if length is None:
        return f"bytes={offset}-" if offset else None
    return f"bytes={offset}-{offset + length - 1}"


def _given(reply: Any, offset: int, length: int | None, size: Callable[[], int]) -> tuple[int, int, int]:
    """Where the body of a reply begins in the object, how much of it is wanted, and how much stands before that."""
    sent = int(reply["ContentLength"])
    said = _RANGE.fullmatch(str(reply.get("ContentRange", "")))
    total = int(said[3]) if said else size()
    start = max(0, total + offset) if offset < 0 else min(offset, total)
    most = total - start
    wanted = most if length is None else min(length, most)
    if said:
        if int(said[1]) > start:
            raise Broken("a range that begins too late")
        return int(said[1]), wanted, start - int(said[1])
    # Without Content-Range: either all of it, or the range alone.
    return (0, wanted, start) if sent == total else (start, wanted, 0)


class _Body:
    """A run of bytes of one object, asked for again from where it broke."""

    def __init__(self, client: Any, key: dict[str, Any], start: int, length: int, tag: str) -> None:
        self._client = client
        self._key = key
        self._start = start
        self._length = length
        self._match = {"IfMatch": tag} if tag else {}
        self._have: list[bytes] = []
        self._got = 0

    def read(self, body: Any) -> bytes:
        """All of it. Raises Broken."""
        for _ in range(_BREAKS):
            before = self._got
            cause = self._drain(body)
            if self._got >= self._length:
                return b"".join(self._have) if len(self._have) != 1 else self._have[0]
            if self._got == before:
                raise Broken("no progress") from cause
            body = self._ask()
        body.close()
        raise Broken("it breaks again and again")

    def _ask(self) -> Any:
        """The body of what is missing."""
        at = self._start + self._got
        last = self._start + self._length - 1
        reply = self._client.get_object(**self._key, **self._match, Range=f"bytes={at}-{last}")
        said = _RANGE.fullmatch(str(reply.get("ContentRange", "")))
        if (int(said[1]) if said else at) != at or int(reply.get("ContentLength", -1)) != last - at + 1:
            reply["Body"].close()
            raise Broken("another range than was asked for")
        return reply["Body"]

    def _drain(self, body: Any) -> BaseException | None:
        """Reads until the body ends, or breaks: what broke it."""
        try:
            while self._got < self._length:
                piece = body.read(min(_BLOCK, self._length - self._got))
                if not piece:
                    return None
                self._have.append(piece)
                self._got += len(piece)
        except errors.TROUBLE as problem:
            return problem
        finally:
            body.close()
        return None
