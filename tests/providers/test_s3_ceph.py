"""What Ceph's gateway does in its own way, and that the provider is right all the same."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chatkeep.config.errors import Disposition
from chatkeep.providers import base
from chatkeep.providers.s3 import uploads
from chatkeep.providers.s3.provider import S3Provider
from tests.providers.contract import is_missing, raised_by
from tests.support import ceph, s3_servers
from tests.support.fault_proxy import Fault, FaultProxy, broken

pytestmark = pytest.mark.ceph
BODY = random.Random(9).randbytes((6 << 20) + 5)  # two parts
NAME = f"d/a/p/{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture
def server() -> s3_servers.Server:
    return s3_servers.radosgw()


@pytest.fixture
def bucket(server: s3_servers.Server) -> str:
    return server.bucket()


@pytest.fixture
def provider(server: s3_servers.Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Provider]:
    monkeypatch.setattr(uploads, "LARGE", len(BODY))
    with contextlib.closing(server.provider(bucket)) as provider:
        yield provider


def in_parts(server: s3_servers.Server, bucket: str, key: str, **condition: str) -> Any:
    """The reply to the end of an upload of one part."""
    client: Any = server.client()
    where = {"Bucket": bucket, "Key": key}
    upload = client.create_multipart_upload(**where)["UploadId"]
    tag = client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"in parts")["ETag"]
    parts = {"Parts": [{"ETag": tag, "PartNumber": 1}]}
    return client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts, **condition)


def test_an_upload_whose_end_tells_no_etag(provider: S3Provider, server: s3_servers.Server, bucket: str) -> None:
    assert in_parts(server, bucket, "other")["ETag"] == ""
    provider.put(NAME, BODY)
    assert provider.get(NAME) == BODY
    assert provider.requests()["put"] == 3 + 4  # to learn; begin, two parts and the end, of one attempt


def test_the_condition_at_the_end_of_an_upload_is_not_looked_at(
    provider: S3Provider, server: s3_servers.Server, bucket: str
) -> None:
    provider.put("a/b", b"first")
    assert provider.probe().exclusive_create
    assert type(raised_by(partial(provider.put, "a/b", BODY))) is base.ObjectConflict
    assert provider.get("a/b") == b"first"
    in_parts(server, bucket, "a/b", IfNoneMatch="*")
    assert provider.get("a/b") == b"in parts"


def test_the_digest_in_a_header_is_not_looked_at_but_that_of_the_signature_is(
    provider: S3Provider, server: s3_servers.Server, bucket: str
) -> None:
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    server.client().put_object(Bucket=bucket, Key="a", Body=b"body", ChecksumSHA256=wrong)
    assert provider.get("a") == b"body"
    assert provider.probe().refuses_damage == "sha256"
    lying = f"d/{'0' * 64}"
    assert type(raised_by(lambda: provider.put(lying, b"bytes"))) is base.ObjectDamaged
    is_missing(provider, lying)


def test_a_condition_is_understood_in_the_form_that_it_is_sent_in(
    provider: S3Provider, server: s3_servers.Server, bucket: str
) -> None:
    """Of a read with the quotation marks, of a put only without. What is read on after a break is so conditional."""
    provider.put(NAME, BODY)
    tag = server.client().head_object(Bucket=bucket, Key=NAME)["ETag"]
    with pytest.raises(ClientError, match="PreconditionFailed"):
        server.client().put_object(Bucket=bucket, Key=NAME, Body=BODY, IfMatch=tag)
    with (
        FaultProxy(server.port) as proxy,
        contextlib.closing(server.provider(bucket, url=proxy.url, read=5.0)) as through,
    ):
        fault = Fault("truncated", on=r"^GET ")
        with broken(proxy, fault):
            assert through.get(NAME) == BODY
        assert fault.fired == 1


def test_a_token_that_nobody_gave_is_not_looked_at(server: s3_servers.Server, bucket: str) -> None:
    with contextlib.closing(server.provider(bucket, keys=s3_servers.Keys(token="no-token"))) as provider:
        provider.put("a", b"1")
        assert provider.get("a") == b"1"


def test_a_user_that_was_suspended(server: s3_servers.Server, bucket: str) -> None:
    keys = s3_servers.Keys("AKIASUSPENDED", "secret-of-a-user")
    cluster = ceph.Ceph(server.room)
    cluster.user("suspended", keys.access, keys.secret)
    cluster.run("radosgw-admin", "user", "suspend", "--uid", "suspended")
    with contextlib.closing(server.provider(bucket, keys=keys)) as provider:
        for call in (lambda: provider.put("a", b""), lambda: provider.get("a"), lambda: [*provider.list("")]):
            error = raised_by(call)
            assert type(error) is base.CredentialRefused
            assert error.disposition is Disposition.NEEDS_USER


def test_a_bucket_that_is_full(server: s3_servers.Server, bucket: str, provider: S3Provider) -> None:
    provider.put("a", b"1")
    cluster = ceph.Ceph(server.room)
    cluster.run("radosgw-admin", "quota", "set", "--quota-scope", "bucket", "--bucket", bucket, "--max-objects", "1")
    cluster.run("radosgw-admin", "quota", "enable", "--quota-scope", "bucket", "--bucket", bucket)
    assert type(raised_by(partial(provider.put, "b", b"2"))) is base.QuotaExceeded
    assert provider.get("a") == b"1"
    is_missing(provider, "b")
