"""Objects that go in parts, at MinIO and Ceph: what broke goes on, elsewhere too, and only what is missing is sent."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from chatkeep.providers import base
from chatkeep.providers.memo import FileMemo, MemoryMemo
from chatkeep.providers.s3 import uploads
from chatkeep.providers.s3.provider import S3Provider
from tests.providers.contract import is_missing, raised_by
from tests.support import s3_policies, s3_servers
from tests.support.fault_proxy import Fault, FaultProxy

BODY = random.Random(7).randbytes((12 << 20) + 77)  # three parts
NAME = f"d/a/p/{hashlib.sha256(BODY).hexdigest()}"
FIRST = f"first/{hashlib.sha256(b'what it can do is asked here').hexdigest()}"
WHOLE = r"^PUT /[^?]+/d/[^?]+$"
BEGIN = r"^POST /[^?]+\?uploads"
END = r"^POST /[^?]+\?uploadId="


@dataclass
class Line:
    """A bucket behind a proxy, and a memo in a file. `opened`: a provider as a new process would open it."""

    server: s3_servers.Server
    bucket: str
    proxy: FaultProxy
    memo: Path
    keys: s3_servers.Keys
    limited: bool = False

    @contextlib.contextmanager
    def opened(self) -> Iterator[S3Provider]:
        memo = FileMemo(self.memo)
        provider = self.server.provider(self.bucket, memo, url=self.proxy.url, keys=self.keys, prefix="x", read=3.0)
        with contextlib.closing(memo), contextlib.closing(provider):
            yield provider

    def fails(self, *faults: Fault) -> None:
        """Puts the object in a process of its own, which these faults hit."""
        with self.opened() as provider:
            provider.put(FIRST, b"what it can do is asked here")
            self.proxy.set(*faults)
            assert type(raised_by(lambda: provider.put(NAME, BODY))) is base.Unavailable
        assert [fault.fired for fault in faults] == [1] * len(faults)
        self.proxy.clear()

    def parts_sent(self) -> list[str]:
        """Numbers of the parts that were sent since this was asked last."""
        found = [number for line in self.proxy.seen for number in re.findall(r"^PUT .*[?&]partNumber=(\d+)", line)]
        self.proxy.seen.clear()
        return found

    def unfinished(self) -> int:
        """Uploads in parts that the bucket holds room for."""
        return len(self.server.client().list_multipart_uploads(Bucket=self.bucket).get("Uploads", []))


@pytest.fixture(params=s3_servers.VERIFYING)
def server(request: pytest.FixtureRequest) -> s3_servers.Server:
    found: s3_servers.Server = request.param()
    return found


@pytest.fixture(params=["everything", "put-only"])
def line(request: pytest.FixtureRequest, server: s3_servers.Server, tmp_path: Path) -> Iterator[Line]:
    bucket = server.bucket()
    policy = s3_policies.full if request.param == "everything" else s3_policies.put_only
    with FaultProxy(server.port) as proxy:
        yield Line(
            server,
            bucket,
            proxy,
            tmp_path / "memo.db",
            server.restricted(policy(bucket, "x")),
            request.param == "put-only",
        )


def stands(line: Line) -> None:
    """The object is there, whole, and nothing else holds room."""
    with contextlib.closing(line.server.provider(line.bucket, prefix="x")) as provider:
        assert provider.get(NAME) == BODY
    assert line.unfinished() == 0
    with contextlib.closing(FileMemo(line.memo)) as memo:
        assert memo.items("upload:") == []


def test_what_broke_goes_on_in_parts(line: Line) -> None:
    line.fails(Fault("reset", on=WHOLE))
    assert line.parts_sent() == []
    with line.opened() as provider:
        provider.put(NAME, BODY)
    assert line.parts_sent() == ["1", "2", "3"]
    stands(line)


def test_only_what_is_missing_is_sent_by_another_process(line: Line) -> None:
    line.fails(Fault("reset", on=WHOLE))
    line.fails(Fault("reset", on=r"[?&]partNumber=2"))
    assert line.parts_sent() == ["1", "2"]
    assert line.unfinished() == 1
    with line.opened() as provider:
        provider.put(NAME, BODY)
    assert line.parts_sent() == ["2", "3"]
    stands(line)


def test_a_part_whose_reply_was_lost(line: Line) -> None:
    line.fails(Fault("reset", on=WHOLE))
    line.fails(Fault("lost", on=r"[?&]partNumber=1"))
    line.parts_sent()
    with line.opened() as provider:
        provider.put(NAME, BODY)
    # Who may ask what is there finds the part; who may only put sends it again.
    assert line.parts_sent() == (["1", "2", "3"] if line.limited else ["2", "3"])
    stands(line)


def test_an_end_whose_reply_was_lost(line: Line) -> None:
    """The upload is gone because it became the object: seen when it is asked for again."""
    line.fails(Fault("reset", on=WHOLE))
    line.fails(Fault("lost", on=END))
    line.parts_sent()
    with line.opened() as provider:
        for _ in range(2):
            with contextlib.suppress(base.Unavailable):
                provider.put(NAME, BODY)
        provider.put(NAME, BODY)
    stands(line)


def test_an_upload_that_the_bucket_s_rule_removed(line: Line) -> None:
    line.fails(Fault("reset", on=WHOLE))
    line.fails(Fault("reset", on=r"[?&]partNumber=3"))
    client = line.server.client()
    for each in client.list_multipart_uploads(Bucket=line.bucket)["Uploads"]:
        client.abort_multipart_upload(Bucket=line.bucket, Key=each["Key"], UploadId=each["UploadId"])
    with line.opened() as provider:
        assert type(raised_by(lambda: provider.put(NAME, BODY))) is base.Unavailable
        provider.put(NAME, BODY)
    stands(line)


def test_every_request_can_break(line: Line) -> None:
    """Whichever request of it is cut off or unanswered, the next process goes on."""
    line.fails(Fault("reset", on=WHOLE))
    for on in (BEGIN, r"[?&]partNumber=1", r"[?&]partNumber=2", r"[?&]partNumber=3", END):
        for kind in ("reset", "lost"):
            if (on, kind) == (BEGIN, "reset"):
                continue  # has no body to be cut off in
            fault = Fault(kind, on=on)
            line.proxy.set(fault)
            with line.opened() as provider, contextlib.suppress(base.Unavailable):
                provider.put(NAME, BODY)
    line.proxy.clear()
    with line.opened() as provider:
        for _ in range(2):
            with contextlib.suppress(base.Unavailable):
                provider.put(NAME, BODY)
        provider.put(NAME, BODY)
    with contextlib.closing(line.server.provider(line.bucket, prefix="x")) as provider:
        assert provider.get(NAME) == BODY


def test_other_bytes_give_up_what_was_begun(line: Line) -> None:
    with line.opened() as provider:
        provider.put(FIRST, b"what it can do is asked here")
        for fault in (Fault("reset", on=r"^PUT /[^?]+/a/b$"), Fault("reset", on=r"[?&]partNumber=2")):
            line.proxy.set(fault)
            assert type(raised_by(lambda: provider.put("a/b", BODY))) is base.Unavailable
            assert fault.fired == 1
        line.proxy.clear()
        assert line.unfinished() == 1
        provider.put("a/b", BODY[::-1])
        # Who may only put may not abort either: that is left to the bucket's rule.
        assert line.unfinished() == line.limited
    with contextlib.closing(line.server.provider(line.bucket, prefix="x")) as owner:
        assert owner.get("a/b") == BODY[::-1]


def test_what_nobody_went_on_with_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = s3_servers.minio()
    bucket = server.bucket()
    with FaultProxy(server.port) as proxy:
        line = Line(server, bucket, proxy, tmp_path / "memo.db", s3_servers.Keys())
        line.fails(Fault("reset", on=WHOLE))
        line.fails(Fault("reset", on=r"[?&]partNumber=2"))
        assert line.unfinished() == 1
        monkeypatch.setattr(uploads, "GIVEN_UP", -1.0)
        with line.opened() as provider:
            provider.put("second", b"")
        assert line.unfinished() == 0
        monkeypatch.undo()
        line.fails(Fault("reset", on=WHOLE))
        line.fails(Fault("reset", on=r"[?&]partNumber=2"))
        with line.opened() as provider:
            provider.delete(NAME)
            is_missing(provider, NAME)
        assert line.unfinished() == 0


def test_a_large_object_goes_in_parts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "LARGE", 6 << 20)
    server = s3_servers.minio()
    with contextlib.closing(server.provider(server.bucket())) as provider:
        provider.put(NAME, BODY)
        assert provider.get(NAME) == BODY
        assert provider.get(NAME, -100) == BODY[-100:]
        provider.put(NAME, BODY)
        provider.put("a", BODY)
        assert type(raised_by(lambda: provider.put("a", BODY[::-1]))) is base.ObjectConflict
        assert provider.get("a") == BODY


def test_threads_that_put_one_object_send_its_parts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "LARGE", 6 << 20)
    server = s3_servers.minio()
    bucket = server.bucket()
    with (
        FaultProxy(server.port) as proxy,
        contextlib.closing(server.provider(bucket, MemoryMemo(), url=proxy.url)) as provider,
        ThreadPoolExecutor(8) as pool,
    ):
        provider.put("first", b"what it can do is asked here")
        for done in [pool.submit(provider.put, NAME, BODY) for _ in range(8)]:
            done.result()
        sent = [number for line in proxy.seen for number in re.findall(r"^PUT .*[?&]partNumber=(\d+)", line)]
        assert sent == ["1", "2", "3"]
        assert provider.get(NAME) == BODY
    assert server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_of_two_that_put_other_bytes_the_one_that_lost_gives_up_its_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "LARGE", 6 << 20)
    server = s3_servers.minio()
    bucket, told = server.bucket(), []
    with (
        contextlib.closing(server.provider(bucket, MemoryMemo())) as first,
        contextlib.closing(server.provider(bucket, MemoryMemo())) as second,
    ):

        def meanwhile(size: int) -> None:
            told.append(size)
            if len(told) == 1:
                second.put("a", BODY[::-1])

        first.put("first", b"what it can do is asked here")
        assert type(raised_by(lambda: first.put_paced("a", BODY, meanwhile))) is base.ObjectConflict
        assert first.get("a") == BODY[::-1]
    assert sum(told) == len(BODY)
    assert server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_the_parts_of_the_largest_object() -> None:
    for size in (0, 1, uploads.PART, uploads.PART + 1, 5 << 40):
        part = uploads.part_size(size)
        assert part >= uploads.PART
        assert -(-size // part) <= 10_000
