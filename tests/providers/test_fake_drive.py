"""The fake Drive against the published protocol, through the unmodified Google client and by hand.

The provider is only as right as the fake it was tested on, so the examples of Google's pages are requests here.
"""

from __future__ import annotations

import http.client
import io
import json
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from googleapiclient.discovery import build_from_document
from googleapiclient.discovery_cache import get_static_doc
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaInMemoryUpload, MediaIoBaseDownload, MediaIoBaseUpload

from tests.support.fake_drive import FOLDER, FakeDrive

UNIT = 262_144


@pytest.fixture
def fake() -> Iterator[FakeDrive]:
    fake = FakeDrive()
    yield fake
    fake.close()


@pytest.fixture
def bearer(fake: FakeDrive) -> str:
    form = {
        "client_id": fake.accounts.client_id,
        "client_secret": fake.accounts.client_secret,
        "grant_type": "refresh_token",
        "refresh_token": fake.accounts.logged_in(),
    }
    status, _, body = ask(
        fake, "POST", "/token", urllib.parse.urlencode(form), kind="application/x-www-form-urlencoded"
    )
    assert status == 200
    return f"Bearer {json.loads(body)['access_token']}"


@pytest.fixture
def service(fake: FakeDrive, bearer: str) -> Iterator[Any]:
    """The Google client on its own transport, httplib2."""
    import google.oauth2.credentials
    import google_auth_httplib2  # type: ignore[import-untyped]
    import httplib2

    described = json.loads(get_static_doc("drive", "v3"))
    described.update(rootUrl=f"{fake.origin}/", baseUrl=f"{fake.origin}/drive/v3/")
    credentials = google.oauth2.credentials.Credentials(bearer.removeprefix("Bearer "))  # type: ignore[no-untyped-call]
    plain = httplib2.Http(timeout=10, proxy_info=None)
    plain.redirect_codes = plain.redirect_codes - {308}
    made = build_from_document(described, http=google_auth_httplib2.AuthorizedHttp(credentials, plain))
    yield made
    made.close()


def ask(
    fake: FakeDrive,
    method: str,
    path: str,
    body: str | bytes = b"",
    *,
    kind: str = "application/json",
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=10)
    try:
        names = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request(method, path, body or None, names)
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def reason(found: Any) -> tuple[int, str]:
    return found.value.resp.status, json.loads(found.value.content)["error"]["errors"][0]["reason"]


def test_resumable_by_the_client(fake: FakeDrive, service: Any) -> None:
    body = bytes(range(256)) * 4096 + b"the end"
    media = MediaIoBaseUpload(io.BytesIO(body), "application/octet-stream", chunksize=UNIT, resumable=True)
    request = service.files().create(body={"name": "large"}, media_body=media, fields="id,size,sha256Checksum")
    done, steps = None, 0
    while done is None:
        _, done = request.next_chunk()
        steps += 1
    assert steps == 5
    assert int(done["size"]) == len(body)
    found = io.BytesIO()
    download = MediaIoBaseDownload(found, service.files().get_media(fileId=done["id"]), chunksize=300_000)
    while not download.next_chunk()[1]:
        pass
    assert found.getvalue() == body
    assert fake.strange == []


def test_small_by_the_client(fake: FakeDrive, service: Any) -> None:
    for body in (b"", b"\n", b"\r\n--x\r\n", bytes(range(256)) * 20, b"--" * 40, b"\n\n--==="):
        media = MediaInMemoryUpload(body, "application/octet-stream")
        made = service.files().create(body={"name": "small"}, media_body=media).execute()
        assert service.files().get_media(fileId=made["id"]).execute() == body
    assert sorted(made) == ["id", "kind", "mimeType", "name"]
    assert fake.strange == []


