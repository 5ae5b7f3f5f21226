"""S3 behind a gateway that answers in the place of the service, and services that verify less than they are sent."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from chatkeep.providers import base
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.opendal import OpendalProvider
from chatkeep.providers.paging import BARREN
from chatkeep.providers.s3 import uploads
from chatkeep.providers.s3.provider import S3Provider
from tests.providers.contract import is_missing, names, raised_by
from tests.support import s3_servers
from tests.support.fault_proxy import Fault, FaultProxy, broken

BODY = random.Random(8).randbytes((6 << 20) + 5)  # two parts
NAME = f"d/a/p/{hashlib.sha256(BODY).hexdigest()}"
PAGES = {
    "nginx": b"<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<hr></body>\r\n</html>\r\n",
    "unclosed": b"<!DOCTYPE html><html><p>No such page<br></html>",
    "text": b"404 page not found\n",
    "json": b'{"message": "no Route matched with those values"}',
    "nothing": b"",
}


@pytest.fixture(params=["minio", "rclone"])
def server(request: pytest.FixtureRequest) -> s3_servers.Server:
    return {"minio": s3_servers.minio, "rclone": s3_servers.rclone}[request.param]()


@pytest.fixture
def proxy(server: s3_servers.Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def provider(server: s3_servers.Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Provider]:
    monkeypatch.setattr(uploads, "LARGE", len(BODY))
    with contextlib.closing(server.provider(server.bucket(), MemoryMemo(), url=proxy.url, read=5.0)) as provider:
        provider.put("kept", b"kept")
        yield provider


@pytest.mark.parametrize("page", PAGES)
def test_a_gateway_that_knows_no_such_address(provider: S3Provider, proxy: FaultProxy, page: str) -> None:
    """It says nothing about an object: one that was believed gone would be struck from the records, or put anew."""
    gone = Fault("status", status=404, body=PAGES[page], headers=(("Content-Type", "text/html"),), times=None)
    for call in (
        partial(provider.get, "kept"),
        partial(provider.get, "kept", -2),
        partial(provider.get, "kept", 0, 0),
        partial(provider.stat, "kept"),
        partial(provider.delete, "kept"),
        partial(provider.put, "new", b"new"),
        partial(provider.put, NAME, BODY),
        partial(provider.retain, "kept", 4e9),
        partial(names, provider),
    ):
        with broken(proxy, gone):
            assert type(raised_by(call)) in (base.Unavailable, base.StorageMissing), call
    assert provider.get("kept") == b"kept"
    is_missing(provider, "new")


@pytest.mark.parametrize("said", [b"", b"<html><title>Welcome</title></html>", b"<p>Welcome"])
@pytest.mark.parametrize(
    "on", [r"^POST /[^?]+\?uploads", r"^PUT .*partNumber=2", r"^POST /[^?]+\?uploadId="], ids=["begin", "part", "end"]
)
def test_a_reply_that_says_nothing_ends_no_upload(
    provider: S3Provider, proxy: FaultProxy, on: str, said: bytes
) -> None:
    with broken(proxy, Fault("status", on=on, status=200, body=said)):
        assert type(raised_by(partial(provider.put, NAME, BODY))) is base.Unavailable
    is_missing(provider, NAME)
    provider.put(NAME, BODY)
    assert provider.get(NAME) == BODY


def test_an_end_that_fails_after_its_200(provider: S3Provider, proxy: FaultProxy) -> None:
    said = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code><Message>again</Message></Error>'
    with broken(proxy, Fault("status", on=r"^POST /[^?]+\?uploadId=", status=200, body=said)):
        assert type(raised_by(partial(provider.put, NAME, BODY))) is base.Unavailable
    is_missing(provider, NAME)
    provider.put(NAME, BODY)
    assert provider.get(NAME) == BODY


def test_a_range_that_begins_too_late(provider: S3Provider, proxy: FaultProxy) -> None:
    """Bytes of another place of the object, and too few of them, are not handed out as those that were asked for."""
    provider.put("numbers", bytes(range(100)))
    for offset, length in ((10, 20), (-20, 5), (-20, None)):
        at = 10 if offset > 0 else 80
        late = f"bytes {at + 5}-{at + 19 if length else 99}/100"
        headers = (("Content-Range", late), ("ETag", '"x"'))
        fault = Fault("status", on="^GET .*numbers", status=206, headers=headers, body=bytes(range(at + 5, at + 20)))
        with broken(proxy, fault):
            assert type(raised_by(partial(provider.get, "numbers", offset, length))) is base.Unavailable
    assert provider.get("numbers", 10, 20) == bytes(range(10, 30))


@pytest.mark.parametrize("start", [s3_servers.minio, s3_servers.moto], ids=["minio", "moto"])
def test_what_the_bucket_does_not_do_is_not_waited_for(start: Callable[[], s3_servers.Server]) -> None:
    """A lock in a bucket without, and a class that there is none of: a person changes the configuration."""
    server = start()
    bucket = server.bucket()
    for settings, reason in (({"retain": 3600.0}, "no-lock"), ({"storage_class": "NONSENSE"}, "storage-class")):
        with contextlib.closing(server.provider(bucket, **settings)) as provider:
            for call in (partial(provider.put, "a", b"1"), provider.probe):
                refused = raised_by(call)
                assert type(refused) is base.PermissionRefused
                assert refused.params["reason"] == reason


@pytest.mark.parametrize(
    "said", ["Bucket is missing Object Lock Configuration", "Bucket is missing ObjectLockConfiguration"]
)
def test_how_a_bucket_without_a_lock_is_called(provider: S3Provider, proxy: FaultProxy, said: str) -> None:
    """By Amazon and by others: it is not the object that is held."""
    body = f"<Error><Code>InvalidRequest</Code><Message>{said}</Message></Error>".encode()
    with broken(proxy, Fault("status", on="^PUT ", status=400, body=body)):
        refused = raised_by(partial(provider.put, "new", b"new"))
    assert (type(refused), refused.params["reason"]) == (base.PermissionRefused, "no-lock")


def test_a_bit_of_a_part_that_flipped_on_the_way(provider: S3Provider, proxy: FaultProxy) -> None:
    with broken(proxy, Fault("flip-request", on=r"^PUT .*partNumber=1")), contextlib.suppress(base.Unavailable):
        provider.put(NAME, BODY)
    provider.put(NAME, BODY)
    assert provider.get(NAME) == BODY


def test_a_bit_of_a_part_at_a_service_that_verifies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the part, and reports of what."""
    monkeypatch.setattr(uploads, "LARGE", len(BODY))
    server = s3_servers.moto()
    with (
        FaultProxy(server.port) as proxy,
        contextlib.closing(server.provider(server.bucket(), MemoryMemo(), url=proxy.url, read=5.0)) as provider,
    ):
        assert provider.probe().refuses_damage is None
        with broken(proxy, Fault("flip-request", on=r"^PUT .*partNumber=1")):
            assert type(raised_by(partial(provider.put, NAME, BODY))) is base.Unavailable
        provider.put(NAME, BODY)
        assert provider.get(NAME) == BODY


