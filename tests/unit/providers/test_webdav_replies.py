from __future__ import annotations

import contextlib
import random
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.config.errors import Disposition
from chatkeep.providers import base, webdav_replies
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.webdav import WebdavProvider
from chatkeep.providers.webdav_replies import (
    Nonsense,
    Resource,
    listing,
    refusal,
    same_version,
    size_outside,
    span,
    wait_asked,
)
from chatkeep.providers.webdav_wire import Wire
from tests.providers.contract import raised_by

BODY = bytes(range(256)) * 8
PLAIN = (
    b'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:"><D:response><D:href>/v/</D:href><D:propstat><D:prop>'
    b"<D:resourcetype><D:collection/></D:resourcetype><D:quota-available-bytes>77</D:quota-available-bytes></D:prop>"
    b"<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
    b"<D:response><D:href>http://h:80/v/a%20b</D:href><D:propstat><D:prop><D:resourcetype/>"
    b"<D:getcontentlength>12</D:getcontentlength><D:getlastmodified>Mon, 23 Nov 2026 14:52:16 GMT</D:getlastmodified>"
    b"</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat><D:propstat><D:prop><D:getcontentlength>99"
    b"</D:getcontentlength></D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response>"
    b"<D:response><D:href>/v/gone</D:href><D:status>HTTP/1.1 404 Not Found</D:status></D:response></D:multistatus>"
)


def test_a_listing() -> None:
    expected = [
        Resource("/v", collection=True, free=77),
        Resource("/v/a b", size=12, modified=1795445536.0),
    ]
    assert listing([PLAIN]) == expected
    assert listing(bytes([each]) for each in PLAIN) == expected


BOMB = b'<?xml version="1.0"?><!DOCTYPE m [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><m xmlns="DAV:">&b;</m>'
OUTSIDE = b'<!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/passwd">]><multistatus xmlns="DAV:">&x;</multistatus>'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (BOMB, "doctype"),
        (OUTSIDE, "doctype"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "doctype"),
        (b"<html><body>Log in</body></html>", "root"),
        (b'<multistatus xmlns="other:"/>', "root"),
        (b"", "xml"),
        (PLAIN[:-1], "xml"),
        (PLAIN + b"x", "xml"),
        (b'<multistatus xmlns="DAV:">' + b"<a>" * 40, "size"),
        (b'<multistatus xmlns="DAV:"><response><href>' + b"x" * 20_000, "size"),
        (b'<multistatus xmlns="DAV:"><response><href>&nothing;</href></response></multistatus>', "xml"),
    ],
)
def test_what_is_no_listing(body: bytes, reason: str) -> None:
    with pytest.raises(Nonsense) as caught:
        listing([body])
    assert caught.value.args == (reason,)


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"<multistatus ", b"a" * 65536),
        (b'<multistatus xmlns="DAV:" b="', b"a" * 65536),
        (b'<multistatus xmlns="DAV:"><', b"a" * 65536),
        (b'<multistatus xmlns="DAV:"><!-- ', b"a" * 65536),
        (b'<multistatus xmlns="DAV:">', b"<!---->" * 9000),
    ],
    ids=["tag", "attribute", "name", "comment", "comments"],
)
def test_what_the_parser_keeps_until_it_ends_has_a_bound(begin: bytes, piece: bytes) -> None:
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        yield begin
        for _ in range(64):
            asked += 1
            yield piece
        raise AssertionError("it would be read for ever")

    with pytest.raises(Nonsense) as caught:
        listing(endless())
    assert caught.value.args == ("size",)
    assert asked < 20


