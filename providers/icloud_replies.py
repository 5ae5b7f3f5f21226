"""What CloudKit answers, read strictly: values in, values or errors out, and no request made.

Shapes and codes are those of Apple's CloudKit Web Services Reference ("Types and Dictionaries", "Error Codes"). Storage
is not trusted: whatever is not of the documented shape is `Unavailable`, as no answer is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from chatkeep.config.errors import Disposition
from chatkeep.providers import base
from chatkeep.providers.icloud_signing import VALID_FOR

TAKEN: Final = frozenset({"EXISTS", "CONFLICT"})
"""How CloudKit refuses to create a record whose name is taken: both were seen by others, the reference has both."""

_LONGEST_WAIT: Final = 86400.0
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
# A field, an index or the record type is not in the schema. The reference has no code of its own for it.
_OF_THE_SCHEMA: Final = re.compile(r"record type|queryable|sortable|indexable|schema|unknown field", re.IGNORECASE)


class SchemaMissing(base.StorageMissing):
    """The container lacks the record type, a field or an index that objects need. `said`: what CloudKit says of it."""

    code = "schema-missing"


class ClockRefused(base.CredentialRefused):
    """Signatures are refused because of their date. `minutes`: how far this machine's clock is off."""

    code = "clock-refused"


class ObjectTooLarge(base.ProviderError):
    """More bytes than this storage takes in one object: `size`, `limit`. Nothing was sent."""

    code = "object-too-large"
    disposition = Disposition.FATAL


@dataclass(frozen=True, slots=True)
class Asset:
    """The bytes of an object, as its record refers to them.

    Attributes:
        checksum: by a rule that Apple keeps to itself; equal for equal bytes, as far as others have seen.
        size: bytes.
        url: where they are, for some minutes; empty when it was not given.
    """

    checksum: str
    size: int
    url: str


@dataclass(frozen=True, slots=True)
class Record:
    """An object as CloudKit keeps it.

    Attributes:
        record_name: what the record is called.
        name: what the object is called.
        size: its bytes.
        tag: changes with every change of the record.
        created: when, in seconds since 1970 by Apple's clock; None when not said.
        sha256: what its writer said of its bytes; empty when it was not asked for.
        asset: None for an object without bytes, and where it was not asked for.
    """

    record_name: str
    name: str
    size: int
    tag: str
    created: float | None
    sha256: str
    asset: Asset | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one record, or the whole request, was refused."""

    code: str
    said: str
    after: float | None


def parse(raw: bytes) -> dict[str, Any]:
    """A reply as an object of JSON; raises `Unavailable` when it is none."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as problem:
        raise base.Unavailable(reason="not-json") from problem
    if not isinstance(found, dict):
        raise base.Unavailable(reason="not-json")
    return found


def refusal(found: Mapping[str, Any]) -> Refusal | None:
    """The error that a reply, or one record in it, stands for; None when it is none."""
    code = found.get("serverErrorCode")
    if not isinstance(code, str):
        return None
    said, after = found.get("reason"), found.get("retryAfter")
    wait = None
    if isinstance(after, int | float) and not isinstance(after, bool) and 0 <= after < math.inf:
        wait = min(float(after), _LONGEST_WAIT)
    return Refusal(code[:40], _shown(said) if isinstance(said, str) else "", wait)


@dataclass(frozen=True, slots=True)
class Place:
    """Who was asked, for errors: the configured name, the container, and how many seconds its clock is ahead."""

    provider: str
    container: str
    clock_ahead: float | None


