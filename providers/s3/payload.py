"""A body on its way: not copied, and not hashed again.

The client library signs a digest of the body, and hashes it for that although the name of a pack is its SHA-256
already: half of the cost of a put. So a body carries its digest, and a signer of our own takes it from there. The
server then compares what arrives with what was signed, which is how a bit that flipped on the way is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from typing import Any, Final

from botocore import auth

SIGNATURE: Final = "chatkeep-s3v4"
_BLOCK: Final = 1 << 20
_PACED: Final = 1 << 16  # the most that `base.Paced` lets leave at once


class Payload:
    """What the client library sends: reads like a file.

    Args:
        body: the bytes; a view of them is enough.
        sha256: their digest in hex, where it is known.
        pace: called before bytes leave, see `base.Paced`.

    Attributes:
        stopped: what `pace` raised.
    """

    def __init__(
        self, body: bytes | memoryview, sha256: str | None = None, pace: Callable[[int], None] | None = None
    ) -> None:
        self._body = memoryview(body)
        self._at = 0
        self._pace = pace
        self.sha256 = sha256 or hashlib.sha256(body).hexdigest()
        self.stopped: BaseException | None = None

    def __len__(self) -> int:
        return len(self._body)

    def read(self, _size: int | None = None) -> memoryview:
        """The next bytes, at most a block of them.

        Which may be more than was asked for: that is the buffer of whoever copies a file in small pieces, and these
        bytes need none. With 16 KiB at a time the calls alone cost more than the signature.
        """
        end = min(len(self._body), self._at + (_PACED if self._pace else _BLOCK))
        if self._pace and end > self._at:
            try:
                self._pace(end - self._at)
            except BaseException as problem:
                self.stopped = problem
                raise
        piece = self._body[self._at : end]
        self._at = end
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To a place in the body."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._body)}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    @contextlib.contextmanager
    def sending(self) -> Any:
        """Around the request: what `pace` raised comes out as it was, not as what the client library made of it."""
        try:
            yield
        except Exception as problem:
            if self.stopped is not None and self.stopped is not problem:
                raise self.stopped from None
            raise


class _SignsKnownDigest(auth.S3SigV4Auth):
    """Signature version 4, with the digest that the body brings."""

    def payload(self, request: Any) -> str:
        body = request.body
        return body.sha256 if isinstance(body, Payload) else str(super().payload(request))


def use_known_digests(client: Any) -> None:
    """Makes a client of S3 sign a `Payload` by the digest that it carries."""
    # The library's table of signatures is how it is given another one; a name of ours changes nothing for others.
    auth.AUTH_TYPE_MAPS.setdefault(SIGNATURE, _SignsKnownDigest)
    for operation in ("PutObject", "UploadPart"):
        client.meta.events.register_first(f"choose-signer.s3.{operation}", _ours)


def _ours(signature_version: object = None, **_: object) -> str | None:
    return SIGNATURE if signature_version in ("s3v4", "v4") else None
