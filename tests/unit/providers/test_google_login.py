"""Logging in, from the address that is shown to the token in its place, against an endpoint that checks PKCE."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import socket
import stat
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.storages import DriveOptions
from chatkeep.providers import base
from chatkeep.providers.gdrive import open_drive
from chatkeep.providers.google_login import LoginFailed, login
from chatkeep.providers.google_token import TokenInFile, TokenInMemo
from chatkeep.providers.memo import FileMemo, Memo, MemoryMemo
from chatkeep.providers.registry import Opening
from tests.support.drive_machine import fake
from tests.support.fake_drive import SCOPE, FakeDrive

__all__ = ["fake"]


@pytest.fixture
def client(fake: FakeDrive, tmp_path: Path) -> Path:
    path = tmp_path / "client.json"
    path.write_text(fake.client_json())
    path.chmod(0o600)
    return path


class NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        return None


def fetch(address: str) -> tuple[int, str, str]:
    """Status, page and where it leads; a redirection is not followed."""
    try:
        with urllib.request.build_opener(NoRedirection, urllib.request.ProxyHandler({})).open(
            address, timeout=10
        ) as got:
            return got.status, got.read().decode(), ""
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, problem.read().decode(), problem.headers.get("Location", "")


def consent(address: str, answer: str = "allow") -> str:
    """What a person does in the browser up to Google's answer: the address that the browser is sent back to."""
    status, page, _ = fetch(address)
    assert status == 200, page
    parts = urllib.parse.urlsplit(address)
    status, _, back = fetch(f"{parts.scheme}://{parts.netloc}/consent?answer={answer}&{parts.query}")
    assert status == 302
    return back


class Person:
    """Someone at the command: what is said to them, and what they do then."""

    def __init__(self, act: Callable[[str], object]) -> None:
        self.said: list[tuple[str, str]] = []
        self.lines: list[str] = []
        self.act = act
        self.failed: list[BaseException] = []
        self.threads: list[threading.Thread] = []

    def say(self, word: str, address: str) -> None:
        self.said.append((word, address))

    def open_browser(self, address: str) -> None:
        def run() -> None:
            try:
                self.act(address)
            except BaseException as problem:
                self.failed.append(problem)

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def pasted(self) -> str | None:
        return self.lines.pop(0) if self.lines else None

    def log_in(self, opening: Opening, fake: FakeDrive, **about: Any) -> None:
        about.setdefault("patience", 20.0)
        try:
            login(opening, self.open_browser, self.say, pasted=self.pasted, endpoint=fake.origin, **about)
        finally:
            for each in self.threads:
                each.join(20)
        assert self.failed == []


def opening(client: Path, memo: Memo, **about: Any) -> Opening:
    return Opening("drive", DriveOptions(client, **about), memo, create=True)


def works(given: Opening, fake: FakeDrive) -> None:
    with contextlib.closing(open_drive(given, endpoint=fake.origin)) as provider:
        provider.put("a", b"1")
        assert provider.get("a") == b"1"


def test_in_a_browser_of_this_machine(fake: FakeDrive, client: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, str, str]] = []
    with contextlib.closing(FileMemo(tmp_path / "state" / "memo.db")) as memo:
        given = opening(client, memo)
        with pytest.raises(base.LoginNeeded) as caught:
            works(given, fake)
        assert caught.value.params["reason"] == "never"
        person = Person(lambda address: seen.append(fetch(consent(address))))
        person.log_in(given, fake)
        works(given, fake)
    assert [word for word, _ in person.said] == ["open"]
    assert seen[0][0] == 200
    asked = fake.accounts.asked
    assert asked["scope"] == SCOPE
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"].startswith("http://127.0.0.1:")
    assert (asked["access_type"], asked["prompt"]) == ("offline", "consent")
    for file in (tmp_path / "state").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    refused = urllib.parse.urlsplit(asked["redirect_uri"])
    with socket.socket() as probe:  # the page is gone
        assert probe.connect_ex(("127.0.0.1", refused.port or 0)) != 0


def test_in_a_real_browser(fake: FakeDrive, client: Path) -> None:
    from playwright.sync_api import sync_playwright

    memo = MemoryMemo()

    def act(address: str) -> None:
        with sync_playwright() as playwright:
            arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
            page = browser.new_page()
            page.goto(address)
            page.click("#allow")
            page.wait_for_url("http://127.0.0.1:*/?*")
            assert "this window can be closed" in page.inner_text("body")
            browser.close()

    Person(act).log_in(opening(client, memo), fake, patience=120.0)
    works(opening(client, memo), fake)