def test_what_was_not_asked_for_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger may name properties without end, and paths: of the first none is kept, of the second so much."""
    other = b"".join(b"<p%d>%s</p%d>" % (number, b"x" * 1000, number) for number in range(2000))
    text = PLAIN.replace(
        b"<D:resourcetype/>", b"<D:resourcetype/>" + other.replace(b"<p", b"<D:p").replace(b"</p", b"</D:p")
    )
    tracemalloc.start()
    try:
        assert listing([text]) == listing([PLAIN])
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        listing([text])
        assert tracemalloc.get_traced_memory()[1] - before < 3 * (1 << 20)
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(webdav_replies, "_PATHS", 6)
    with pytest.raises(Nonsense) as caught:
        listing([PLAIN])
    assert caught.value.args == ("size",)


@given(st.binary(max_size=200), st.integers(0, len(PLAIN)), st.integers(0, 40))
def test_a_listing_that_was_changed_on_the_way(noise: bytes, at: int, drop: int) -> None:
    changed = PLAIN[:at] + noise + PLAIN[at + drop :]
    with contextlib.suppress(Nonsense):
        assert all(isinstance(each, Resource) for each in listing([changed]))


def test_hrefs_and_numbers_that_are_none() -> None:
    def one(href: str, size: str, when: str) -> list[Resource]:
        text = (
            f'<multistatus xmlns="DAV:"><response><href>{href}</href><propstat><prop><getcontentlength>{size}'
            f"</getcontentlength><getlastmodified>{when}</getlastmodified></prop><status>HTTP/1.1 200 OK</status>"
            "</propstat></response></multistatus>"
        )
        return listing([text.encode()])

    assert one("http://[broken", "-3", "yesterday") == [Resource("?")]
    assert one("/a%ff", "1e3", "") == [Resource("?")]
    assert one("/%C3%A9/", " 7 ", "Fri, 31 Dec 9999 23:59:59 GMT")[0].path == "/é"


def test_content_ranges() -> None:
    assert span("bytes 0-9/10").end == 10
    assert span("bytes 5-5/*").total is None
    for wrong in ("", "bytes 9-0/10", "bytes 0-10/10", "bytes */10", "items 0-1/2", "bytes 0-1", "bytes -1-2/3"):
        with pytest.raises(Nonsense):
            span(wrong)
    assert size_outside("bytes */12") == 12
    assert size_outside("bytes */*") is None


def test_versions_compare_weakly() -> None:
    assert same_version('W/"1"', '"1"')
    assert same_version("", '"1"')
    assert not same_version('"1"', '"2"')


def test_how_long_to_wait() -> None:
    assert wait_asked("120", 0.0) == 120
    assert wait_asked("Mon, 23 Nov 2026 14:52:16 GMT", 1795445536.0 - 30) == 30
    assert wait_asked("Mon, 23 Nov 2026 14:52:16 GMT", 1795445536.0 + 30) == 0
    assert wait_asked("soon", 0.0) is None
    assert wait_asked("", 0.0) is None


@pytest.mark.parametrize(
    ("status", "after", "means"),
    [
        (200, None, base.Unavailable),
        (301, None, base.StorageMissing),
        (302, None, base.Unavailable),
        (308, None, base.StorageMissing),
        (400, None, base.Unavailable),
        (401, None, base.CredentialRefused),
        (403, None, base.PermissionRefused),
        (405, None, base.PermissionRefused),
        (408, None, base.Unavailable),
        (413, None, base.QuotaExceeded),
        (423, None, base.Unavailable),
        (429, None, base.Throttled),
        (429, 3.0, base.Throttled),
        (500, None, base.Unavailable),
        (501, None, base.PermissionRefused),
        (502, None, base.Unavailable),
        (503, None, base.Unavailable),
        (503, 3.0, base.Throttled),
        (504, None, base.Unavailable),
        (507, None, base.QuotaExceeded),
        (599, None, base.Unavailable),
    ],
)
def test_what_a_status_means(status: int, after: float | None, means: type[base.ProviderError]) -> None:
    error = refusal(status, after, "https://h/v/", provider="dav", object="a")
    assert type(error) is means
    assert error.params["status"] == status
    assert (error.params.get("reason") == "no-answer") == (status in (200, 302)), "the page of somebody else"
    if means is base.Throttled:
        assert error.params["after"] == after
        assert error.disposition is Disposition.RETRY


# Replies that do not fit together, of a server that nobody could run


Answer = Callable[[httpx.Request], httpx.Response]


def _reply(status: int, *, content: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    """One whose body is still to be read, as from a server."""
    length = {"Content-Length": str(len(content))}
    return httpx.Response(status, content=iter([content]), headers={**length, **(headers or {})})


def _serving(answer: Answer) -> WebdavProvider:
    wire = Wire("dav", "http://127.0.0.1:9/v")
    wire._client.close()
    wire._client = httpx.Client(transport=httpx.MockTransport(answer))
    return WebdavProvider(wire, MemoryMemo())


def _file(size: int) -> bytes:
    return (
        f'<multistatus xmlns="DAV:"><response><href>/v/a</href><propstat><prop><resourcetype/><getcontentlength>{size}'
        "</getcontentlength></prop><status>HTTP/1.1 200 OK</status></propstat></response></multistatus>"
    ).encode()


def _ranged(request: httpx.Request) -> tuple[int, int]:
    first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
    return int(first), min(int(last or len(BODY) - 1), len(BODY) - 1)


def test_a_server_that_sends_a_part_of_the_range(seed: int) -> None:
    chosen = random.Random(seed)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "PROPFIND":
            return _reply(207, content=_file(len(BODY)))
        if "range" not in request.headers:
            return _reply(200, content=BODY, headers={"ETag": '"1"'})
        first, last = _ranged(request)
        if first > last:
            return _reply(416, content=b"", headers={"Content-Range": f"bytes */{len(BODY)}"})
        last = chosen.randint(first, last)
        about = {"ETag": '"1"', "Content-Range": f"bytes {first}-{last}/{len(BODY)}"}
        return _reply(206, content=BODY[first : last + 1], headers=about)

    for _ in range(50):
        start, length = chosen.randint(0, len(BODY) + 10), chosen.randint(0, len(BODY))
        assert _serving(answer).get("a", start, length) == BODY[start : start + length]


def _get(status: int, body: bytes, headers: dict[str, str], offset: int = 0, length: int | None = None) -> bytes:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "PROPFIND":
            return _reply(207, content=_file(len(BODY)))
        return _reply(status, content=body, headers=headers)

    return _serving(answer).get("a", offset, length)


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (206, BODY[4:8], {"Content-Range": f"bytes 4-7/{len(BODY)}", "ETag": '"1"'}),  # other bytes than asked
        (206, BODY[2:6], {"ETag": '"1"'}),
        (206, BODY[2:6], {"Content-Range": "bytes 2-5/4", "ETag": '"1"'}),
        (206, b"", {"Content-Range": f"bytes 2-5/{len(BODY)}", "ETag": '"1"'}),  # says more than it sends
        (200, BODY, {"Content-Encoding": "gzip", "ETag": '"1"'}),
        (416, b"", {"Content-Range": f"bytes */{len(BODY)}"}),  # nothing there, and yet there is
        (416, b"", {}),
        (302, b"", {"Location": "http://login.example/"}),
    ],
)
def test_replies_that_do_not_fit(status: int, body: bytes, headers: dict[str, str]) -> None:
    assert type(raised_by(partial(_get, status, body, headers, 2, 4))) is base.Unavailable


def test_another_version_between_two_pieces() -> None:
    tags = iter(('"1"', '"2"'))
    conditions = []

    def answer(request: httpx.Request) -> httpx.Response:
        conditions.append(request.headers.get("if-range"))
        first, last = _ranged(request)
        last = min(last, first + 1)
        about = {"ETag": next(tags), "Content-Range": f"bytes {first}-{last}/{len(BODY)}"}
        return _reply(206, content=BODY[first : last + 1], headers=about)

    error = raised_by(partial(_serving(answer).get, "a", 2, 4))
    assert type(error) is base.Unavailable
    assert error.params["reason"] == "changed"
    assert conditions == [None, '"1"']


def test_a_server_that_counts_from_the_end_in_its_own_way() -> None:
    """One more than asked for was measured at a server."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked = request.headers["range"].removeprefix("bytes=")
        first, last = (len(BODY) - int(asked[1:]) - 1, len(BODY) - 1) if asked[0] == "-" else _ranged(request)
        about = {"ETag": '"1"', "Content-Range": f"bytes {first}-{last}/{len(BODY)}"}
        return _reply(206, content=BODY[first : last + 1], headers=about)

    assert _serving(answer).get("a", -50) == BODY[-50:]
    assert _serving(answer).get("a", -50, 7) == BODY[-50:-43]


def test_a_listing_of_other_paths_is_no_empty_collection() -> None:
    provider = _serving(lambda _: _reply(207, content=PLAIN.replace(b"/v/", b"/inside/")))
    for call in (lambda: list(provider.list("")), partial(provider.get, "a")):
        error = raised_by(call)
        assert type(error) is base.Unavailable
