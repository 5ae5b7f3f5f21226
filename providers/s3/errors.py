"""What the client library and the service say, as errors of `base`.

By the service's code first, then by the status: compatible servers agree on the statuses and invent codes. The codes of
Amazon: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; those that begin with XMinio are of MinIO.
"""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
    TokenRetrievalError,
)

from chatkeep.providers import base

_CREDENTIAL: Final = frozenset(
    {
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "InvalidTokenId"),
        *(
            "TokenRefreshRequired",
            "InvalidClientTokenId",
            "InvalidSecurity",
            "AuthFailure",
            "Unauthorized",
            "CredentialsNotSupported",
        ),
        *("ExpiredTokenException", "UnrecognizedClientException", "XMinioInvalidIAMCredentials"),
        *("XMinioAccessKeyDisabled", "UserSuspended"),
    }
)
_SLOW: Final = frozenset(
    {
        *("SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException", "TooManyRequests"),
        *("RequestLimitExceeded", "BandwidthLimitExceeded", "RequestThrottled", "TooManyRequestsException"),
        *("Busy", "OperationAborted"),
    }
)
_FULL: Final = frozenset(
    {
        *("QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "StorageFull", "XMinioDiskFull"),
        *("XMinioMaxStorageExceeded", "InsufficientStorage", "StorageQuotaExceeded", "StorageCapExceeded"),
    }
)
# The bucket, or the service at this address. A bucket of another region answers with a redirection, and one that needs
# a signature for another region with AuthorizationHeaderMalformed: the configuration names the wrong place.
_PLACE: Final = frozenset(
    {
        *("NoSuchBucket", "PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed"),
        *("IllegalLocationConstraintException", "InvalidBucketName", "BucketRegionError", "InvalidRegion"),
    }
)
ABSENT: Final = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound", "404"})
"""The object is not there, or its bucket."""
# Said of an object by every service. A 404 without it is of a gateway that knows no such address, and says nothing
# about what is stored: taken for an object that is gone, it would be struck from records that are right.
_NO_OBJECT: Final = frozenset({"NoSuchKey", "NoSuchVersion"})
_NAME: Final = frozenset(
    {
        *("KeyTooLongError", "InvalidURI", "XMinioInvalidObjectName", "XMinioObjectExistsAsDirectory"),
        *("XMinioParentIsObject", "ObjectExistsAsDirectory", "ParentIsObject"),
    }
)
# An upload in parts that somebody completed or aborted, ours too: it is begun anew.
ANEW: Final = frozenset({"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall"})
_CLOCK: Final = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})
_HELD: Final = frozenset({"ObjectLocked", "ObjectUnderRetention", "XMinioObjectLocked"})
TAKEN: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
"""The name is taken, or was being taken by another request at that instant."""
# The body is not the one whose digest was declared.
DAMAGED: Final = frozenset({"XAmzContentSHA256Mismatch", "BadDigest", "XAmzContentChecksumMismatch", "InvalidDigest"})

_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CREDENTIAL_TROUBLE = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
# Also what the connection below the client raises while a body is read.
TROUBLE: Final = (ClientError, BotoCoreError, OSError, http.client.HTTPException)


def code_of(problem: ClientError) -> str:
    """The service's code; what a service invents is kept only where it is a plain word."""
    code = str(problem.response.get("Error", {}).get("Code", ""))
    return code if _PLAIN.fullmatch(code) else ""


def status_of(problem: ClientError) -> int:
    """The status of the reply; 0 when the client library did not keep it."""
    return status_in(problem.response)


def status_in(reply: Any) -> int:
    """The status of any reply of the client library."""
    return int(reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextlib.contextmanager
def edge(provider: str, name: str | None = None) -> Iterator[None]:
    """Everything that talks to the service stands in one of these. `name`: the object that is asked about."""
    try:
        yield
    except TROUBLE as problem:
        raise translated(problem, provider, name) from problem


def translated(problem: BaseException, provider: str, name: str | None = None) -> base.ProviderError:
    """The error of `base` that `problem`, one of `TROUBLE`, means."""
    about: dict[str, object] = {"provider": provider} if name is None else {"provider": provider, "object": name}
    if isinstance(problem, ClientError):
        return _of_reply(problem, about)
    if isinstance(problem, _CREDENTIAL_TROUBLE):
        return base.CredentialRefused(**about, reason="none")
    if isinstance(
        problem, ParamValidationError
    ):  # a bucket that cannot be one: the loader lets through what S3 refuses
        return base.StorageMissing(**about, reason="bucket-name")
    if isinstance(problem, SSLError):
        return base.Unavailable(**about, reason="tls")
    return base.Unavailable(**about, reason=type(problem).__name__)


def _of_reply(problem: ClientError, about: Mapping[str, object]) -> base.ProviderError:
    code, status = code_of(problem), status_of(problem)
    facts: dict[str, Any] = {**about, "status": status, "reply": code}
    if code in _SLOW or status == 429:
        return base.Throttled(after=_after(problem), **facts)
    if code in _CLOCK:
        return base.PermissionRefused(reason="clock", **facts)
    if (reason := _set_up_wrong(problem, code)) is not None:
        return base.PermissionRefused(reason=reason, **facts)
    if code in _NO_OBJECT and status == 404 and "object" in about:
        return base.ObjectNotFound(**facts)
    kind = _by_code(problem, code) or _by_status(status, named="object" in about)
    if kind is base.Unavailable and _after(problem) is not None:
        return base.Throttled(after=_after(problem), **facts)
    return kind(**facts)


def _set_up_wrong(problem: ClientError, code: str) -> str | None:
    """What the configuration asks for that this bucket does not do, if that is it: no waiting helps."""
    said = str(problem.response.get("Error", {}).get("Message", "")).lower().replace(" ", "")
    if code == "InvalidRequest" and "objectlockconfiguration" in said:  # is missing, in one word or in three
        return "no-lock"
    return "storage-class" if code == "InvalidStorageClass" else None


def _by_code(problem: ClientError, code: str) -> type[base.ProviderError] | None:
    for codes, kind in (
        (_CREDENTIAL, base.CredentialRefused),
        (_FULL, base.QuotaExceeded),
        (_PLACE, base.StorageMissing),
        (_NAME, base.InvalidName),
        (_HELD, base.ObjectHeld),
        (ANEW, base.Unavailable),
    ):
        if code in codes:
            return kind
    # Which of the refusals it is, some services say in prose only.
    said = str(problem.response.get("Error", {}).get("Message", "")).lower()
    if code in ("AccessDenied", "InvalidRequest", "MethodNotAllowed", "Forbidden"):
        if "worm" in said or "object lock" in said or "retention" in said or "legal hold" in said:
            return base.ObjectHeld
        if "cap exceeded" in said or "quota" in said:
            return base.QuotaExceeded
    # InvalidObjectState: in an archive, where a person has it brought back first.
    return base.PermissionRefused if code in ("AccessDenied", "InvalidObjectState") else None


def _by_status(status: int, *, named: bool) -> type[base.ProviderError]:
    if status == 404 and named:
        return base.Unavailable
    if status in (301, 302, 307, 308, 404):
        return base.StorageMissing
    if status == 507:
        return base.QuotaExceeded
    if status in (401, 403, 405):
        return base.PermissionRefused
    return base.Unavailable


def _after(problem: ClientError) -> float | None:
    """What the reply asks to wait, in seconds; a date is not used, because clocks differ."""
    headers = problem.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    asked = str(headers.get("retry-after", ""))
    return float(asked) if asked.isdecimal() and len(asked) < 7 else None