def test_the_example_of_a_resumable_upload(fake: FakeDrive, bearer: str) -> None:
    """The steps of the guide, with its sizes: 2000000 bytes in chunks of 524288, a break, the question."""
    size, body = 2_000_000, bytes(2_000_000)
    status, headers, _ = ask(
        fake,
        "POST",
        "/upload/drive/v3/files?uploadType=resumable",
        '{"name": "My File"}',
        Authorization=bearer,
        X_Upload_Content_Type="image/jpeg",
        X_Upload_Content_Length=str(size),
    )
    assert status == 200
    session = headers["location"].removeprefix(fake.origin)
    query = {"Content_Range": f"bytes */{size}"}
    status, headers, _ = ask(fake, "PUT", session, **query)
    assert (status, headers.get("range")) == (308, None)
    status, headers, _ = ask(fake, "PUT", session, body[:524288], Content_Range=f"bytes 0-524287/{size}")
    assert (status, headers["range"]) == (308, "bytes=0-524287")
    status, headers, _ = ask(fake, "PUT", session, **query)
    assert (status, headers["range"]) == (308, "bytes=0-524287")
    for start, end, wanted in (
        (524288, 524288 + 99_999, 400),  # no multiple of 256 KiB
        (1048576, 1048576 + UNIT - 1, 400),  # a hole before it
        (0, 1048575, 308),  # what is there already is not taken again
    ):
        status, _, _ = ask(fake, "PUT", session, body[start : end + 1], Content_Range=f"bytes {start}-{end}/{size}")
        assert status == wanted, (start, end)
    status, _, _ = ask(fake, "PUT", session, body[:10], Content_Range=f"bytes 1048576-1048577/{size}")
    assert status == 400
    status, _, _ = ask(fake, "PUT", session, Content_Range=f"bytes */{size + 1}")
    assert status == 400
    status, _, reply = ask(fake, "PUT", session, body[1048576:], Content_Range=f"bytes 1048576-{size - 1}/{size}")
    assert status == 200
    made = json.loads(reply)["id"]
    status, _, reply = ask(fake, "PUT", session, **query)
    assert (status, json.loads(reply)["id"]) == (200, made)
    assert ask(fake, "PUT", session.replace("upload_id=", "upload_id=x"), **query)[0] == 404
    assert len(fake.strange) == 4


def test_ids_made_before(fake: FakeDrive, service: Any) -> None:
    ids = service.files().generateIds(count=3).execute()["ids"]
    assert len(set(ids)) == 3
    service.files().create(body={"id": ids[0], "name": "a"}).execute()
    for ident, expected in ((ids[0], (409, "fileIdInUse")), ("made-up", (400, "invalid"))):
        with pytest.raises(HttpError) as caught:
            service.files().create(body={"id": ident, "name": "b"}).execute()
        assert reason(caught) == expected
    service.files().delete(fileId=ids[0]).execute()
    with pytest.raises(HttpError) as caught:
        service.files().create(body={"id": ids[0], "name": "again"}).execute()
    assert reason(caught) == (409, "fileIdInUse")
    for count in (0, 1001):
        with pytest.raises(HttpError):
            service.files().generateIds(count=count).execute()


def test_names_are_no_keys(fake: FakeDrive, service: Any) -> None:
    for _ in range(3):
        service.files().create(body={"name": "same"}).execute()
    assert len(service.files().list(q="name = 'same'").execute()["files"]) == 3


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("name = 'hello'", ["hello"]),
        ("name contains 'hel'", ["hello", "hello world"]),
        ("name contains 'ello'", []),
        ("name = 'it\\'s'", ["it's"]),
        ("name = 'back\\\\slash'", ["back\\slash"]),
        (
            "not name = 'hello' and mimeType != 'application/vnd.google-apps.folder'",
            ["back\\slash", "hello world", "it's"],
        ),
        ("mimeType = 'application/vnd.google-apps.folder'", ["folder"]),
        ("(name = 'hello' or name = 'folder') and trashed = false", ["folder", "hello"]),
        ("appProperties has { key='a' and value='1' }", ["hello"]),
        ("appProperties has { key='a' and value='2' }", []),
        ("'root' in parents and createdTime > '2012-06-04T12:00:00+00:00' and name='hello'", ["hello"]),
        ("trashed != false", []),
        ("", ["back\\slash", "folder", "hello", "hello world", "it's"]),
    ],
)
def test_queries(fake: FakeDrive, service: Any, query: str, found: list[str]) -> None:
    files = service.files()
    files.create(body={"name": "hello", "appProperties": {"a": "1"}}).execute()
    files.create(body={"name": "folder", "mimeType": FOLDER}).execute()
    for name in ("hello world", "it's", "back\\slash"):
        files.create(body={"name": name}).execute()
    listed = files.list(**({"q": query} if query else {})).execute()["files"]
    assert sorted(each["name"] for each in listed) == found


