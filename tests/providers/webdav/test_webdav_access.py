"""Who asks a WebDAV server, and whether it is the server: logins, certificates."""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from chatkeep.config.storages import WebdavOptions
from chatkeep.providers import base, webdav_wire
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.registry import Opening
from chatkeep.providers.webdav import TYPE, WebdavProvider
from chatkeep.providers.webdav_wire import Password, Token, Wire
from tests.providers.contract import names, raised_by
from tests.providers.webdav.places import BODY, NUMBERS, Open, fresh
from tests.support import apache, wsgidav_server

# Who asks


def test_digest_with_many_threads_sends_no_object_in_vain(httpd: apache.Apache, opened: Open) -> None:
    url = f"{httpd.url}/digest/vault{next(NUMBERS)}"
    provider = opened(url)
    provider.put("a/0", BODY)  # all is known now, so that the first request of another thread is that of its object
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: provider.put(f"a/{number}", BODY), range(1, 16)))
    assert names(provider) == sorted(f"a/{number}" for number in range(16))
    where = url.rpartition("/")[2]
    puts = httpd.logged(lambda line: line.startswith("PUT ") and where in line, 16)
    assert [line for line in puts if " 401 " in line] == []


def test_a_nonce_that_is_too_old_is_renewed(httpd: apache.Apache, opened: Open) -> None:
    """Digest is forgotten by the server when it starts again with another secret; here the client forgets it."""
    url = f"{httpd.url}/digest/vault{next(NUMBERS)}"
    provider = opened(url)
    provider.put("a", b"1")
    digest = provider._wire._credential._mine.digest  # type: ignore[union-attr]
    digest._last_challenge = digest._last_challenge._replace(nonce=b"never-given")
    where = f"{url.rpartition('/')[2]}/"
    before = len(httpd.logged(lambda line: " 401 " in line and where in line, 1))
    provider.put("b", b"2")
    httpd.logged(lambda line: " 401 " in line and where in line, before + 1)
    assert names(provider) == ["a", "b"]


def test_a_token(pydav: wsgidav_server.Wsgidav, opened: Open) -> None:
    with pydav.switched("bearer", bearer=True) as fired:
        url = fresh(pydav)
        provider = opened(url, Token(wsgidav_server.TOKEN))
        provider.put("a", BODY)
        assert provider.get("a") == BODY
        assert fired() == 0
        assert type(raised_by(partial(opened(url, create=False).get, "a"))) is base.CredentialRefused
        assert fired() > 0


def test_a_wrong_password_is_said_at_once(server: apache.Apache, opened: Open) -> None:
    url = fresh(server)
    opened(url).put("a", b"1")
    provider = opened(url, Password(apache.USER, "wrong"), create=False)
    for call in (partial(provider.get, "a"), partial(provider.put, "b", b"x"), partial(names, provider)):
        error = raised_by(call)
        assert type(error) is base.CredentialRefused
        assert "wrong" not in str(error) + repr(error.__cause__)


def test_nobody_where_somebody_is_asked_for(server: apache.Apache) -> None:
    url = fresh(server)
    with contextlib.closing(WebdavProvider(Wire("dav", url), MemoryMemo())) as provider:
        assert type(raised_by(partial(provider.get, "a"))) is base.CredentialRefused


def test_a_place_that_may_only_be_read(httpd: apache.Apache, opened: Open) -> None:
    httpd.directory("readonly/v/.tmp")
    httpd.directory("readonly/v/a")
    (httpd.room / "files/readonly/v/a/b").write_bytes(b"1")
    provider = opened(f"{httpd.url}/readonly/v", create=False)
    assert provider.get("a/b") == b"1"
    for call in (partial(provider.put, "c", b"x"), partial(provider.delete, "a/b")):
        assert type(raised_by(call)) is base.PermissionRefused


def test_opened_as_configured(httpd: apache.Apache, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{apache.PASSWORD}\n")
    secret.chmod(0o600)
    options = WebdavOptions(fresh(httpd), apache.USER, secret)
    with contextlib.closing(TYPE.open(Opening("dav", options, MemoryMemo(), create=True))) as provider:
        provider.put("a", b"1")
        assert provider.get("a") == b"1"
    secret.chmod(0o644)
    error = raised_by(lambda: TYPE.open(Opening("dav", options, MemoryMemo())))
    assert type(error) is base.SecretFileRefused
    assert apache.PASSWORD not in str(error)


def test_the_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "chatkeep.providers.webdav_wire")
    error = raised_by(lambda: TYPE.open(Opening("dav", WebdavOptions("http://127.0.0.1:9/x"), MemoryMemo())))
    assert type(error) is base.ClientMissing
    assert (error.params["package"], error.params["extra"]) == ("httpx", "webdav")


# Certificates


def test_the_certificate_is_verified(httpd: apache.Apache, opened: Open) -> None:
    url = f"{httpd.secure_url}/vault{next(NUMBERS)}"
    error = raised_by(lambda: opened(url))
    assert type(error) is base.Unavailable
    assert error.params["reason"] == "certificate"
    wire = Wire("dav", url, Password(apache.USER, apache.PASSWORD), webdav_wire.secure(httpd.certificate))
    with contextlib.closing(WebdavProvider(wire, MemoryMemo(), create=True)) as provider:
        provider.put("a/b", BODY)
        assert provider.get("a/b", -1000) == BODY[-1000:]
        assert names(provider) == ["a/b"]


def test_certificates_that_cannot_be_read(tmp_path: Path) -> None:
    assert raised_by(lambda: webdav_wire.secure(tmp_path / "none")).params["reason"] == "missing"
    (tmp_path / "ca").write_text("no certificate")
    assert raised_by(lambda: webdav_wire.secure(tmp_path / "ca")).params["reason"] == "malformed"
