"""What OpenDAL raises, as errors of a provider. Pure.

OpenDAL tells a status, a wait or a number of the system in the text of its errors only, and calls most of what happens
`Unexpected`. So the text is read. What it looks like is a detail of that library; the tests ask the installed one, and
fail when it has changed.

Nothing of the text goes into an error of ours, nor the exception as its cause: it shows addresses, and those of some
services carry a token.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Final

from chatkeep.config.errors import Disposition
from chatkeep.providers import base

_STATUS: Final = re.compile(r"status: ([1-5]\d\d)\b")
_AFTER: Final = re.compile(r'"retry-after": "(\d{1,9})"', re.IGNORECASE)
_SYSTEM: Final = re.compile(r"\(os error (\d{1,4})\)")
_READ: Final = re.compile(r"\bread: (\d{1,19})\b")
_AVAILABLE: Final = re.compile(r"available: ([a-z0-9, _-]+)")

# What services call things in the bodies of their replies. Each is a word that nothing else is called by.
_NO_PLACE: Final = re.compile(r"NoSuchBucket|ContainerNotFound|FilesystemNotFound|ShareNotFound|bucket does not exist")
_BAD_KEY: Final = re.compile(
    r"InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|AuthenticationFailed|AuthenticationRequired"
    r"|invalid_grant|expired_access_token|invalid_access_token|InvalidAuthenticationToken|Unauthorized"
)
_NO_ROOM: Final = re.compile(
    r"QuotaExceeded|insufficient_space|insufficient_quota|quotaLimitReached|storageQuotaExceeded|XMinioStorageFull"
    r"|EntityTooLarge|storage_cap_exceeded"
)
_SLOWER: Final = re.compile(r"SlowDown|TooManyRequests|ServerBusy|rateLimitExceeded|too_many_requests|activityLimit")

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})


class ServiceUnknown(base.ProviderError):
    """OpenDAL as installed does not carry the service. Parameters: `service`, `available` (those it carries,
    joined by commas)."""

    code = "opendal-service-unknown"
    disposition = Disposition.NEEDS_USER


class OptionsRefused(base.ProviderError):
    """OpenDAL does not take the options: one is missing, or of another form. Parameters: `service`.

    Its own words are left out, since they can repeat what it was given.
    """

    code = "opendal-options-refused"
    disposition = Disposition.NEEDS_USER


@dataclass(frozen=True, slots=True)
class Said:
    """What an exception of OpenDAL says.

    Attributes:
        kind: the name of its class.
        status: of the reply, None where there was none or it is not told.
        after: seconds that the reply asked to wait.
        system: number of the system's error.
        received: bytes of the body that had arrived.
    """

    kind: str
    status: int | None = None
    after: float | None = None
    system: int | None = None
    received: int = 0
    text: str = ""


def said(problem: BaseException) -> Said:
    """Reads an exception."""
    text = str(problem)
    status, after, system, received = (pattern.search(text) for pattern in (_STATUS, _AFTER, _SYSTEM, _READ))
    return Said(
        # What a file of OpenDAL raises is an OSError whose text begins with the kind.
        type(problem).__name__ if not isinstance(problem, OSError) else text.partition(" ")[0],
        int(status[1]) if status else None,
        float(after[1]) if after else None,
        int(system[1]) if system else None,
        int(received[1]) if received else 0,
        text,
    )


def available(problem: BaseException) -> tuple[str, ...]:
    """The services that OpenDAL says it carries, when it is asked for one that it does not."""
    found = _AVAILABLE.search(str(problem))
    return tuple(word.strip() for word in found[1].split(",")) if found else ()


def refusal(what: Said, path: str = "", **params: object) -> base.ProviderError:
    """The error that it means. `path`: of the root."""
    about = dict(params)
    if what.status is not None:
        about["status"] = what.status
    if what.system is not None:
        about["errno"] = what.system
    if what.kind == "RateLimited" or what.status == 429 or (what.status == 503 and what.after is not None):
        return base.Throttled(after=what.after, **about)
    if _SLOWER.search(what.text):
        return base.Throttled(after=what.after, **about)
    kind = _kind(what)
    return kind(path=path, **about) if kind is base.StorageMissing else kind(**about)


def _kind(what: Said) -> type[base.ProviderError]:
    for kind, means in (
        (base.StorageMissing, _NO_PLACE.search(what.text) or what.status in (301, 308)),
        (base.QuotaExceeded, _NO_ROOM.search(what.text) or what.status in (413, 507) or what.system in _FULL),
        (base.CredentialRefused, _BAD_KEY.search(what.text) or what.status == 401),
        (base.ObjectNotFound, what.kind == "NotFound"),
        (base.PermissionRefused, what.kind == "PermissionDenied" or what.status == 403 or what.system in _REFUSED),
        (base.PermissionRefused, what.kind == "Unsupported"),
    ):
        if means:
            return kind
    return base.Unavailable
