"""What replies of Google Drive mean: a file out of JSON, an error out of a status and its reason. Pure.

The reasons are those of https://developers.google.com/workspace/drive/api/guides/handle-errors and .../limits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from chatkeep.providers import base
from chatkeep.providers.google_http import retry_after
from chatkeep.providers.google_token import utc

FOLDER: Final = "application/vnd.google-apps.folder"
FIELDS: Final = "id,name,mimeType,size,md5Checksum,sha256Checksum,createdTime,trashed"
"""What is asked of every file."""

DAY: Final = 3600.0
"""Seconds to leave Drive alone after an allowance of a whole day is used up: it comes back at some hour of the day that
is not told, so it is tried again each hour."""

_TOO_FAST: Final = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "sharingRateLimitExceeded"})
_TOO_MUCH_TODAY: Final = frozenset(
    {"dailyLimitExceeded", "dailyLimitExceededUnreg", "uploadLimitExceeded", "downloadQuotaExceeded"}
)
_NO_ROOM: Final = frozenset(
    {
        "storageQuotaExceeded",
        "quotaExceeded",
        "teamDriveFileLimitExceeded",
        "numChildrenInNonRootLimitExceeded",
        "activeItemCreationLimitExceeded",
    }
)
# The person left the box for Drive empty when Google asked: another login, with it ticked, is the remedy.
_SCOPE: Final = frozenset({"insufficientPermissions", "insufficientScopes"})
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_REASON: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class DriveFile:
    """A file of Drive.

    Attributes:
        created: seconds since 1970 by Drive's clock.
        order: createdTime and id as texts, by which the oldest of several is the smallest.
    """

    id: str
    name: str
    size: int
    sha256: str | None
    md5: str | None
    created: float
    trashed: bool
    folder: bool
    order: tuple[str, str]


def is_id(text: object) -> bool:
    """Whether it may be the id of a file: what is not is never put into an address."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def drive_file(found: object) -> DriveFile | None:
    """A file out of a reply's JSON; None for what is none (no id, no size, no time)."""
    if not isinstance(found, Mapping):
        return None
    ident, name, at = (found.get(key) for key in ("id", "name", "createdTime"))
    folder = found.get("mimeType") == FOLDER
    size = "0" if folder else found.get("size")  # a text, because it may be larger than what JavaScript can count
    created = utc(at) if isinstance(at, str) else None
    if not (isinstance(ident, str) and is_id(ident) and isinstance(name, str)):
        return None
    if not (isinstance(at, str) and created is not None):
        return None
    if not (isinstance(size, str) and size.isascii() and size.isdigit() and len(size) <= 18):
        return None
    return DriveFile(
        ident,
        name,
        int(size),
        _hex(found.get("sha256Checksum"), 64),
        _hex(found.get("md5Checksum"), 32),
        created,
        found.get("trashed") is True,
        folder,
        (at, ident),
    )


def _hex(text: object, digits: int) -> str | None:
    return text.lower() if isinstance(text, str) and re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", text) else None


def reason_of(body: bytes) -> str | None:
    """The reason in an error's JSON, if it is a plain word."""
    try:
        error = json.loads(body)["error"]
        found: Any = error["errors"][0]["reason"] if error.get("errors") else error.get("status")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, str) and _REASON.fullmatch(found) else None


def error_of(status: int, headers: Mapping[str, str], body: bytes, now: float, **about: object) -> base.ProviderError:
    """The error that a reply of 300 and above is, 404 and 409 aside, whose meaning depends on the request.

    Args:
        about: parameters: `provider`, and `object` where there is one.
    """
    reason = reason_of(body)
    after = retry_after(headers, now)
    about = {**about, "status": status, **({"reason": reason} if reason else {})}
    if status == 429 or reason in _TOO_FAST or (status == 503 and after is not None):
        return base.Throttled(after=after, **about)
    if reason in _TOO_MUCH_TODAY:
        return base.Throttled(after=DAY if after is None else after, **about)
    if reason in _NO_ROOM:
        return base.QuotaExceeded(**about)
    if status == 401 or (status == 403 and reason in _SCOPE):
        return base.LoginNeeded(**about)
    if status == 403:
        return base.PermissionRefused(**about)
    # 5xx and 408 pass. A 400, a redirection, a 412 answer no request of ours: not understood, and said with its reason.
    return base.Unavailable(**about)
