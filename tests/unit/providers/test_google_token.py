"""Access tokens: made from what a login gave, renewed, and given up."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chatkeep.providers import base
from chatkeep.providers.google_token import TokenInFile, TokenInMemo
from chatkeep.providers.wrap import Retrying
from tests.support.drive_machine import DriveMachine, fake, machine
from tests.support.fake_drive import FakeDrive

__all__ = ["fake", "machine"]


def test_one_token_for_all_threads(fake: FakeDrive, machine: DriveMachine) -> None:
    with machine.provider() as provider:
        provider.put("a", b"1")
    before = fake.count("token")
    with machine.provider(create=False) as provider, ThreadPoolExecutor(8) as pool:
        barrier = threading.Barrier(8)

        def get(_number: int) -> bytes:
            barrier.wait(10)
            return provider.get("a")

        assert list(pool.map(get, range(8))) == [b"1"] * 8
    assert fake.count("token") - before == 1


def test_renewed_before_it_ends(fake: FakeDrive, machine: DriveMachine) -> None:
    now = [time.time()]
    with machine.provider(now=lambda: now[0]) as provider:
        provider.put("a", b"1")
        before = fake.count("token")
        provider.stat("a")
        assert fake.count("token") == before
        now[0] += 3500  # two minutes and more before the end
        provider.stat("a")
    assert fake.count("token") == before + 1
    assert ("files.get", 401) not in fake.log


def test_refused_before_its_time(fake: FakeDrive, machine: DriveMachine) -> None:
    """By another clock, or taken back: one renewal, and the same request again, with its body."""
    with machine.provider() as provider:
        provider.put("a", b"1")
        fake.accounts.ahead = 3600
        before = fake.count("token")
        fake.accounts.lifetime = 0
        with pytest.raises(base.LoginNeeded):  # what is made now is over at once
            provider.stat("a")
        assert fake.count("token") == before + 1
        fake.accounts.lifetime = 3599
        provider.put("b", b"22")
        assert provider.get("b") == b"22"
        fake.accounts.accesses.clear()
        large = bytes(300_000)
        provider.put("c", large)
        assert provider.get("c") == large


def test_taken_back_is_never_asked_again(fake: FakeDrive, machine: DriveMachine) -> None:
    with machine.provider() as provider:
        provider.put("a", b"1")
        fake.accounts.revoke()
        before = fake.count("token")
        for _ in range(5):
            with pytest.raises(base.LoginNeeded) as caught:
                Retrying(provider, sleep=lambda _seconds: None).stat("a")
            assert caught.value.params == {"provider": "drive", "reason": "revoked", "object": "a"}
        assert fake.count("token") == before + 1
        with contextlib.closing(machine.memo()) as memo:  # another process logs in meanwhile
            TokenInMemo(memo).write(fake.accounts.logged_in())
        assert provider.get("a") == b"1"


def test_a_client_that_is_not_known(fake: FakeDrive, machine: DriveMachine) -> None:
    machine.client.write_text(fake.client_json().replace(fake.accounts.client_secret, "GOCSPX-another"))
    with machine.provider(create=False) as provider, pytest.raises(base.CredentialRefused) as caught:
        provider.stat("a")
    assert type(caught.value) is base.CredentialRefused
    assert caught.value.params["reason"] == "invalid_client"


@pytest.mark.parametrize("kind", ["memo", "file", "credential"])
def test_a_refresh_token_that_changes(
    fake: FakeDrive, machine: DriveMachine, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.accounts.rotates = True
    file, place = tmp_path / "given" / "token", None
    file.parent.mkdir()
    if kind != "memo":
        TokenInFile(file).write(fake.accounts.logged_in())
        place = file
    if kind == "credential":
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(file.parent))
        file.parent.chmod(0o500)
        file.chmod(0o440)  # so systemd may give it
        place = Path("credential:token")
    before = file.read_text() if kind != "memo" else ""
    with machine.provider(token_file=place) as provider:
        for number in range(3):
            provider.put(f"a/{number}", b"1")
            fake.accounts.accesses.clear()
    if kind == "credential":
        assert file.read_text() == before, "a credential is read only"
    else:
        with machine.provider(create=False, token_file=place) as provider:
            assert provider.get("a/0") == b"1"


def test_a_login_meanwhile_is_not_written_over(fake: FakeDrive, machine: DriveMachine) -> None:
    fake.accounts.rotates = True
    with machine.provider() as provider:
        provider.put("a", b"1")
        with contextlib.closing(machine.memo()) as memo:
            place = TokenInMemo(memo)
            another = fake.accounts.logged_in()
            place.write(another)
            fake.accounts.rotates = False
            fake.accounts.accesses.clear()
            assert provider.get("a") == b"1"
            assert place.read() == another


@pytest.mark.parametrize(
    ("text", "status", "error"),
    [
        (b"<html>log in</html>", 200, base.Unavailable),
        (b"[1]", 200, base.Unavailable),
        (b"{}", 200, base.Unavailable),
        (b'{"access_token": ""}', 200, base.Unavailable),
        (b'{"access_token": 7, "expires_in": "soon"}', 200, base.Unavailable),
        (b'{"access_token": "ya29.a\\r\\nb", "expires_in": 3600}', 200, base.Unavailable),
        (b"", 503, base.Unavailable),
        (b"", 429, base.Throttled),
        (b'{"error": "temporarily_strange"}', 400, base.Unavailable),
        (b'{"error": "invalid_grant", "error_subtype": "invalid_rapt"}', 400, base.LoginNeeded),
    ],
)
def test_what_the_endpoint_may_say(
    fake: FakeDrive, machine: DriveMachine, text: bytes, status: int, error: type[base.ProviderError]
) -> None:
    fault = fake.order("token", status=status, text=text)
    with machine.provider(create=False) as provider, pytest.raises(error) as caught:
        provider.stat("a")
    assert type(caught.value) is error
    assert fault.fired == 1


@pytest.mark.parametrize("text", ["{}", "[]", "x", '{"refresh_token": ""}', '{"refresh_token": 7}'])
def test_a_token_file_of_another_form(fake: FakeDrive, machine: DriveMachine, tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(0o600)
    with machine.provider(create=False, token_file=file) as provider, pytest.raises(base.SecretFileRefused) as caught:
        provider.stat("a")
    assert caught.value.params["reason"] == "malformed"