@pytest.mark.parametrize(
    "query",
    [
        "fullText contains 'x'",
        "name",
        "name =",
        "name = hello",
        "name like 'x'",
        "name = 'x' and",
        "name = 'x' name = 'y'",
        "(name = 'x'",
        "name = 'x''",
        "trashed = maybe",
        "appProperties has { key='a' }",
        "properties has { key='a' and value='b' }",
        "createdTime > 'yesterday'",
        "name = 'x' %",
    ],
)
def test_queries_it_does_not_know_find_nothing(fake: FakeDrive, service: Any, query: str) -> None:
    with pytest.raises(HttpError) as caught:
        service.files().list(q=query).execute()
    assert caught.value.resp.status == 400
    assert len(fake.strange) == 1


def test_pages(fake: FakeDrive, service: Any) -> None:
    for number in range(7):
        service.files().create(body={"name": f"n{number}"}).execute()
    names, token = [], None
    for _ in range(3):
        found = (
            service.files()
            .list(pageSize=3, orderBy="name", pageToken=token, fields="nextPageToken,files(name)")
            .execute()
        )
        names += [each["name"] for each in found["files"]]
        token = found.get("nextPageToken")
    assert names == [f"n{number}" for number in range(7)]
    assert token is None
    token = service.files().list(pageSize=3, fields="nextPageToken,files(id)").execute()["nextPageToken"]
    for about in ({"pageToken": token, "q": "trashed = false"}, {"pageToken": "made-up"}):
        with pytest.raises(HttpError) as caught:
            service.files().list(**about).execute()
        assert caught.value.resp.status == 400


def test_ranges(fake: FakeDrive, service: Any, bearer: str) -> None:
    media = MediaInMemoryUpload(b"0123456789", "application/octet-stream")
    ident = service.files().create(body={"name": "r"}, media_body=media).execute()["id"]
    at = f"/drive/v3/files/{ident}?alt=media"
    for asked, status, body, said in (
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=8-100", 206, b"89", "bytes 8-9/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=10-12", 416, b"", "bytes */10"),
    ):
        found = ask(fake, "GET", at, Authorization=bearer, Range=asked)
        assert (found[0], found[2], found[1]["content-range"]) == (status, body, said)
    assert ask(fake, "GET", at, Authorization=bearer)[::2] == (200, b"0123456789")


def test_trash_and_delete(fake: FakeDrive, service: Any) -> None:
    files = service.files()
    folder = files.create(body={"name": "f", "mimeType": FOLDER}).execute()["id"]
    inside = files.create(body={"name": "in", "parents": [folder]}).execute()["id"]
    files.update(fileId=folder, body={"trashed": True}).execute()
    assert files.get(fileId=inside, fields="trashed").execute() == {"trashed": True}
    assert files.list(q="trashed = false").execute()["files"] == []
    files.delete(fileId=folder).execute()
    for ident in (folder, inside):
        with pytest.raises(HttpError) as caught:
            files.get(fileId=ident).execute()
        assert reason(caught) == (404, "notFound")


def test_a_batch(fake: FakeDrive, service: Any) -> None:
    seen: dict[str, Any] = {}
    batch = service.new_batch_http_request(callback=lambda name, reply, problem: seen.update({name: problem or reply}))
    batch.add(service.files().create(body={"name": "one"}), request_id="one")
    batch.add(service.files().get(fileId="none"), request_id="none")
    batch.execute()
    assert seen["one"]["name"] == "one"
    assert seen["none"].resp.status == 404
    assert fake.count("batch") == 1
    assert fake.strange == []


def test_a_list_that_lags(fake: FakeDrive, service: Any) -> None:
    files = service.files()
    old = files.create(body={"name": "old"}).execute()["id"]
    fake.world.lag()
    new = files.create(body={"name": "new"}).execute()["id"]
    files.delete(fileId=old).execute()
    assert [each["name"] for each in files.list().execute()["files"]] == ["old"]
    assert files.get(fileId=new).execute()["name"] == "new"
    fake.world.settle()
    assert [each["name"] for each in files.list().execute()["files"]] == ["new"]


