"""The commands on a Google Drive that follows the published protocol: logging in as a person does, trying it, and what
is said when access was taken back."""

from __future__ import annotations

import functools
import html
import io
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatkeep.config.loader import load
from chatkeep.config.storages import DriveOptions
from chatkeep.daemon.cli import setup_storage
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from chatkeep.daemon.cli.output import Output
from chatkeep.providers import gdrive, google_login
from chatkeep.providers.registry import ProviderType
from tests.support.drive_machine import fake
from tests.support.fake_drive import FakeDrive

__all__ = ["fake"]


class Person:
    """Somebody in front of a browser, who allows what is asked."""

    def __init__(self, fake: FakeDrive) -> None:
        self.fake = fake
        self.seen: list[str] = []
        self._threads: list[threading.Thread] = []

    def open_file(self, path: str, _environment: object) -> bool:
        found = re.search(r'href="([^"]+)"', Path(path).read_text())
        assert found is not None
        thread = threading.Thread(target=self._visit, args=(html.unescape(found[1]),))
        thread.start()
        self._threads.append(thread)
        return True

    def _visit(self, address: str) -> None:
        page = urllib.request.urlopen(address).read().decode()  # noqa: S310  # of the fake
        link = re.search("href='([^']+)'>Allow", page)
        assert link is not None
        # Sent on to the page on this machine, as a browser is.
        back = urllib.request.urlopen(self.fake.origin + html.unescape(link[1]))  # noqa: S310
        self.seen.append(back.read().decode())

    def leave(self) -> None:
        for thread in self._threads:
            thread.join(30)


@pytest.fixture
def person(fake: FakeDrive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    opened = functools.partial(gdrive.open_drive, endpoint=fake.origin)
    monkeypatch.setattr(gdrive, "TYPE", ProviderType(DriveOptions, opened))
    monkeypatch.setattr(google_login, "login", functools.partial(google_login.login, endpoint=fake.origin))
    found = Person(fake)
    monkeypatch.setattr("chatkeep.daemon.control.ceremony.opening.open_file", found.open_file)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nothing is pasted
    for name in ("SSH_CONNECTION", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    yield found
    found.leave()


@pytest.fixture
def config(fake: FakeDrive, tmp_path: Path) -> Path:
    (tmp_path / "chat").mkdir()
    client = tmp_path / "client.json"
    client.write_text(fake.client_json())
    client.chmod(0o600)
    file = tmp_path / "c.yaml"
    file.write_text(
        f"sources: [{tmp_path}/chat]\n"
        f"providers:\n  - {{name: drive, type: gdrive, client_file: {client}}}\nstate_dir: {tmp_path}/state\n"
    )
    return file


def said(config: Path, capsys: pytest.CaptureFixture[str], *words: str, code: Exit = Exit.DONE) -> Any:
    capsys.readouterr()
    assert main(["--config", str(config), "--json", *words]) == code
    return json.loads(capsys.readouterr().out)


def checks(config: Path, capsys: pytest.CaptureFixture[str], *words: str, code: Exit = Exit.DONE) -> dict[str, Any]:
    (one,) = said(config, capsys, "providers", "test", *words, code=code)["providers"]
    return {row["check"]: row for row in one["checks"]}


def test_from_no_login_to_a_vault_and_back(
    config: Path, person: Person, fake: FakeDrive, capsys: pytest.CaptureFixture[str]
) -> None:
    never = checks(config, capsys, "--quick", code=Exit.STORAGE)
    assert (never["credentials"]["answer"], never["credentials"]["code"]) == ("no", "login-needed")
    assert "chatkeep providers login drive" in never["credentials"]["remedy"]

    assert said(config, capsys, "providers", "login", "drive")["logged_in"] is True
    person.leave()
    assert "Google has answered." in person.seen[0]

    missing = checks(config, capsys, "--quick", code=Exit.STORAGE)
    assert missing["place"]["answer"] == "no", "the folder is made with the vault"
    assert "credentials" not in missing, "the next row says it, once there is a place to say it of"
    key = config.parent / "key.txt"
    said(config, capsys, "init", "--recovery-key-file", str(key))
    found = checks(config, capsys)
    assert {row["answer"] for check, row in found.items() if check in {"write", "read", "range", "list", "delete"}} == {
        "yes"
    }
    assert found["speed up"]["value"] > 0

    fake.accounts.revoke()
    again = checks(config, capsys, "--quick", code=Exit.STORAGE)
    assert again["credentials"]["code"] == "login-needed"
    said(config, capsys, "providers", "login", "drive")
    person.leave()
    assert checks(config, capsys, "--quick")["credentials"]["answer"] == "yes"


def test_setup_has_a_person_log_in_where_that_is_missing(config: Path, person: Person) -> None:
    (drive,) = load(config).providers
    shown = io.StringIO()
    found = setup_storage.watched(Output(err=shown), drive)
    person.leave()
    assert person.seen
    assert setup_storage.is_enough(drive, found)
    words = " ".join(shown.getvalue().split())
    assert "setup has you log in next" in words
    assert "It is not there yet, and is made with the vault." in words