def error_of(refused: Refusal, status: int, place: Place) -> base.ProviderError:
    """What a refused request means.

    Args:
        refused: what the reply says; its `code` may be empty when there was none, and `status` decides.
        status: of HTTP.
        place: who was asked.
    """
    provider, ahead = place.provider, place.clock_ahead
    code = refused.code or _BY_STATUS.get(status, "")
    if code == "THROTTLED" or (code == "TRY_AGAIN_LATER" and refused.after is not None):
        return base.Throttled(after=refused.after, provider=provider, answer=code)
    if code in ("AUTHENTICATION_FAILED", "AUTHENTICATION_REQUIRED"):
        if ahead is not None and abs(ahead) > VALID_FOR:
            return ClockRefused(provider=provider, minutes=round(abs(ahead) / 60), clock_ahead=round(ahead))
        return base.CredentialRefused(provider=provider, answer=code)
    if code == "BAD_REQUEST" and _OF_THE_SCHEMA.search(refused.said):
        return SchemaMissing(provider=provider, path=place.container, said=refused.said)
    if code in ("ZONE_NOT_FOUND", "NOT_FOUND"):
        return base.StorageMissing(provider=provider, path=place.container, answer=code)
    kind = {"QUOTA_EXCEEDED": base.QuotaExceeded, "ACCESS_DENIED": base.PermissionRefused}.get(code, base.Unavailable)
    return kind(provider=provider, status=status, answer=code)


_BY_STATUS: Final = {429: "THROTTLED", 503: "TRY_AGAIN_LATER", 401: "AUTHENTICATION_FAILED", 403: "ACCESS_DENIED"}


def records_of(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The list of records, errors among them, that every reply about records has."""
    records = found.get("records")
    if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
        raise base.Unavailable(reason="no-records")
    return records


def one_of(found: Mapping[str, Any], record_name: str) -> Mapping[str, Any]:
    """The only record of a reply about one record, which must be about that one."""
    records = records_of(found)
    if len(records) != 1 or records[0].get("recordName") != record_name:
        raise base.Unavailable(reason="another-record")
    return records[0]


def record_of(found: Mapping[str, Any]) -> Record | None:
    """A record as an object; None when it lacks what every object of ours has: then it is none of ours, or damaged."""
    fields = found.get("fields")
    if not isinstance(fields, dict):
        return None
    record_name, tag = found.get("recordName"), found.get("recordChangeTag")
    name, size, sha256 = (_value(fields, key) for key in ("name", "size", "sha256"))
    if not (isinstance(record_name, str) and isinstance(tag, str) and isinstance(name, str) and _is_size(size)):
        return None
    if sha256 is not None and not (isinstance(sha256, str) and _DIGEST.fullmatch(sha256)):
        return None
    body = _value(fields, "body")
    asset = _asset(body)
    if body is not None and (asset is None or asset.size != size):
        return None
    created = found.get("created")
    stamp = created.get("timestamp") if isinstance(created, dict) else None
    seconds = stamp / 1000 if _is_size(stamp) else None
    return Record(record_name, name, size, tag, seconds, sha256 or "", asset)


def upload_url(found: Mapping[str, Any], record_name: str) -> str:
    """Where the bytes of a record's asset are to be sent."""
    tokens = found.get("tokens")
    first = tokens[0] if isinstance(tokens, list) and len(tokens) == 1 else None
    url = first.get("url") if isinstance(first, dict) and first.get("recordName") == record_name else None
    if not isinstance(url, str):
        raise base.Unavailable(reason="no-token")
    return url


def receipt_of(found: Mapping[str, Any], size: int) -> dict[str, Any]:
    """What the record must say of an asset that was sent, after a look at its size."""
    single = found.get("singleFile")
    asset = _asset(single)
    if not isinstance(single, dict) or asset is None:
        raise base.Unavailable(reason="no-receipt")
    if asset.size != size:  # bytes were lost on the way: nothing refers to them yet, and they can be sent again
        raise base.Unavailable(reason="size", expected=size, found=asset.size)
    # Passed on as it came: the reference calls it opaque, and has keys in it for private databases only.
    return single


def _asset(found: object) -> Asset | None:
    if not isinstance(found, dict):
        return None
    checksum, size, url = found.get("fileChecksum"), found.get("size"), found.get("downloadURL", "")
    if not (isinstance(checksum, str) and _is_size(size) and isinstance(url, str)):
        return None
    return Asset(checksum, size, url)


def _value(fields: Mapping[str, Any], key: str) -> Any:
    found = fields.get(key)
    return found.get("value") if isinstance(found, dict) else None


def _is_size(found: object) -> TypeGuard[int]:
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 1 << 53


def _shown(text: str) -> str:
    """A text of the server for people: bounded, on one line."""
    return "".join(each if each.isprintable() else "?" for each in text[:200])