def test_on_a_machine_without_a_browser(fake: FakeDrive, client: Path) -> None:
    """The address is opened elsewhere, where nothing answers at 127.0.0.1, and the address of that error is pasted."""
    memo = MemoryMemo()
    person = Person(lambda _address: None)

    def act(address: str) -> None:
        back = consent(address)
        code = urllib.parse.parse_qs(urllib.parse.urlsplit(back).query)["code"][0]
        other = back.replace("state=", "state=x")
        person.lines += ["", code, "https://example.org/?" + back.partition("?")[2], other, "x" * 10_000]
        person.lines += [back.replace("127.0.0.1", "127.0.0.2"), f"  {back} "]

    person.act = act
    person.log_in(opening(client, memo), fake)
    assert [word for word, _ in person.said] == ["open"] + ["not-this"] * 6
    works(opening(client, memo), fake)


@pytest.mark.parametrize("answer", ["deny", "scope"])
def test_the_person_says_no(fake: FakeDrive, client: Path, answer: str) -> None:
    memo = MemoryMemo()
    if answer == "scope":
        fake.accounts.scope = "https://www.googleapis.com/auth/userinfo.email"
    word = "deny" if answer == "deny" else "allow"
    with pytest.raises(LoginFailed) as caught:
        Person(lambda address: fetch(consent(address, word))).log_in(opening(client, memo), fake)
    assert caught.value.params == {"provider": "drive", "reason": "denied" if answer == "deny" else "scope"}
    assert TokenInMemo(memo).read() is None


def test_nobody_answers(fake: FakeDrive, client: Path) -> None:
    with pytest.raises(LoginFailed) as caught:
        Person(lambda _address: None).log_in(opening(client, MemoryMemo()), fake, patience=0.3)
    assert caught.value.params["reason"] == "timeout"


def test_a_browser_that_cannot_be_opened(fake: FakeDrive, client: Path) -> None:
    memo, lines = MemoryMemo(), []

    def say(word: str, address: str) -> None:
        lines.append(consent(address))

    def fails(address: str) -> None:
        raise OSError

    login(opening(client, memo), fails, say, pasted=lambda: lines.pop() if lines else None, endpoint=fake.origin)
    assert TokenInMemo(memo).read() is not None


def test_others_on_this_machine(fake: FakeDrive, client: Path) -> None:
    """Whoever guesses the port gets nothing in and nothing out, and does not end the login either."""
    replies: list[int] = []

    def act(address: str) -> None:
        back = consent(address)
        parts = urllib.parse.urlsplit(back)
        at, query = f"127.0.0.1:{parts.port}", parts.query
        own = {"Host": at}
        idle = socket.create_connection(("127.0.0.1", parts.port or 0))  # holds a connection and says nothing
        code = urllib.parse.parse_qs(query)["code"][0]
        for method, path, headers in (
            ("GET", "/", own),
            ("GET", "/?code=stolen&state=guess", own),
            ("GET", f"/?code={code}", own),
            ("GET", f"/?{query}&state=twice", own),
            ("GET", f"/?{query}&error=both", own),
            ("GET", f"/other?{query}", own),
            ("GET", f"/?{query}", {"Host": "evil.example"}),
            ("POST", f"/?{query}", own),
            ("GET", f"/?{query}", own),
            ("GET", f"/?{query}", own),
        ):
            connection = http.client.HTTPConnection(at, timeout=10)
            with contextlib.closing(connection), contextlib.suppress(ConnectionError):  # the last may find it gone
                connection.request(method, path, headers=headers)
                replies.append(connection.getresponse().status)
        idle.close()

    Person(act).log_in(opening(client, MemoryMemo()), fake)
    assert replies[:9] == [400, 400, 400, 400, 400, 404, 404, 501, 200]
    assert replies[9:] in ([], [400])
    assert fake.count("token") == 1


