"""S3 at servers that nobody here wrote: moto (the logic; it verifies nothing), MinIO (all of it) and Ceph's gateway.

rclone's is in test_s3_rclone.py: what a storage must do at least, it does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chatkeep.providers import base
from chatkeep.providers.memo import MemoryMemo
from tests.providers.stations import Lack, Lines, Place, Refusal, Station
from tests.support import s3_policies, s3_servers
from tests.support.fault_proxy import Fault


def says(status: int, code: str, on: str, message: str = "") -> Fault:
    """An error as S3 says it."""
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Fault("status", on=on, times=None, status=status, body=text.encode())


_PUT, _GET, _DELETE = "^PUT ", "^(GET|HEAD) ", "^DELETE "
_RENEWED = "signed anew, with what the refusal tells to be out of date"


class S3(Station):
    """`start`: gives the server."""

    type = "s3"
    many = 70
    # Not what the provider asks the service about itself.
    writes = commits = r"^PUT /[^/?]+/of/this/(?!probe/)"
    lists = r"^GET /[^/?]+/?\?.*list-type=2"
    reads = r"^GET /[^/?]+/[^?]"
    refusals = {
        "wrong-key": Refusal(says(403, "InvalidAccessKeyId", _PUT), base.CredentialRefused),
        "wrong-secret": Refusal(says(403, "SignatureDoesNotMatch", _GET), base.CredentialRefused, "get"),
        "suspended": Refusal(says(403, "UserSuspended", _PUT), base.CredentialRefused),
        "expired": Refusal(says(400, "ExpiredToken", _PUT), base.CredentialRefused, again=_RENEWED),
        "clock": Refusal(says(403, "RequestTimeTooSkewed", _PUT), base.PermissionRefused, again=_RENEWED),
        "policy": Refusal(says(403, "AccessDenied", _DELETE), base.PermissionRefused, "delete"),
        "locked": Refusal(says(403, "AccessDenied", _DELETE, "object is WORM protected"), base.ObjectHeld, "delete"),
        "archived": Refusal(says(403, "InvalidObjectState", _GET), base.PermissionRefused, "get"),
        "no-bucket-get": Refusal(says(404, "NoSuchBucket", _GET), base.StorageMissing, "get"),
        "no-bucket-stat": Refusal(says(404, "NoSuchBucket", _GET), base.StorageMissing, "stat"),
        "no-bucket-put": Refusal(says(404, "NoSuchBucket", _PUT), base.StorageMissing),
        "no-bucket-list": Refusal(says(404, "NoSuchBucket", _GET), base.StorageMissing, "list"),
        "no-bucket-delete": Refusal(says(404, "NoSuchBucket", _DELETE), base.StorageMissing, "delete"),
        "other-region": Refusal(says(301, "PermanentRedirect", _GET), base.StorageMissing, "list"),
        "disk-full": Refusal(says(507, "XMinioStorageFull", _PUT), base.QuotaExceeded),
        "quota": Refusal(says(403, "QuotaExceeded", _PUT), base.QuotaExceeded),
        "cap": Refusal(says(403, "AccessDenied", _PUT, "Cannot upload, storage cap exceeded."), base.QuotaExceeded),
        "slow-down": Refusal(says(503, "SlowDown", _PUT), base.Throttled),
        "long-name": Refusal(says(400, "KeyTooLongError", _PUT), base.InvalidName),
    }
    lacks = frozenset({Lack.CLOCK, Lack.STALE_LISTS})
    secrets = (s3_servers.SECRET,)

    def __init__(
        self,
        name: str,
        start: Callable[[], s3_servers.Server],
        digest: str | None,
        lacks: frozenset[Lack] = frozenset(),
        marker: str | None = None,
    ) -> None:
        self.name = name
        self.marker = marker
        self.digest = digest
        self.lacks = S3.lacks | lacks
        self._start = start

    @contextlib.contextmanager
    def running(self) -> Iterator[s3_servers.Server]:
        yield self._start()  # ends with this process

    @contextlib.contextmanager
    def place(self, running: s3_servers.Server, folder: Path) -> Iterator[Place]:
        bucket, memo = running.bucket(), MemoryMemo()

        def opened(url: str | None) -> base.Provider:
            times: dict[str, Any] = {"connect": self.timeout, "read": self.timeout} if url else {}
            return running.provider(bucket, memo, url=url, name=self.name, prefix="of/this", page=30, **times)

        def put_only() -> base.Provider:
            keys = running.restricted(s3_policies.put_only(bucket, "of/this"))
            return running.provider(bucket, keys=keys, name=self.name, prefix="of/this")

        def lines(url: str | None) -> Lines:
            keys = {"credentials_file": str(running.keys_file(s3_servers.Keys()))}
            return Lines({"bucket": bucket, "prefix": "of/this", "endpoint": url or running.url, **keys})

        limits = Lack.PUT_ONLY not in self.lacks
        yield Place(opened, port=running.port, put_only=put_only if limits else None, lines=lines)


STATIONS = [
    S3("s3-moto", s3_servers.moto, None, frozenset({Lack.PUT_ONLY})),
    S3("s3-minio", s3_servers.minio, "sha256"),
    S3("s3-radosgw", s3_servers.radosgw, "sha256", marker="ceph"),
]
