"""Objects in parts: what a poor line did not take in one request, and what is too large for one.

A put that breaks has sent its megabytes for nothing; repeated whole on a line that breaks every minute it never ends.
So an object whose put broke goes on in parts of 5 MiB (the least that S3 allows), and only what is missing is sent.
What makes that hold over a restart is written into the memo *before* it is relied upon: that a put broke, the id of the
upload before its first part, and each part when it is stored. The service is asked too (`list_parts`), for a part whose
reply was lost; a credential that may only put is not answered, and then the memo stands alone.

An upload that is never completed costs room that no listing shows. Ours are given up (`abort`) when their object is
there, is deleted, or has other bytes, and after a week; for what a lost memo knew the bucket should have a lifecycle
rule.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from botocore.exceptions import ClientError

from chatkeep.providers.memo import Memo
from chatkeep.providers.s3 import errors
from chatkeep.providers.s3.payload import Payload
from chatkeep.providers.s3.reading import Broken

PART: Final = 5 << 20
"""Least size in bytes of a part that is not the last, and what we send: R2 wants all but the last to be equal."""
LARGE: Final = 64 << 20
"""From this size on an object goes in parts at once: a break costs one part, not all of it."""
GIVEN_UP: Final = 7 * 86400.0
"""Seconds after which an upload that nobody went on with is aborted."""
_MOST_PARTS: Final = 10_000
_VERSION: Final = 1


@dataclass(slots=True)
class Record:
    """What the memo knows of one object.

    Attributes:
        begun: when, in seconds since 1970, by this machine's clock.
        upload: the service's id; None while a put broke and no upload was begun.
        sha256, size: of the body; with another body the upload is of no use.
        part: bytes of each part but the last.
        parts: number (from 1, as text) > ETag of those that are stored.
    """

    begun: float
    sha256: str
    size: int
    part: int = PART
    upload: str | None = None
    parts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Guard:
    """What shows damage on the way where the service does not verify the digest of the signature.

    Attributes:
        declares: an MD5 goes along, which it refuses a body by.
        compares: the tag that it reports is the MD5 of what it took.
    """

    declares: bool = False
    compares: bool = False


def part_size(size: int) -> int:
    """Bytes of each part of an object of `size`."""
    return max(PART, -(-size // _MOST_PARTS))


class Uploads:
    """The uploads in parts of one provider.

    Args:
        client: gives the client of S3.
        where: bucket and key of an object name.
        memo, place: what remembers, and the words its keys begin with: uploads of another bucket are not of this one.
    """

    def __init__(
        self, client: Callable[[], Any], where: Callable[[str], dict[str, Any]], memo: Memo, place: str
    ) -> None:
        self._client = client
        self._where = where
        self._memo = memo
        self._words = f"upload:{place}:"
        self._lock = threading.Lock()
        self._swept = False

    def is_due(self, name: str, size: int) -> bool:
        """Whether an object is to go in parts."""
        return size >= LARGE or (size > PART and self._memo.get(self._words + name) is not None)

    def broke(self, name: str, body: bytes) -> None:
        """A put of the object broke on its way: the next goes in parts."""
        if len(body) > PART:
            fresh = Record(time.time(), hashlib.sha256(body).hexdigest(), len(body), part_size(len(body)))
            self._memo.add(self._words + name, _encode(fresh))

    def send(self, name: str, body: bytes, options: dict[str, Any], condition: dict[str, Any], guard: Guard,
             pace: Callable[[int], None] | None) -> None:  # fmt: skip
        """Sends what is missing and completes the object. Killed or failed anywhere, the next call goes on from there.
        Not for one name by two threads at once.

        Args:
            options: further parameters of create_multipart_upload: storage class, lock.
            condition: further parameters of complete_multipart_upload.
            guard: of each part.

        Raises:
            Broken: a reply that no service of S3 gives, or a part that arrived as other bytes.
            ClientError, BotoCoreError: NoSuchUpload is one that somebody else completed or aborted; it is forgotten.
        """
        record = self._record(name, body)
        try:
            if record.upload is None:
                reply = self._client().create_multipart_upload(**self._where(name), **options)
                record.upload = _said(reply, "UploadId")
                self._keep(name, record)
            else:
                self._ask(name, record, body)
            self._send_missing(name, record, body, guard, pace)
            self._complete(name, record, condition)
        except ClientError as problem:
            if errors.code_of(problem) in errors.ANEW:
                self.abandon(name)
            raise
        self._memo.delete(self._words + name)

    def abandon(self, name: str) -> None:
        """Gives up what was begun of an object, if anything was. That it cannot be aborted is no error."""
        raw = self._memo.get(self._words + name)
        if raw is None:
            return
        record = _decode(raw)
        if record is not None and record.upload is not None:
            try:
                self._client().abort_multipart_upload(**self._where(name), UploadId=record.upload)
            except ClientError:  # refused, or gone already: asking again changes nothing
                pass
            except errors.TROUBLE:
                return  # the service is away: the record stays, so that it is tried again
        self._memo.delete(self._words + name)

    def sweep(self) -> None:
        """Gives up, once in a process, what nobody went on with for a week."""
        with self._lock:
            due, self._swept = not self._swept, True
        if not due:
            return
        for key, raw in self._memo.items(self._words):
            record = _decode(raw)
            if record is None or not 0 <= time.time() - record.begun < GIVEN_UP:
                self.abandon(key.removeprefix(self._words))

    def _record(self, name: str, body: bytes) -> Record:
        digest = hashlib.sha256(body).hexdigest()
        raw = self._memo.get(self._words + name)
        record = _decode(raw) if raw is not None else None
        if record is not None and (record.sha256, record.size) == (digest, len(body)):
            return record
        self.abandon(name)
        return Record(time.time(), digest, len(body), part_size(len(body)))

    def _keep(self, name: str, record: Record) -> None:
        self._memo.set(self._words + name, _encode(record))

    def _ask(self, name: str, record: Record, body: bytes) -> None:
        """Adds the parts that are stored although their reply was lost, and takes out those that are not."""
        found: dict[str, str] = {}
        marker = 0
        while True:
            try:
                page = self._client().list_parts(**self._where(name), UploadId=record.upload, PartNumberMarker=marker)
            except ClientError as problem:
                if errors.status_of(problem) in (403, 405, 501):
                    return  # it may not be asked, or does not know the question
                if errors.code_of(problem) == "NoSuchKey":  # Ceph's word for an upload that is gone
                    self.abandon(name)
                    raise Broken("no such upload") from problem
                raise
            for each in page.get("Parts", []):
                number, tag = str(each["PartNumber"]), str(each["ETag"])
                if record.parts.get(number) == tag or self._is_ours(record, body, each["PartNumber"], tag):
                    found[number] = tag
            following = page.get("NextPartNumberMarker", 0)
            if not page.get("IsTruncated") or not marker < following <= _MOST_PARTS:
                break
            marker = following
        record.parts = found

    def _is_ours(self, record: Record, body: bytes, number: int, tag: str) -> bool:
        """Whether a part that the memo does not know holds our bytes; where its ETag is no MD5 it is sent again."""
        piece = _piece(record, memoryview(body), number)
        return tag.strip('"') == hashlib.md5(piece, usedforsecurity=False).hexdigest()

    def _send_missing(
        self, name: str, record: Record, body: bytes, guard: Guard, pace: Callable[[int], None] | None
    ) -> None:
        view = memoryview(body)
        for number in range(1, max(1, -(-record.size // record.part)) + 1):
            if str(number) in record.parts:
                continue
            piece = _piece(record, view, number)
            payload = Payload(piece, pace=pace)
            digest = hashlib.md5(piece, usedforsecurity=False) if guard.declares else None
            more = {"ContentMD5": base64.b64encode(digest.digest()).decode()} if digest else {}
            with payload.sending():
                reply = self._client().upload_part(
                    **self._where(name), UploadId=record.upload, PartNumber=number, Body=payload, **more
                )
            tag = _said(reply, "ETag")
            if guard.compares and digest and tag.strip('"') != digest.hexdigest():
                raise Broken("another part than was sent")  # not kept: sent again, it takes the place of this one
            record.parts[str(number)] = tag
            self._keep(name, record)

    def _complete(self, name: str, record: Record, condition: dict[str, Any]) -> None:
        parts = [{"PartNumber": int(number), "ETag": tag} for number, tag in record.parts.items()]
        reply = self._client().complete_multipart_upload(
            **self._where(name),
            UploadId=record.upload,
            MultipartUpload={"Parts": sorted(parts, key=lambda each: int(str(each["PartNumber"])))},
            **condition,
        )
        # Begun before it is done, this reply may end without having said anything; or it is of a gateway. Ceph's has an
        # empty ETag: there it says enough by naming the object.
        if not reply.get("Key"):
            _said(reply, "ETag")


def _said(reply: Any, what: str) -> str:
    """What a reply must say. One of 200 without it has done nothing that can be relied upon."""
    said = str(reply.get(what) or "")
    if not said:
        raise Broken("no reply of S3")
    return said


def _piece(record: Record, view: memoryview, number: int) -> memoryview:
    return view[(number - 1) * record.part : number * record.part]


def _encode(record: Record) -> bytes:
    return json.dumps({"version": _VERSION, **dataclasses.asdict(record)}).encode()


def _decode(raw: bytes) -> Record | None:
    """None for what another version wrote, or nobody."""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        found = json.loads(raw)
        if found.pop("version", None) == _VERSION:
            return Record(**found)
    return None