def test_what_somebody_else_put_after_ours_broke_stays() -> None:
    """At a service without conditions: it is no half of ours."""
    server, name = s3_servers.rclone(), "a/b"
    bucket, memo = server.bucket(), MemoryMemo()
    with (
        FaultProxy(server.port) as proxy,
        contextlib.closing(server.provider(bucket, memo, url=proxy.url, read=5.0)) as ours,
        contextlib.closing(server.provider(bucket)) as theirs,
    ):
        ours.put("first", b"what it can do is asked here")
        with broken(proxy, Fault("reset", on=r"^PUT ")):
            assert type(raised_by(partial(ours.put, name, BODY[:300_000]))) is base.Unavailable
        theirs.delete(name)
        for other in (b"theirs", BODY[:300_000] + b"and more"):
            theirs.put(name, other)
            assert type(raised_by(partial(ours.put, name, BODY[:300_000]))) is base.ObjectConflict
            assert theirs.get(name) == other
            theirs.delete(name)


def page_of(key: str, following: str, on: str) -> Fault:
    """A page of a listing, with a mark that leads to the next."""
    found = f"<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{following}</NextContinuationToken>"
    body = f"<ListBucketResult>{found}{more}</ListBucketResult>".encode()
    return Fault("status", on=on, status=200, body=body, times=None)


def test_a_listing_that_goes_in_a_circle_ends(provider: S3Provider, proxy: FaultProxy) -> None:
    """What it brings is handed out, and once."""
    at = r"^GET .*continuation-token={}\b"
    circle = (
        page_of("a", "b", rf"{at.format('a')}|^GET (?!.*continuation)"),
        page_of("b", "c", at.format("b")),
        page_of("c", "a", at.format("c")),
    )
    given: list[str] = []
    with broken(proxy, *circle):
        error = raised_by(lambda: given.extend(each.name for each in provider.list("")))
    assert (type(error), error.params["reason"]) == (base.Unavailable, "circle")
    assert given == ["a", "b", "c"]
    assert sum(each.fired for each in circle) == 3 + BARREN + 1


def test_a_listing_of_opendal_that_goes_in_a_circle_ends(server: s3_servers.Server, proxy: FaultProxy) -> None:
    """There the library asks for page after page by itself."""
    keys = {"access_key_id": s3_servers.ACCESS, "secret_access_key": s3_servers.SECRET}
    options = {"endpoint": proxy.url, "bucket": server.bucket(), "region": s3_servers.REGION, **keys}
    with contextlib.closing(OpendalProvider("od", "s3", options, MemoryMemo(), create=True)) as provider:
        circle = page_of("a", "again", "^GET .*list-type=2")
        with broken(proxy, circle):
            error = raised_by(lambda: names(provider))
    assert (type(error), error.params["reason"]) == (base.Unavailable, "circle")
    assert circle.fired > BARREN
