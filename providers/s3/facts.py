"""What this service does when asked, found out once by asking and kept in the memo.

Servers were measured that accept a condition and overwrite all the same, and ones that verify no digest whatever they
are sent. So nothing is taken from a manual, and what is not proven is not used. Five or six requests of a few bytes;
they need no more than the right to put, and what a credential may not delete again stays under `probe/`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from botocore.exceptions import ClientError

from chatkeep.providers.s3 import errors
from chatkeep.providers.s3.payload import Payload

VERSION: Final = 2
"""Of what `Facts` mean, in the memo."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen.

    Attributes:
        conditional: a put with If-None-Match: * was refused where an object was, and done where none was.
        refuses: the digest by which a body was refused that is not the declared one; None when it was stored.
        reports: the digest that the reply to a put reports (the ETag): md5, or None.
        versions, object_lock: as the bucket says; None where it may not be asked.
    """

    conditional: bool = False
    refuses: Literal["sha256", "md5"] | None = None
    reports: Literal["md5"] | None = None
    versions: bool | None = None
    object_lock: bool | None = None

    @property
    def needs_md5(self) -> bool:
        """Whether a body's MD5 is the only thing that shows damage on the way."""
        return self.refuses != "sha256" and (self.refuses == "md5" or self.reports == "md5")


Where: TypeAlias = Callable[[str], dict[str, Any]]
"""Bucket and key of an object name, as the client library takes them."""


def learn(client: Any, where: Where) -> Facts:
    """Asks the service.

    Raises:
        ClientError, BotoCoreError: it cannot be asked, or lets nothing be put.
    """
    used: list[str] = []

    def place() -> dict[str, Any]:
        used.append(f"probe/{os.urandom(16).hex()}")
        return where(used[-1])

    try:
        first = place()
        conditional, reports = _conditional(client, first)
        refuses = _refuses(client, place)
    finally:
        for name in used:
            with contextlib.suppress(*errors.TROUBLE):
                client.delete_object(**where(name))
    bucket = {"Bucket": first["Bucket"]}
    return Facts(conditional, refuses, reports, _versions(client, bucket), _object_lock(client, bucket))


def _conditional(client: Any, key: dict[str, Any]) -> tuple[bool, Literal["md5"] | None]:
    body = os.urandom(64)
    try:
        reply = client.put_object(**key, Body=Payload(body), IfNoneMatch="*")
        conditional = True
    except ClientError as problem:
        # Swift's S3 answers 501 to the condition itself. What refuses this one too refuses any put.
        if errors.status_of(problem) not in (400, 412, 501):
            raise
        reply = client.put_object(**key, Body=Payload(body))
        conditional = False
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    reports: Literal["md5"] | None = "md5" if str(reply.get("ETag", "")).strip('"') == md5 else None
    if conditional:
        conditional = _is_refused(lambda: client.put_object(**key, Body=Payload(body[::-1]), IfNoneMatch="*"), (412,))
    return conditional, reports


def _refuses(client: Any, place: Callable[[], dict[str, Any]]) -> Literal["sha256", "md5"] | None:
    body = os.urandom(64)
    declared = hashlib.sha256(body[::-1]).hexdigest()
    if _is_refused(lambda: client.put_object(**place(), Body=Payload(body, declared)), (400, 403)):
        return "sha256"
    other = base64.b64encode(hashlib.md5(body[::-1], usedforsecurity=False).digest()).decode()
    if _is_refused(lambda: client.put_object(**place(), Body=Payload(body), ContentMD5=other), (400, 403)):
        return "md5"
    return None


def _is_refused(call: Callable[[], object], statuses: tuple[int, ...]) -> bool:
    """Whether the service refuses it for what it is. Passing trouble, which says nothing, is raised."""
    try:
        call()
    except ClientError as problem:
        if errors.status_of(problem) in statuses and errors.code_of(problem) not in ("RequestTimeout", "SlowDown"):
            return True
        if errors.status_of(problem) == 501:
            return False
        raise
    return False


def _versions(client: Any, bucket: dict[str, Any]) -> bool | None:
    """None also when a service does not know the question: most that do not know it keep no versions, not all."""
    try:
        return str(client.get_bucket_versioning(**bucket).get("Status", "")) in ("Enabled", "Suspended")
    except ClientError:
        return None


def _object_lock(client: Any, bucket: dict[str, Any]) -> bool | None:
    try:
        found = client.get_object_lock_configuration(**bucket)
    except ClientError as problem:
        absent = errors.status_of(problem) == 404 or "NotFound" in errors.code_of(problem)
        return False if absent and errors.code_of(problem) != "NoSuchBucket" else None
    return bool(found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")
