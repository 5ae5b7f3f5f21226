"""What the provider for iCloud does when CloudKit refuses, breaks off, answers nonsense or lies."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from chatkeep.config.errors import Disposition
from chatkeep.providers import base
from chatkeep.providers.icloud import ASSET_LIMIT, TYPE, CloudKitProvider
from chatkeep.providers.icloud_calls import Calls
from chatkeep.providers.icloud_replies import ClockRefused, ObjectTooLarge, SchemaMissing
from chatkeep.providers.icloud_signing import Signer
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.paging import BARREN
from chatkeep.providers.registry import Opening
from tests.providers.contract import names, raised_by
from tests.support.fake_cloudkit import FakeCloudKit

BODY = bytes(range(256)) * 1000
NAME = "d/aa/p/" + hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def fake() -> Iterator[FakeCloudKit]:
    made = FakeCloudKit()
    yield made
    made.close()


@pytest.fixture
def provider(fake: FakeCloudKit, tmp_path: Path) -> Iterator[CloudKitProvider]:
    options = fake.options(tmp_path)
    made = CloudKitProvider("cloud", Calls("cloud", options, Signer(options.key_id, options.key_file), silent_for=1.0))
    yield made
    made.close()


REFUSALS = [
    ("THROTTLED", 429, 7.5, base.Throttled),
    ("THROTTLED", 429, None, base.Throttled),
    ("TRY_AGAIN_LATER", 503, 3, base.Throttled),
    ("TRY_AGAIN_LATER", 503, None, base.Unavailable),
    ("INTERNAL_ERROR", 500, None, base.Unavailable),
    ("QUOTA_EXCEEDED", 413, None, base.QuotaExceeded),
    ("ACCESS_DENIED", 403, None, base.PermissionRefused),
    ("AUTHENTICATION_REQUIRED", 421, None, base.CredentialRefused),
    ("AUTHENTICATION_FAILED", 401, None, base.CredentialRefused),
    ("ZONE_NOT_FOUND", 404, None, base.StorageMissing),
    ("BAD_REQUEST", 400, None, base.Unavailable),
    ("VALIDATING_REFERENCE_ERROR", 412, None, base.Unavailable),
]


@pytest.mark.parametrize("on", ["records/lookup", "records/modify", "records/query", "assets/upload"])
@pytest.mark.parametrize(("code", "status", "after", "kind"), REFUSALS)
def test_what_each_refusal_means(
    code: str,
    status: int,
    after: float | None,
    kind: type[base.ProviderError],
    on: str,
    fake: FakeCloudKit,
    provider: CloudKitProvider,
) -> None:
    calls: dict[str, Callable[[], object]] = {
        "records/lookup": lambda: provider.get(NAME),
        "records/modify": lambda: provider.delete(NAME),
        "records/query": lambda: names(provider, "d/"),
        "assets/upload": lambda: provider.put(NAME, BODY),
    }
    fake.refuse(code, on, status, after)
    error = raised_by(calls[on])
    assert fake.fired[code] == 1
    assert type(error) is kind
    assert error.params["provider"] == "cloud"
    if isinstance(error, base.Throttled):
        assert error.after == after
    calls[on]() if on in ("records/modify", "records/query", "assets/upload") else None  # the next one goes well


@pytest.mark.parametrize("status", [429, 500, 502, 503, 302, 204])
def test_an_answer_without_json_is_judged_by_its_status(
    status: int, fake: FakeCloudKit, provider: CloudKitProvider
) -> None:
    fake.answer("bare", "records/lookup", status, b"", {"Retry-After": "9", "Location": "/elsewhere"})
    error = raised_by(lambda: provider.stat(NAME))
    assert fake.fired["bare"] == 1
    assert isinstance(error, base.Throttled if status in (429, 503) else base.Unavailable)
    assert error.disposition is Disposition.RETRY
    if isinstance(error, base.Throttled):
        assert error.after == 9.0


def test_quota_of_assets(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    fake.data.room = len(BODY) - 1
    assert type(raised_by(lambda: provider.put(NAME, BODY))) is base.QuotaExceeded
    assert fake.fired["quota"] == 1
    assert fake.data.assets == {}
    fake.data.room = None
    provider.put(NAME, BODY)
    assert provider.get(NAME) == BODY


def test_a_revoked_key(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    fake.revoked = True
    error = raised_by(lambda: provider.put(NAME, BODY))
    assert fake.fired["revoked"] == 1
    assert type(error) is base.CredentialRefused
    assert error.disposition is Disposition.NEEDS_USER
    fake.revoked = False
    provider.put(NAME, BODY)


def test_another_key_than_the_one_of_that_id(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    fake.key = ec.generate_private_key(ec.SECP256R1())
    assert type(raised_by(lambda: provider.stat(NAME))) is base.CredentialRefused
    assert fake.fired["signature"] == 1


@pytest.mark.parametrize("minutes", [-20, 20, 600])
def test_a_clock_that_is_off_is_said_to_be(minutes: int, fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    fake.ahead = minutes * 60
    error = raised_by(lambda: provider.stat(NAME))
    assert fake.fired["clock"] == 1
    assert type(error) is ClockRefused
    assert error.params["minutes"] == abs(minutes)


def test_a_clock_that_is_off_a_little_is_measured(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    fake.ahead = -400.0
    seen = provider.probe()
    assert seen.clock_ahead is not None
    assert abs(seen.clock_ahead + 400) < 3


def test_a_container_without_the_schema(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    fake.data.schema = False
    for call in (lambda: provider.put(NAME, BODY), lambda: names(provider)):
        error = raised_by(call)
        assert type(error) is SchemaMissing
        assert error.params["path"] == "iCloud.org.example.chatkeep"
        assert "record type" in str(error.params["said"])
    assert fake.fired["schema"] == 2


@pytest.mark.parametrize("taken_is", ["EXISTS", "CONFLICT"])
@pytest.mark.parametrize("salted", [False, True])
def test_a_put_whose_reply_was_lost(
    taken_is: str, salted: bool, fake: FakeCloudKit, provider: CloudKitProvider
) -> None:
    fake.data.taken_is, fake.data.salted = taken_is, salted
    fake.lose_reply("records/modify")
    assert type(raised_by(lambda: provider.put(NAME, BODY))) is base.Unavailable
    assert fake.fired["lost"] == 1
    assert len(fake.data.records) == 1  # it was carried out all the same
    provider.put(NAME, BODY)
    assert fake.fired["taken"] == 1
    assert fake.asked["asset-get"] == (1 if salted else 0)  # fetched only where digests do not settle it
    assert len(fake.data.records) == 1
    assert provider.get(NAME) == BODY


def test_other_bytes_with_digests_that_cannot_be_compared(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    fake.data.salted = True
    provider.put("a", BODY)
    assert type(raised_by(lambda: provider.put("a", BODY[::-1]))) is base.ObjectConflict
    assert provider.get("a") == BODY


def test_a_record_that_claims_a_digest_is_not_believed(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    provider.put("a", BODY)
    other = BODY[::-1]
    fake.data.records["a"].fields["sha256"] = hashlib.sha256(other).hexdigest()
    assert type(raised_by(lambda: provider.put("a", other))) is base.ObjectConflict
    error = raised_by(lambda: provider.get("a"))
    assert type(error) is base.ObjectDamaged
    assert provider.get("a", 10, 20) == BODY[10:30]  # parts are the reader's to check


@pytest.mark.parametrize("on", ["assets/upload", "asset-put"])
def test_a_put_that_is_cut_off_before_its_record_leaves_no_object(
    on: str, fake: FakeCloudKit, provider: CloudKitProvider
) -> None:
    fake.lose_reply(on)
    assert type(raised_by(lambda: provider.put(NAME, BODY))) is base.Unavailable
    assert fake.fired["lost"] == 1
    assert type(raised_by(lambda: provider.get(NAME))) is base.ObjectNotFound
    assert names(provider) == []
    provider.put(NAME, BODY)
    assert provider.get(NAME) == BODY


def test_a_delete_whose_reply_was_lost(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    provider.put(NAME, BODY)
    fake.lose_reply("records/modify")
    assert type(raised_by(lambda: provider.delete(NAME))) is base.Unavailable
    assert fake.fired["lost"] == 1
    provider.delete(NAME)
    assert type(raised_by(lambda: provider.stat(NAME))) is base.ObjectNotFound


def test_what_is_too_large_is_refused_before_anything_is_sent(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    error = raised_by(lambda: provider.put("a", bytes(ASSET_LIMIT + 1)))
    assert type(error) is ObjectTooLarge
    assert error.params == {"provider": "cloud", "object": "a", "size": ASSET_LIMIT + 1, "limit": ASSET_LIMIT}
    assert not fake.asked


def test_a_body_that_breaks_off_is_resumed(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    provider.put(NAME, BODY)
    fake.cut("asset-get", 100_000, times=2)
    assert provider.get(NAME) == BODY
    assert fake.fired["cut"] == 2
    assert fake.asked["asset-get"] == 3
    fake.cut("asset-get", 10)
    assert provider.get(NAME, -1000, 500) == BODY[-1000:-500]
    assert fake.fired["cut"] == 3


def test_a_body_that_never_begins_is_given_up(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    provider.put(NAME, BODY)
    fake.cut("asset-get", 100)
    fake.cut("asset-get", 0)
    assert type(raised_by(lambda: provider.get(NAME))) is base.Unavailable
    assert fake.fired["cut"] == 2
    assert fake.asked["asset-get"] == 2


def test_an_answer_that_ends_well_without_a_byte_is_asked_for_once(
    fake: FakeCloudKit, provider: CloudKitProvider
) -> None:
    """Asked for again, it would be asked for without end."""
    provider.put(NAME, BODY)
    fake.answer("empty", "asset-get", 206, b"", {"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"}, times=5)
    assert type(raised_by(lambda: provider.get(NAME))) is base.Unavailable
    assert fake.fired["empty"] == 1


def test_a_bit_that_flips_on_the_way_is_found(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    provider.put(NAME, BODY)
    fake.flip("asset-get")
    assert provider.get(NAME) == BODY
    assert fake.fired["flip"] == 1
    fake.flip("asset-get", times=2)
    assert type(raised_by(lambda: provider.get(NAME))) is base.ObjectDamaged
    assert fake.fired["flip"] == 3


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_address_that_is_used_up_is_asked_for_anew(
    status: int, fake: FakeCloudKit, provider: CloudKitProvider
) -> None:
    provider.put(NAME, BODY)
    fake.cut("asset-get", 1000)
    fake.refuse("NOT_FOUND", "asset-get", status)
    assert provider.get(NAME) == BODY
    assert fake.fired["NOT_FOUND"] == 1
    assert fake.asked["records/lookup"] == 2
    fake.refuse("NOT_FOUND", "asset-get", status, times=2)
    assert type(raised_by(lambda: provider.get(NAME))) is base.Unavailable


def test_parts_of_two_objects_are_never_joined(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    provider.put("a", BODY)

    def replaced(_: object) -> None:
        fake.data.records["a"].tag = "other"
        fake.data.addresses.clear()

    fake.cut("asset-get", 1000)
    fake.fault("replaced", "asset-get", replaced)
    error = raised_by(lambda: provider.get("a"))
    assert fake.fired["replaced"] == 1
    assert type(error) is base.Unavailable
    assert error.params["reason"] == "changed"


def test_a_server_that_does_not_heed_ranges(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    provider.put(NAME, BODY)
    fake.answer("whole", "asset-get", 200, BODY)
    assert provider.get(NAME, 70_000, 100) == BODY[70_000:70_100]
    assert fake.fired["whole"] == 1


@pytest.mark.parametrize(
    "headers",
    [{"Content-Range": "bytes 1-9/9"}, {"Content-Range": "bytes 5-9/256000"}, {}, {"Content-Range": "bytes x"}],
)
def test_another_range_than_asked_is_no_answer(
    headers: dict[str, str], fake: FakeCloudKit, provider: CloudKitProvider
) -> None:
    provider.put(NAME, BODY)
    fake.answer("range", "asset-get", 206, BODY[:9], headers)
    error = raised_by(lambda: provider.get(NAME, 2, 7))
    assert fake.fired["range"] == 1
    assert isinstance(error, base.ObjectDamaged if "/9" in str(headers) else base.Unavailable)


def test_a_lagging_index(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    for name in ("a/1", "a/2"):
        provider.put(name, BODY)
    fake.data.hidden.add("a/1")
    assert names(provider) == ["a/2"]
    assert provider.get("a/1") == BODY  # by name it is there
    fake.data.ghosts["a_2"] = fake.data.records["a_2"]
    provider.delete("a/2")
    assert names(provider) == ["a/2"]
    assert type(raised_by(lambda: provider.get("a/2"))) is base.ObjectNotFound
    assert fake.fired["stale"] >= 2


def test_records_of_others_are_not_listed(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    provider.put("a", BODY)
    for record, name in (("b", "../b"), ("c", "d"), ("e", "E")):
        fake.data.records[record] = fake.data.records["a"].__class__({"name": name, "size": 1, "sha256": ""}, "t", 1)
    fake.data.records["f"] = fake.data.records["a"].__class__({"name": "f"}, "t", 1)
    assert names(provider) == ["a"]
    assert type(raised_by(lambda: provider.stat("f"))) is base.ObjectDamaged


def test_a_record_that_is_told_to_be_deleted_is_none(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    told = json.dumps({"records": [{"recordName": "a", "deleted": True}]}).encode()
    fake.answer("deleted", "records/lookup", 200, told)
    assert type(raised_by(lambda: provider.stat("a"))) is base.ObjectNotFound
    fake.answer("deleted", "records/query", 200, told)
    assert names(provider) == []
    assert fake.fired["deleted"] == 2


def test_a_listing_that_goes_in_a_circle_ends(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    provider.put("a", BODY)
    page = json.dumps({"records": [], "continuationMarker": "again"}).encode()
    fake.answer("circle", "records/query", 200, page, times=1000)
    assert raised_by(lambda: names(provider)).params["reason"] == "circle"
    assert fake.fired["circle"] == BARREN + 1


NONSENSE = [
    b"",
    b"<html>",
    b"[]",
    b"{}",
    b'{"records": {}}',
    b'{"records": []}',
    b'{"records": [1]}',
    b'{"records": [{"recordName": "b"}]}',
    b'{"records": [{"recordName": "a"}, {"recordName": "a"}]}',
    b"[" * 100_000,
    b'{"records": "' + bytes(9 << 20) + b'"}',
]


@pytest.mark.parametrize("raw", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_no_answer(raw: bytes, fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    for on, call in (
        ("records/lookup", lambda: provider.stat("a")),
        ("records/modify", lambda: provider.put("a", b"")),
        ("assets/upload", lambda: provider.put("a", b"x")),
        ("asset-put", lambda: provider.put("a", b"x")),
    ):
        fake.answer("nonsense", on, 200, raw)
        assert type(raised_by(call)) is base.Unavailable, on
    assert fake.fired["nonsense"] == 4


def test_a_receipt_for_fewer_bytes(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    receipt = {"singleFile": {"fileChecksum": "x", "size": len(BODY) - 1, "receipt": "y"}}
    fake.answer("short", "asset-put", 200, json.dumps(receipt).encode())
    error = raised_by(lambda: provider.put(NAME, BODY))
    assert fake.fired["short"] == 1
    assert type(error) is base.Unavailable
    assert fake.data.records == {}


def test_an_address_within_this_network_is_never_asked(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    with_other = FakeCloudKit()
    try:
        url = f"http://127.0.0.1:{with_other.port}/upload/x"
        token = {"tokens": [{"recordName": "a", "fieldName": "body", "url": url}]}
        fake.answer("elsewhere", "assets/upload", 200, json.dumps(token).encode())
        error = raised_by(lambda: provider.put("a", b"x"))
        assert fake.fired["elsewhere"] == 1
        assert error.params["reason"] == "address"
        assert not with_other.asked
        assert with_other.refused == []
    finally:
        with_other.close()


@pytest.mark.parametrize("on", ["asset-get", "asset-put", "records/lookup"])
def test_redirects_are_not_followed(on: str, fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    provider.put(NAME, BODY)
    elsewhere = FakeCloudKit()
    try:
        there = {"Location": f"http://127.0.0.1:{elsewhere.port}/asset/{'0' * 32}/object"}
        fake.answer("redirect", on, 307, b"", there)
        call = (lambda: provider.put("a", BODY)) if on == "asset-put" else (lambda: provider.get(NAME))
        assert type(raised_by(call)) is base.Unavailable
        assert fake.fired["redirect"] == 1
        assert not elsewhere.asked
        assert elsewhere.refused == []
    finally:
        elsewhere.close()


def test_an_answer_without_end_is_not_read_to_it(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    fake.answer("long", "records/lookup", 200, b'{"records": "' + bytes(9 << 20) + b'"}')
    error = raised_by(lambda: provider.stat("a"))
    assert fake.fired["long"] == 1
    assert error.params["reason"] == "too-long"


def test_a_record_of_another_object_under_this_name(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    provider.put("a", BODY)
    fake.data.records["a"].fields["name"] = "b"
    assert type(raised_by(lambda: provider.get("a"))) is base.ObjectDamaged
    assert names(provider) == []


def test_a_server_that_says_nothing(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    import threading

    over = threading.Event()

    def hang(_: object) -> None:
        over.wait(20)

    fake.fault("silent", "records/lookup", hang)
    try:
        assert type(raised_by(lambda: provider.stat(NAME))) is base.Unavailable
    finally:
        over.set()
    assert fake.fired["silent"] == 1


def test_paced_sending(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    told: list[int] = []
    provider.put_paced(NAME, BODY, told.append)
    assert sum(told) == len(BODY)
    assert 0 < max(told) <= 65_536
    assert provider.get(NAME) == BODY

    class Stop(Exception):
        pass

    def stop(_: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        provider.put_paced("a", BODY, stop)
    assert type(raised_by(lambda: provider.get("a"))) is base.ObjectNotFound
    assert isinstance(provider, base.Paced)
    assert isinstance(provider, base.Usage)
    assert provider.requests()["asset-put"] == 2


def test_no_error_says_an_address_or_the_key(fake: FakeCloudKit, provider: CloudKitProvider, tmp_path: Path) -> None:
    provider.put(NAME, BODY)
    for on in ("records/lookup", "assets/upload"):
        fake.lose_reply(on)
    for call in (lambda: provider.get(NAME), lambda: provider.put("a", BODY)):
        error = raised_by(call)
        assert type(error) is base.Unavailable
        assert "127.0.0.1" not in repr(error.params)
    assert (tmp_path / "cloudkit-key.pem").read_text()[40:60] not in repr(error.params)


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake: FakeCloudKit) -> None:
    monkeypatch.delitem(sys.modules, "chatkeep.providers.icloud_calls")
    monkeypatch.setitem(sys.modules, "httpx", None)
    error = raised_by(lambda: TYPE.open(Opening("cloud", fake.options(tmp_path), MemoryMemo())))
    assert type(error) is base.ClientMissing
    assert error.params == {"provider": "cloud", "type": "icloud", "package": "httpx", "extra": "icloud"}


def test_the_client_is_imported_when_it_is_used() -> None:
    code = "import sys, chatkeep.providers.icloud; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_that_was_sent_is_undocumented(fake: FakeCloudKit, provider: CloudKitProvider) -> None:
    provider.put(NAME, BODY)
    provider.put(NAME, BODY)
    provider.get(NAME, 5, 5)
    names(provider, "d")
    provider.stat(NAME)
    provider.delete(NAME)
    provider.probe()
    assert fake.refused == []
    assert fake.asked.keys() == {
        *("assets/upload", "asset-put", "asset-get", "records/modify", "records/lookup", "records/query")
    }
