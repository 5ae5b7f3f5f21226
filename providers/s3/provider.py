"""A bucket as a provider. What its service can do is asked, see `facts`; how it is reached, see `client`."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime as dt
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from chatkeep.providers import base, probing
from chatkeep.providers.learned import Learned
from chatkeep.providers.memo import Memo
from chatkeep.providers.paging import Pages
from chatkeep.providers.s3 import errors, facts, reading
from chatkeep.providers.s3.client import Requests, Settings, make_client
from chatkeep.providers.s3.payload import Payload
from chatkeep.providers.s3.uploads import Guard, Uploads
from chatkeep.providers.turns import Turns

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


class S3Provider:
    """Objects in a bucket. See `base.Provider` for the verbs, and `Paced`, `Retains` and `Usage` for the others.

    Args:
        name: the configured name.
        settings: which bucket.
        memo: keeps what was learned of the service, and how far uploads in parts got.

    Attributes:
        learned: what the service was seen to do.
    """

    def __init__(self, name: str, settings: Settings, memo: Memo) -> None:
        self.name = name
        self._settings = settings
        self._memo = memo
        # What is remembered is of this bucket, not of whatever the configuration calls by this name tomorrow.
        place = f"{settings.endpoint}\0{settings.region}\0{settings.bucket}\0{settings.prefix}"
        self._place = hashlib.sha256(place.encode()).hexdigest()[:16]
        self._turns = Turns()
        self._lock = threading.Lock()
        self._opened: S3Client | None = None
        self.learned = Learned(memo, f"facts:{self._place}", facts.Facts, facts.VERSION)
        self._requests = Requests()
        self._uploads = Uploads(self._client, self._where, memo, self._place)

    def put(self, name: str, body: bytes) -> None:
        self._put(name, body, None)

    def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
        """See `base.Paced`."""
        self._put(name, body, pace)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length is not None and length < 0:
            raise ValueError("length")
        base.validate_name(name)
        with errors.edge(self.name, name):
            try:
                return reading.read(self._client(), self._where(name), offset, length, lambda: self.stat(name).size)
            except ClientError as problem:
                if errors.status_of(problem) == 412:  # deleted and put anew while it was read: begin again
                    raise base.Unavailable(provider=self.name, object=name, status=412) from problem
                raise

    def stat(self, name: str) -> base.ObjectStat:
        base.validate_name(name)
        with errors.edge(self.name, name):
            found = self._head(name)
            if found is None:
                # The reply to HEAD has no body that would tell a missing object from a missing bucket.
                found = self._client().get_object(**self._where(name))
                found["Body"].close()  # it came a moment ago
                self._require("ETag" in found and "ContentLength" in found, name)
            return base.ObjectStat(name, int(found["ContentLength"]), _seconds(found.get("LastModified")))

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        return self._listing(prefix)

    def delete(self, name: str) -> None:
        base.validate_name(name)
        with errors.edge(self.name, name):
            self._uploads.abandon(name)
            if self._may_be_held():
                self._must_be_free(name)
            try:
                reply = self._client().delete_object(**self._where(name))
            except ClientError as problem:
                if errors.code_of(problem) != "NoSuchKey":
                    raise
            else:
                self._require(errors.status_in(reply) == 204, name)

    def probe(self) -> base.Capabilities:
        with errors.edge(self.name):
            self._learn()
        known = self._facts()
        seen = probing.observe(self)
        return dataclasses.replace(
            seen,
            exclusive_create=known.conditional,
            refuses_damage=known.refuses,
            reports_digest=known.reports,
            versions=known.versions,
            object_lock=known.object_lock,
        )

    def retain(self, name: str, until: float) -> None:
        """See `base.Retains`."""
        base.validate_name(name)
        with errors.edge(self.name, name):
            held = self._head(name)
            if held is None:
                self.stat(name)  # says what is missing: this object, its bucket, or the service
                raise base.Unavailable(provider=self.name, object=name, reason="appeared")
            now = _seconds(held.get("ObjectLockRetainUntilDate"))
            if now is not None and now >= until:
                return
            mode = str(held.get("ObjectLockMode") or "COMPLIANCE")
            body = {"Mode": mode, "RetainUntilDate": _date(until)}
            try:
                self._client().put_object_retention(**self._where(name), Retention=body)
            except ClientError as problem:
                # Without object lock each service calls the request wrong in its own way; the object is there.
                if errors.status_of(problem) in (400, 404, 405, 501) and errors.code_of(problem) not in errors.ABSENT:
                    raise base.PermissionRefused(provider=self.name, object=name, reason="no-lock") from problem
                raise

    def requests(self) -> Mapping[str, int]:
        """See `base.Usage`."""
        return self._requests.counts()

    def close(self) -> None:
        with self._lock:
            client, self._opened = self._opened, None
        if client is not None:
            client.close()

    # How a put goes.

    def _put(self, name: str, body: bytes, pace: Callable[[int], None] | None) -> None:
        base.validate_name(name)
        with errors.edge(self.name, name):
            known = self._facts()
            self._uploads.sweep()
            in_parts = self._uploads.is_due(name, len(body))
            # Two that sent one object in parts at once would send each part twice, and end each other's upload.
            with self._turns.of(name) if in_parts else contextlib.nullcontext():
                self._put_now(name, body, known, pace, in_parts=in_parts)

    def _put_now(
        self, name: str, body: bytes, known: facts.Facts, pace: Callable[[int], None] | None, *, in_parts: bool
    ) -> None:
        try:
            # In parts, the condition comes last, and some services know it for single puts only: looked at before.
            if (in_parts or not known.conditional) and self._stands(name, body):
                self._uploads.abandon(name)
                return
            condition = {"IfNoneMatch": "*"} if known.conditional else {}
            try:
                if in_parts:
                    self._uploads.send(name, body, self._options(), condition, self._guard(known), pace)
                else:
                    self._send(name, body, known, condition, pace)
            except ClientError as problem:
                if errors.code_of(problem) not in errors.TAKEN and errors.status_of(problem) != 412:
                    raise self._refused(problem, name, body) from problem
                self._settle(name, body, known, pace)
        except base.ObjectConflict:
            self._uploads.abandon(name)  # it will never become the object, and costs room
            raise

    def _send(
        self,
        name: str,
        body: bytes,
        known: facts.Facts,
        condition: Mapping[str, str],
        pace: Callable[[int], None] | None,
    ) -> None:
        """One request. `condition`: as put_object takes it."""
        payload = Payload(body, base.named_sha256(name), pace)
        digest: dict[str, str] = {}
        guard = self._guard(known)
        if guard.declares:
            digest["ContentMD5"] = base64.b64encode(_md5(body)).decode()
        call: Any = self._client().put_object
        try:
            with payload.sending():
                reply = call(**self._where(name), Body=payload, **self._options(), **condition, **digest)
        except ClientError:
            raise
        except errors.TROUBLE:
            if not known.conditional:
                self._memo.set(self._broken_key(name), hashlib.sha256(body).digest())
            if payload.stopped is None:
                self._uploads.broke(name, body)
            raise
        if not known.conditional:
            self._memo.delete(self._broken_key(name))
        tag = str(reply.get("ETag", "")).strip('"')
        self._require(bool(tag), name)
        if guard.compares and tag != _md5(body).hex():
            self._take_back(name, tag)

    def _guard(self, known: facts.Facts) -> Guard:
        """How a body is kept from damage on the way where its signature does not do that."""
        # Object lock wants a digest in a header of its own. There the tag is no MD5 once the bucket encrypts by keys.
        return Guard(known.needs_md5 or bool(self._settings.retain), known.needs_md5 and known.reports == "md5")

    def _take_back(self, name: str, tag: str) -> None:
        """What arrived is not what was sent, and the service took it: it must not stay under a name that says more."""
        try:
            self._client().delete_object(**self._where(name))
        except ClientError as problem:
            raise base.ObjectDamaged(provider=self.name, object=name, reported=tag) from problem
        raise base.Unavailable(provider=self.name, object=name, reason="damaged")

    def _refused(self, problem: ClientError, name: str, body: bytes) -> base.ProviderError:
        """What a refusal of the body means: it was damaged on its way, or is not what its name says."""
        named = base.named_sha256(name)
        wrong = named is not None and hashlib.sha256(body).hexdigest() != named
        if errors.code_of(problem) in errors.DAMAGED:
            kind = base.ObjectDamaged if wrong else base.Unavailable
            return kind(provider=self.name, object=name, reply=errors.code_of(problem))
        return errors.translated(problem, self.name, name)

    def _settle(
        self, name: str, body: bytes, known: facts.Facts, pace: Callable[[int], None] | None
    ) -> None:  # fmt: skip
        """The name is taken: by an earlier try of ours whose reply was lost, or by other bytes."""
        try:
            if self._holds(name, body):
                self._uploads.abandon(name)
                return
        except base.ObjectNotFound as problem:  # deleted a moment ago, or still being written by another
            raise base.Unavailable(provider=self.name, object=name, status=412) from problem
        except base.CredentialRefused:
            raise
        except base.PermissionRefused:
            # It may not be looked at. Where the name is the hash of these very bytes, putting them again is right.
            if not _is_named_for(name, body):
                raise
            self._send(name, body, known, {}, pace)
            self._uploads.abandon(name)
            return
        raise base.ObjectConflict(provider=self.name, object=name)

    def _stands(self, name: str, body: bytes) -> bool:
        """Whether the object is there already. Raises ObjectConflict when other bytes are."""
        try:
            same = self._holds(name, body)
        except base.ObjectNotFound:
            return False
        except base.CredentialRefused:
            raise
        except base.PermissionRefused:
            # The condition of the put itself, or that its name is the hash of these very bytes, will do.
            if not (self._facts().conditional or _is_named_for(name, body)):
                raise
            return False
        if not same and not self._is_our_half(name, body):
            raise base.ObjectConflict(provider=self.name, object=name)
        return same

    def _is_our_half(self, name: str, body: bytes) -> bool:
        """A gateway to a file system, rclone for one, may keep the first half of a put of ours that broke. That half is
        nobody's object: it is replaced. Other bytes are somebody's, who put them meanwhile."""
        if self._memo.get(self._broken_key(name)) != hashlib.sha256(body).digest():
            return False
        try:
            found = self.get(name, 0, len(body))
        except base.ObjectNotFound:
            return True  # the gateway cleared it away just now
        return len(found) < len(body) and body.startswith(found)

    def _holds(self, name: str, body: bytes) -> bool:
        """Whether what stands under the name is `body`. Raises ObjectNotFound, PermissionRefused."""
        with errors.edge(self.name, name):
            found = self._head(name)
            if found is None:
                raise base.ObjectNotFound(provider=self.name, object=name)
            if int(found["ContentLength"]) != len(body):
                return False
            if self._facts().reports == "md5" and str(found.get("ETag", "")).strip('"') == _md5(body).hex():
                return True
            return self.get(name) == body

    # What is there.

    def _head(self, name: str) -> Any:
        """What the service says of the object; None when it has none."""
        try:
            reply = self._client().head_object(**self._where(name))
        except ClientError as problem:
            if errors.status_of(problem) == 404:
                return None
            raise
        self._require("ETag" in reply and "ContentLength" in reply, name)
        return reply

    def _require(self, sensible: bool, name: str | None = None) -> None:
        """A reply that no service of S3 gives, such as that of a gateway which wants a login, has done nothing."""
        if not sensible:
            raise base.Unavailable(provider=self.name, object=name, reason="reply")

    def _listing(self, prefix: str) -> Iterator[base.ObjectStat]:
        begin = f"{self._settings.prefix}/" if self._settings.prefix else ""
        more: dict[str, str] = {}
        pages = Pages(self.name)
        while True:
            with errors.edge(self.name):
                page: Any = self._client().list_objects_v2(
                    Bucket=self._settings.bucket,
                    Prefix=begin + prefix,
                    **more,
                )
            self._require("IsTruncated" in page)
            found = {str(each["Key"]): each for each in page.get("Contents", [])}
            for key in pages.new(found):
                name, each = key.removeprefix(begin), found[key]
                if base.is_name(name) and name.startswith(prefix):
                    yield base.ObjectStat(name, int(each["Size"]), _seconds(each.get("LastModified")))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": str(page.get("NextContinuationToken") or "")}
            self._require(bool(more["ContinuationToken"]))

    def _may_be_held(self) -> bool:
        """Whether the bucket may have a lock: unless it said that it has none. A memo that was lost has not said so."""
        known = self.learned.last()
        return bool(self._settings.retain) or known is None or known.object_lock is not False

    def _must_be_free(self, name: str) -> None:
        """With versions a delete of a locked object succeeds: it hides the object and frees nothing. Not done."""
        try:
            held = self._head(name) or {}
        except ClientError as problem:
            if errors.status_of(problem) == 403:
                return
            raise
        until = _seconds(held.get("ObjectLockRetainUntilDate")) or 0.0
        if until > time.time() or held.get("ObjectLockLegalHoldStatus") == "ON":
            raise base.ObjectHeld(provider=self.name, object=name, until=until or None)

    # What is known of the service.

    def _facts(self) -> facts.Facts:
        """What was learned; asked for when it is needed first, and again when it is no longer believed."""
        known = self.learned.fresh()
        if known is not None:
            return known
        try:
            return self._learn()
        except ClientError as problem:
            # A policy that lets objects be put and nothing under probe/: then nothing is proven, and used.
            if type(errors.translated(problem, self.name)) is not base.PermissionRefused:
                raise
            return self.learned.keep(facts.Facts(), lasting=False)

    def _learn(self) -> facts.Facts:
        return self.learned.keep(facts.learn(self._client(), self._where))

    def _broken_key(self, name: str) -> str:
        return f"broke:{self._place}:{name}"

    # How it is reached.

    def _client(self) -> Any:
        with self._lock:
            if self._opened is None:
                with errors.edge(self.name):
                    self._opened = make_client(self._settings, self._requests)
            return self._opened

    def _where(self, name: str) -> dict[str, Any]:
        prefix = self._settings.prefix
        return {"Bucket": self._settings.bucket, "Key": f"{prefix}/{name}" if prefix else name}

    def _options(self) -> dict[str, Any]:
        """Of everything that makes an object."""
        found: dict[str, Any] = {}
        if self._settings.storage_class:
            found["StorageClass"] = self._settings.storage_class
        if self._settings.retain:
            found["ObjectLockMode"] = "COMPLIANCE"
            found["ObjectLockRetainUntilDate"] = _date(time.time() + self._settings.retain)
        return found


def _is_named_for(name: str, body: bytes) -> bool:
    return base.named_sha256(name) == hashlib.sha256(body).hexdigest()


def _md5(body: bytes) -> bytes:
    # Not for security: it shows what a line did to a body, and is what services verify.
    return hashlib.md5(body, usedforsecurity=False).digest()


def _seconds(moment: dt.datetime | None) -> float | None:
    # Whole ones: a listing tells more of a second than a reply about the object does, and they are one time.
    return float(int(moment.timestamp())) if moment is not None else None


def _date(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(seconds) + 1, dt.UTC)