def test_a_code_is_used_once(fake: FakeDrive, client: Path) -> None:
    """Two browsers that answer at once: one exchange, and nothing that the endpoint takes for a theft."""

    def act(address: str) -> None:
        back = consent(address)

        def visit() -> None:
            with contextlib.suppress(OSError):  # those that come late find nobody
                fetch(back)

        visits = [threading.Thread(target=visit) for _ in range(6)]
        for each in visits:
            each.start()
        for each in visits:
            each.join()

    memo = MemoryMemo()
    Person(act).log_in(opening(client, memo), fake)
    assert fake.count("token") == 1
    works(opening(client, memo), fake)


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        ((400, b'{"error": "invalid_grant", "secret": "1//x"}'), LoginFailed, "refused"),
        ((401, b'{"error": "invalid_client"}'), base.CredentialRefused, "invalid_client"),
        ((200, b'{"access_token": "ya29.x", "scope": "' + SCOPE.encode() + b'"}'), LoginFailed, "reply"),
        ((200, b"<html>log in to this network</html>"), LoginFailed, "reply"),
        ((200, b"[" * 100_000), LoginFailed, "reply"),
        ((503, b""), base.Unavailable, None),
        ((302, b""), LoginFailed, "reply"),
    ],
)
def test_what_the_endpoint_may_say(
    fake: FakeDrive, client: Path, answer: tuple[int, bytes], kind: type[base.ProviderError], reason: str | None
) -> None:
    memo = MemoryMemo()
    TokenInMemo(memo).write("1//before")
    fault = fake.order("token", status=answer[0], text=answer[1])
    with pytest.raises(kind) as caught:
        Person(lambda address: fetch(consent(address))).log_in(opening(client, memo), fake)
    assert type(caught.value) is kind
    assert caught.value.params.get("reason") == reason
    assert fault.fired == 1
    assert TokenInMemo(memo).read() == "1//before", "what was there stands"


def test_a_token_file(fake: FakeDrive, client: Path, tmp_path: Path) -> None:
    file = tmp_path / "token.json"
    given = opening(client, MemoryMemo(), token_file=file)
    old = os.umask(0)
    try:
        Person(lambda address: fetch(consent(address))).log_in(given, fake)
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(json.loads(file.read_text())) == {"version", "refresh_token", "scope"}
    works(given, fake)
    first = TokenInFile(file).read()
    Person(lambda address: fetch(consent(address))).log_in(given, fake)
    assert TokenInFile(file).read() != first
    assert [each.name for each in tmp_path.iterdir() if "token" in each.name or "new" in each.name] == ["token.json"]
    file.chmod(0o640)
    with pytest.raises(base.SecretFileRefused) as caught:
        works(given, fake)
    assert caught.value.params["reason"] == "mode"


def test_a_place_that_cannot_be_written_is_said_before_anybody_is_asked(
    fake: FakeDrive, client: Path, tmp_path: Path
) -> None:
    for file, reason in ((Path("credential:token"), "read-only"), (tmp_path / "missing" / "token", "unwritable")):
        person = Person(lambda _address: None)
        with pytest.raises(base.SecretFileRefused) as caught:
            person.log_in(opening(client, MemoryMemo(), token_file=file), fake)
        assert caught.value.params["reason"] == reason
        assert person.said == []


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("installed"),
        lambda found: found.update(web=found.pop("installed")),
        lambda found: found["installed"].pop("client_secret"),
        lambda found: found["installed"].update(client_id=7),
        lambda found: found["installed"].update(token_uri="http://oauth2.example.org/token"),
        lambda found: found["installed"].update(auth_uri="file:///etc/passwd"),
        lambda found: found["installed"].update(token_uri="https://user:password@example.org/token"),
    ],
)
def test_a_client_file_of_another_form(fake: FakeDrive, client: Path, change: Callable[[Any], object]) -> None:
    found = json.loads(client.read_text())
    change(found)
    client.write_text(json.dumps(found))
    with pytest.raises(base.SecretFileRefused) as caught:
        open_drive(opening(client, MemoryMemo()), endpoint=fake.origin)
    assert caught.value.params["reason"] == "malformed"


def test_nothing_secret_is_shown(
    fake: FakeDrive, client: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    memo, backs = MemoryMemo(), []

    def act(address: str) -> None:
        backs.append(consent(address))
        fetch(backs[0])

    person = Person(act)
    person.log_in(opening(client, memo), fake)
    works(opening(client, memo), fake)
    fake.order("token", status=400, text=b'{"error": "strange", "refresh_token": "1//fake-refresh-leak"}')
    with pytest.raises(LoginFailed) as caught:
        Person(lambda address: fetch(consent(address))).log_in(opening(client, memo), fake)
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(backs[0]).query)
    secrets = [fake.accounts.client_secret, *fake.accounts.refreshes, *fake.accounts.accesses, query["code"][0]]
    secrets += [query["state"][0], "1//fake-refresh-leak"]
    shown = capsys.readouterr()
    text = shown.out + shown.err + caplog.text + repr(caught.value) + str(caught.value.__cause__)
    assert len(caplog.records) > 0
    assert [each for each in secrets if each in text] == []
    assert fake.accounts.client_secret not in person.said[0][1]