def test_what_it_does_not_know_is_refused_and_written_down(fake: FakeDrive, service: Any, bearer: str) -> None:
    calls: tuple[Callable[[], Any], ...] = (
        lambda: service.drives().list().execute(),
        lambda: service.files().copy(fileId="x", body={}).execute(),
        lambda: service.files().list(supportsAllDrives=True).execute(),
        lambda: service.files().list(fields="files(owners)").execute(),
        lambda: service.files().create(body={"name": "x", "starred": True}).execute(),
        lambda: service.files().create(body={"name": "x", "appProperties": {"k": "v" * 124}}).execute(),
        lambda: service.about().get().execute(),
    )
    for call in calls:
        before = len(fake.strange)
        with pytest.raises(HttpError):
            call()
        assert len(fake.strange) == before + 1
    assert ask(fake, "POST", "/drive/v3/files", '{"name": "x"}')[0] == 401
    assert ask(fake, "GET", "/drive/v3/files?pageSize=1", Authorization="Bearer made-up")[0] == 401


def test_only_what_the_client_made(fake: FakeDrive, service: Any) -> None:
    other = fake.world.create({"name": "private"}, b"secret", None)
    assert service.files().list().execute()["files"] == []
    for call in (service.files().get, service.files().get_media, service.files().delete):
        with pytest.raises(HttpError) as caught:
            call(fileId=other.id).execute()
        assert reason(caught) == (403, "appNotAuthorizedToFile")


def test_quota(fake: FakeDrive, service: Any) -> None:
    fake.world.quota = 100
    quota = service.about().get(fields="storageQuota(limit,usage)").execute()["storageQuota"]
    assert quota == {"limit": "100", "usage": "0"}
    for resumable in (False, True):
        media = MediaInMemoryUpload(bytes(101), "application/octet-stream", resumable=resumable)
        with pytest.raises(HttpError) as caught:
            service.files().create(body={"name": "x"}, media_body=media).execute()
        assert reason(caught) == (403, "storageQuotaExceeded")


def test_codes_and_pkce(fake: FakeDrive) -> None:
    accounts = fake.accounts
    verifier = "v" * 43
    asked = {
        "client_id": accounts.client_id,
        "redirect_uri": "http://127.0.0.1:1234/",
        "response_type": "code",
        "scope": "https://www.googleapis.com/auth/drive.file",
        # of RFC 7636, appendix B: what this digest must be is computed there
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
        "state": "s",
    }
    for wrong in (
        {"redirect_uri": "http://example.org/"},
        {"redirect_uri": "http://127.0.0.1:1234/?a=1"},
        {"scope": "https://www.googleapis.com/auth/drive"},
        {"code_challenge_method": "plain"},
        {"code_challenge": "short"},
        {"response_type": "token"},
        {"client_id": "another"},
        {"unknown": "1"},
        {"state": ""},
    ):
        assert accounts.authorize({**asked, **wrong})[0] == 400, wrong
    assert accounts.authorize(asked)[0] == 200

    def exchanged(**other: str) -> tuple[int, dict[str, object]]:
        back = urllib.parse.urlsplit(accounts.consented({**asked, "answer": "allow"}))
        form = {
            "client_id": accounts.client_id,
            "client_secret": accounts.client_secret,
            "grant_type": "authorization_code",
            "code": urllib.parse.parse_qs(back.query)["code"][0],
            "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            "redirect_uri": asked["redirect_uri"],
        }
        first = accounts.token({**form, **other})
        assert accounts.token({**form, **other})[0] != 200, "a code is good once"
        return first

    status, found = exchanged()
    assert status == 200
    assert str(found["refresh_token"]) not in accounts.refreshes, "used twice: what it gave is taken back"
    for wrong in ({"code_verifier": verifier}, {"redirect_uri": "http://127.0.0.1:9/"}, {"code": "made-up"}):
        assert exchanged(**wrong)[1]["error"] == "invalid_grant"
    assert exchanged(client_secret="x")[1]["error"] == "invalid_client"
