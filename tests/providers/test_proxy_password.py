"""A proxy that the environment names with its password, and that fails: no error of a provider holds the password, nor
what the provider itself says who it is by, in its text, its causes, or in what these keep."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chatkeep.config.model import ProviderConfig
from chatkeep.config.storages import CloudKitOptions, DriveOptions, OpendalOptions, S3Options, WebdavOptions
from chatkeep.providers import base, registry
from chatkeep.providers.google_login import login
from chatkeep.providers.google_token import TokenInMemo
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.registry import Opening
from tests.support.held import held
from tests.support.locked_proxy import FAILURES, SPELLED, LockedProxy

OWN = "ownk3yofthisprovider"
TYPES = ("s3", "webdav", "webdav-token", "icloud", "gdrive", "opendal")
_ENVIRONMENT = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def secret_file(folder: Path, text: str) -> Path:
    path = folder / "secret"
    path.touch(0o600)
    path.write_text(text)
    return path


def options_of(kind: str, folder: Path, memo: MemoryMemo) -> tuple[str, Any]:
    """Type and options of a provider far away: nothing but a proxy leads there."""
    if kind == "s3":
        keys = f"[default]\naws_access_key_id=AKIDEXAMPLE\naws_secret_access_key=x\naws_session_token={OWN}\n"
        file = secret_file(folder, keys)
        return "s3", S3Options("bucket", endpoint="https://s3.invalid", credentials_file=file)
    if kind == "webdav":
        return kind, WebdavOptions("https://dav.invalid/v", user="me", password_file=secret_file(folder, OWN))
    if kind == "webdav-token":
        return "webdav", WebdavOptions("https://dav.invalid/v", token_file=secret_file(folder, OWN))
    if kind == "icloud":
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return kind, CloudKitOptions("iCloud.org.example", "0" * 64, secret_file(folder, key.decode()))
    if kind == "gdrive":
        client = {"client_id": "1-x.apps.googleusercontent.com", "client_secret": OWN}
        addresses = {"auth_uri": "https://a.invalid/auth", "token_uri": "https://oauth2.googleapis.com/token"}
        TokenInMemo(memo).write(OWN)
        return kind, DriveOptions(secret_file(folder, json.dumps({"installed": client | addresses})))
    options = {"endpoint": "https://dav.invalid", "username": "me"}
    return kind, OpendalOptions("webdav", options, secret_file(folder, f"password={OWN}\n"))


@pytest.fixture(params=TYPES)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in _ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return str(request.param)


def errors_of(kind: str, folder: Path) -> Iterator[base.ProviderError]:
    """What comes of opening such a provider and of every verb."""
    memo = MemoryMemo()
    word, options = options_of(kind, folder, memo)
    try:
        provider = registry.open_provider(ProviderConfig("far", word, options), memo)
    except base.ProviderError as problem:
        yield problem
        return
    with_bytes = b"x" * 100_000
    for call in (
        lambda: provider.put("a", b"x"),
        lambda: provider.put("b", with_bytes),
        lambda: provider.get("a"),
        lambda: provider.stat("a"),
        lambda: list(provider.list("")),
        lambda: provider.delete("a"),
        lambda: provider.probe(),
    ):
        with pytest.raises(base.ProviderError) as caught:
            call()
        yield caught.value
    provider.close()


def told_by(kind: str, folder: Path) -> list[str]:
    """All that can be reached from the errors of such a provider."""
    if kind != "opendal":
        return [held(each) for each in errors_of(kind, folder)]
    # OpenDAL looks at the environment once in a process.
    words = f"from {__name__} import *; print(json.dumps([held(each) for each in errors_of('opendal', Path.cwd())]))"
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=True,
        timeout=120,
    )
    told: list[str] = json.loads(done.stdout)
    return told


OWN_SPELLED = (OWN, base64.b64encode(f"me:{OWN}".encode()).decode())


# Passwords as people write them into an address, where they are none any more; and a proxy that nobody speaks to.
ILL_FORMED = ("up:s3krit#p4ssage@", "up:s3krit/p4ssage@", "up:s3krit?p4ssage@", "up:s3krit[p4ssage@")
ODD = (*(f"http://{who}127.0.0.1:9" for who in ILL_FORMED), "gopher://up:s3kritp4ssage@127.0.0.1:9")


@pytest.mark.parametrize("how", FAILURES)
def test_nothing_of_it_is_in_an_error(kind: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LockedProxy(how) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        told = told_by(kind, tmp_path)
        assert proxy.knocked >= len(told) >= 7, "the password did not go where it belongs"
    assert [secret for secret in (*SPELLED, *OWN_SPELLED) if any(secret in text for text in told)] == []


@pytest.mark.parametrize("address", ODD)
@pytest.mark.parametrize("kind", [each for each in TYPES if each != "opendal"], indirect=True)
def test_nothing_of_what_is_no_address(
    kind: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but OpenDAL, which goes without a proxy then, and out of this machine."""
    monkeypatch.setenv("HTTPS_PROXY", address)
    told = told_by(kind, tmp_path)
    assert told
    assert [part for part in ("s3krit", "p4ssage", *OWN_SPELLED) if any(part in text for text in told)] == []


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("kind", ["gdrive"], indirect=True)
def test_nothing_of_a_login_that_fails(kind: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent then is the client's secret and the code that stands for the account."""
    memo, shown = MemoryMemo(), list[str]()
    _, options = options_of(kind, tmp_path, memo)

    def pasted() -> str | None:
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(shown[0]).query)
        return f"{asked['redirect_uri'][0]}?{urllib.parse.urlencode({'code': OWN, 'state': asked['state'][0]})}"

    with LockedProxy(how) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(base.Unavailable) as caught:
            login(Opening("far", options, memo), lambda _: None, lambda _, text: shown.append(text), pasted=pasted)
    assert proxy.knocked == 1
    text = held(caught.value)
    assert [secret for secret in (*SPELLED, OWN) if secret in text] == []


@pytest.mark.parametrize("token", ["one\ntwo", "caf\u00e9", "one\x00two", "one\x7ftwo"])
def test_a_token_that_cannot_be_sent_is_not_quoted(token: str, tmp_path: Path) -> None:
    options = WebdavOptions("https://dav.invalid/v", token_file=secret_file(tmp_path, token))
    with pytest.raises(base.SecretFileRefused) as caught:
        registry.open_provider(ProviderConfig("far", "webdav", options))
    assert caught.value.params["reason"] == "malformed"
    assert token not in held(caught.value)
